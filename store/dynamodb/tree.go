package dynamodb

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

const (
	deletesAtOnce = 25  // in one BatchWriteItem
	readsAtOnce   = 100 // in one BatchGetItem
	batchesAtOnce = 8   // of deletions, side by side
)

// Walk implements store.Driver: a range of one partition in pages of 1 MB. Only
// the root needs a scan of the table.
func (d *driver) Walk(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		for i, err := range d.items(ctx, dir, opts) {
			switch {
			case err != nil:
				yield(nil, err)
				return
			case !i.expired(time.Now()) && !yield(i.pair(opts.KeysOnly), nil):
				return
			}
		}
	}
}

// items yields all items whose key begins with dir, those that have expired too,
// and a *corruptItem for each that cannot be read.
func (d *driver) items(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*item, error] {
	return func(yield func(*item, error) bool) {
		for page, err := range d.pages(ctx, dir, opts) {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, a := range page {
				key := decoder{attributes: a}
				if !inPlace(a) || !strings.HasPrefix(key.text(attrKey, true), dir) {
					continue // or the end of the range, which belongs to it
				}
				if !yield(decode(a)) {
					return
				}
			}
		}
	}
}

// pages yields the pages in which the server answers; some are empty.
func (d *driver) pages(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[[]attributes, error] {
	return func(yield func([]attributes, error) bool) {
		if err := d.ready(ctx); err != nil {
			yield(nil, err)
			return
		}
		if len(dir) > maxWireKey {
			return // nothing can be below it, and the server refuses to look
		}
		var next attributes
		for {
			var page []attributes
			var err error
			if page, next, err = d.page(ctx, dir, opts, next); err != nil {
				yield(nil, err)
				return
			}
			if !yield(page, nil) || len(next) == 0 {
				return
			}
		}
	}
}

// page reads the page after a key.
func (d *driver) page(ctx context.Context, dir string, opts valkeyrie.ReadOptions, after attributes) ([]attributes, attributes, error) {
	consistent := aws.Bool(!opts.AllowStale)
	if dir == "" {
		answer, err := read(ctx, d, func(ctx context.Context) (*dynamodb.ScanOutput, error) {
			return d.db.Scan(ctx, &dynamodb.ScanInput{
				TableName: d.table, ConsistentRead: consistent, ExclusiveStartKey: after,
				ProjectionExpression: projection(opts.KeysOnly),
			})
		})
		if err != nil {
			return nil, nil, err
		}
		return answer.Items, answer.LastEvaluatedKey, nil
	}
	answer, err := read(ctx, d, func(ctx context.Context) (*dynamodb.QueryOutput, error) {
		return d.db.Query(ctx, &dynamodb.QueryInput{
			TableName: d.table, ConsistentRead: consistent, ExclusiveStartKey: after,
			ProjectionExpression: projection(opts.KeysOnly),
			// Not begins_with, which DynamoDB Local takes for a pattern.
			KeyConditionExpression: aws.String(attrPartition + " = :partition AND " + attrKey + " BETWEEN :dir AND :end"),
			ExpressionAttributeValues: attributes{
				":partition": text(partition(dir)), ":dir": text(dir), ":end": text(strings.TrimSuffix(dir, "/") + "0"),
			},
		})
	})
	if err != nil {
		return nil, nil, err
	}
	return answer.Items, answer.LastEvaluatedKey, nil
}

// getAll reads several items; those that do not exist are left out.
func (d *driver) getAll(ctx context.Context, keys []string, withoutValues bool) (map[string]*item, error) {
	found := make(map[string]*item, len(keys))
	for len(keys) > 0 {
		n := min(len(keys), readsAtOnce)
		want := types.KeysAndAttributes{ConsistentRead: aws.Bool(true), ProjectionExpression: projection(withoutValues)}
		for _, key := range keys[:n] {
			want.Keys = append(want.Keys, primaryKey(key))
		}
		keys = keys[n:]
		for try := 1; len(want.Keys) > 0; try++ {
			answer, err := read(ctx, d, func(ctx context.Context) (*dynamodb.BatchGetItemOutput, error) {
				return d.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{*d.table: want}})
			})
			if err != nil {
				return nil, err
			}
			for _, a := range answer.Responses[*d.table] {
				i, err := decode(a)
				if err != nil {
					return nil, err
				}
				found[i.key] = i
			}
			// What did not fit into one answer, or was throttled.
			if want.Keys = answer.UnprocessedKeys[*d.table].Keys; len(want.Keys) > 0 {
				if err := unprocessed(ctx, try); err != nil {
					return nil, err
				}
			}
		}
	}
	return found, nil
}

// errUnprocessed: the server has left parts of a batch undone again and again.
var errUnprocessed = errors.New("the server is too busy for all of a batch")

// unprocessed pauses before what is left of a batch is sent again.
func unprocessed(ctx context.Context, try int) error {
	if try >= throttledTries {
		return store.Wrap(valkeyrie.ErrNotReachable, errUnprocessed)
	}
	if store.Sleep(ctx, rand.N(min(25*time.Millisecond<<try, 2*time.Second))) != nil {
		return ctx.Err()
	}
	return nil
}

// DeleteTree implements store.Driver, in batches.
func (d *driver) DeleteTree(ctx context.Context, dir string) error {
	deleting, ctx := errgroup.WithContext(ctx)
	deleting.SetLimit(batchesAtOnce)
	var failed error
	found := false
	var batch []types.WriteRequest
	flush := func() {
		requests := batch
		batch = nil
		deleting.Go(func() error { return d.deleteBatch(ctx, requests) })
	}
	for i, err := range d.items(ctx, dir, valkeyrie.ReadOptions{KeysOnly: true}) {
		if corrupt := (*corruptItem)(nil); errors.As(err, &corrupt) {
			found = true
			deleting.Go(func() error { return d.clear(ctx, corrupt) })
			continue
		}
		if err != nil {
			failed = err
			break
		}
		alive := !i.expired(time.Now())
		found = found || alive
		switch {
		case i.token == 0:
			batch = append(batch, types.WriteRequest{DeleteRequest: &types.DeleteRequest{Key: primaryKey(i.key)}})
		case alive: // a lock, whose token has to stay
			deleting.Go(func() error {
				err := d.Delete(ctx, i.key, 0)
				if errors.Is(err, valkeyrie.ErrKeyNotFound) {
					return nil
				}
				return err
			})
		}
		if len(batch) == deletesAtOnce {
			flush()
		}
	}
	if len(batch) > 0 && failed == nil {
		flush()
	}
	switch err := deleting.Wait(); {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case !found:
		return valkeyrie.ErrKeyNotFound
	}
	return nil
}

// deleteBatch deletes the items of one batch, whether or not they exist.
func (d *driver) deleteBatch(ctx context.Context, requests []types.WriteRequest) error {
	for try := 1; ; try++ {
		answer, err := write(ctx, d, func(ctx context.Context) (*dynamodb.BatchWriteItemOutput, error) {
			return d.db.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{*d.table: requests}})
		})
		if err != nil {
			return err
		}
		if requests = answer.UnprocessedItems[*d.table]; len(requests) == 0 {
			return nil
		}
		if err := unprocessed(ctx, try); err != nil {
			return err
		}
	}
}
