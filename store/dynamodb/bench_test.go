package dynamodb

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func BenchmarkStore(b *testing.B) {
	h := harness(testserver.DynamoDB(b))
	h.Baseline = func(b testing.TB) testutils.Native { return native(b, testserver.DynamoDB(b)) }
	testutils.Benchmark(b, h)
}

// native is the SDK's client as it comes, with a table of its own that has the
// same keys: one request a call, pages of 1 MB, batches of 25. The SDK has no
// lock.
func native(b testing.TB, addr string) testutils.Native {
	table := aws.String("native")
	creator := mustNew(b, addr, nil, &Options{Table: *table, Create: true})
	_, err := creator.Exists(context.Background(), "k", nil)
	require.NoError(b, err)
	require.NoError(b, creator.Close())
	cfg := awsTest(nil)
	cfg.BaseEndpoint = aws.String("http://" + addr)
	c := dynamodb.NewFromConfig(*cfg)
	build := func(key string, value []byte) attributes {
		a := primaryKey(key)
		a["val"], a["version"] = &types.AttributeValueMemberB{Value: value}, number(uint64(1))
		return a
	}
	query := func(ctx context.Context, dir string, visit func([]attributes) error) error {
		pages := dynamodb.NewQueryPaginator(c, &dynamodb.QueryInput{
			TableName: table, ConsistentRead: aws.Bool(true),
			KeyConditionExpression:    aws.String("pk = :p AND begins_with(sk, :d)"),
			ExpressionAttributeValues: attributes{":p": text(partition(dir)), ":d": text(dir + "/")},
		})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			if err := visit(page.Items); err != nil {
				return err
			}
		}
		return nil
	}
	put := func(ctx context.Context, in *dynamodb.PutItemInput) error {
		in.TableName = table
		_, err := c.PutItem(ctx, in)
		return err
	}
	return testutils.Native{
		Get: func(ctx context.Context, key string) error {
			_, err := c.GetItem(ctx, &dynamodb.GetItemInput{TableName: table, Key: primaryKey(key), ConsistentRead: aws.Bool(true)})
			return err
		},
		Put: func(ctx context.Context, key string, value []byte) error {
			return put(ctx, &dynamodb.PutItemInput{Item: build(key, value)})
		},
		PutTTL: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
			a := build(key, value)
			a["expires"] = number(time.Now().Add(ttl).Unix())
			return put(ctx, &dynamodb.PutItemInput{Item: a})
		},
		CreateUpdate: func(ctx context.Context, key string, value []byte) error {
			a := build(key, value)
			if err := put(ctx, &dynamodb.PutItemInput{Item: a, ConditionExpression: aws.String("attribute_not_exists(sk)")}); err != nil {
				return err
			}
			a["version"] = number(uint64(2))
			return put(ctx, &dynamodb.PutItemInput{
				Item: a, ConditionExpression: aws.String("version = :v"),
				ExpressionAttributeValues: attributes{":v": number(uint64(1))},
			})
		},
		List: func(ctx context.Context, dir string) (int, error) {
			n := 0
			err := query(ctx, dir, func(items []attributes) error {
				n += len(items)
				return nil
			})
			return n, err
		},
		DeleteTree: func(ctx context.Context, dir string) error {
			return query(ctx, dir, func(items []attributes) error {
				for len(items) > 0 {
					n := min(len(items), 25)
					var batch []types.WriteRequest
					for _, a := range items[:n] {
						key := attributes{"pk": a["pk"], "sk": a["sk"]}
						batch = append(batch, types.WriteRequest{DeleteRequest: &types.DeleteRequest{Key: key}})
					}
					items = items[n:]
					if _, err := c.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{
						RequestItems: map[string][]types.WriteRequest{*table: batch},
					}); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
