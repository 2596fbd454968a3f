package dynamodb

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestTheTableIsCreatedOnceByMany(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	var callers sync.WaitGroup
	errs := make(chan error, 20)
	for i := range 4 {
		s := open(t, nil, &Options{Table: "created", Create: true})
		for j := range 5 {
			callers.Go(func() { errs <- s.Put(ctx, fmt.Sprint("k/", i, j), nil, nil) })
		}
	}
	callers.Wait()
	for range 20 {
		require.NoError(t, <-errs)
	}
	c := raw(t, testserver.DynamoDB(t))
	answer, err := c.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String("created")})
	require.NoError(t, err)
	assert.Equal(t, types.BillingModePayPerRequest, answer.Table.BillingModeSummary.BillingMode)
	assert.Equal(t, types.StreamViewTypeKeysOnly, answer.Table.StreamSpecification.StreamViewType)
	ttl, err := c.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: aws.String("created")})
	require.NoError(t, err)
	assert.Equal(t, attrSweep, aws.ToString(ttl.TimeToLiveDescription.AttributeName))
	assert.Equal(t, types.TimeToLiveStatusEnabled, ttl.TimeToLiveDescription.TimeToLiveStatus)
}

func TestAMissingTableIsAnErrorUntilItIsThere(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	cfg := awsTest(nil)
	cfg.BaseEndpoint = aws.String("http://" + testserver.DynamoDB(t)) // nothing says that it is an emulator
	s, err := New(nil, nil, &Options{Table: "missing", AWS: cfg})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	err = s.Put(ctx, "k", nil, nil)
	require.ErrorContains(t, err, `"missing"`)
	require.ErrorContains(t, err, "Options.Create")
	_, err = s.Watch(ctx, "k", nil)
	require.ErrorContains(t, err, "Options.Create")
	other := open(t, nil, &Options{Table: "missing", Create: true})
	require.NoError(t, other.Put(ctx, "other", nil, nil))
	require.NoError(t, s.Put(ctx, "k", nil, nil), "the same store works once there is a table")
}

func TestTheTableOfAnEmulatorIsCreated(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, nil, &Options{Table: "emulated"})
	require.NoError(t, s.Put(ctx, "k", nil, nil))
	for endpoint, want := range map[string]bool{
		"127.0.0.1": true, "http://127.0.0.1:8000": true, "localhost:8000": true, "[::1]:8000": true,
		"10.0.0.1:8000": false, "https://dynamodb.eu-west-1.amazonaws.com": false, "https://localhost.example:8000": false,
	} {
		u, err := endpointURL([]string{endpoint}, false)
		require.NoError(t, err)
		assert.Equal(t, want, onThisMachine(u), endpoint)
	}
	assert.False(t, onThisMachine(nil), "the region's own")
}

func TestATableThatDoesNotFitIsRefused(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	_, err := raw(t, testserver.DynamoDB(t)).CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName:            aws.String("foreign"),
		BillingMode:          types.BillingModePayPerRequest,
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash}},
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeN}},
	})
	require.NoError(t, err)
	s := open(t, nil, &Options{Table: "foreign", Create: true})
	for range 2 {
		err = s.Put(ctx, "k", nil, nil)
		require.ErrorContains(t, err, "HASH id (N)")
		require.ErrorContains(t, err, "HASH pk (S), RANGE sk (S)")
	}
}

func TestForeignItems(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, nil, &Options{Table: "corrupt", Create: true, NoStream: true})
	require.NoError(t, s.Put(ctx, "d/ours", nil, nil))
	key := "d/theirs"
	a := primaryKey(key)
	a["data"] = text("something else")
	rawItem(t, "corrupt", a)

	corrupt := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
		require.ErrorContains(t, err, `"d/theirs"`)
	}
	_, err := s.Get(ctx, key, nil)
	corrupt(err)
	_, err = s.List(ctx, "d", nil)
	corrupt(err)
	_, _, err = s.AtomicPut(ctx, key, nil, nil, nil)
	corrupt(err)
	_, _, err = s.AtomicPut(ctx, key, nil, &valkeyrie.KVPair{LastIndex: 1}, nil)
	corrupt(err)
	_, err = s.AtomicDelete(ctx, key, &valkeyrie.KVPair{LastIndex: 1})
	corrupt(err)
	l, err := s.NewLock(ctx, key, nil)
	require.NoError(t, err)
	_, err = l.TryLock(ctx)
	corrupt(err)
	require.NoError(t, s.Delete(ctx, key))
	rawItem(t, "corrupt", a)
	require.NoError(t, s.Put(ctx, key, []byte("ours now"), nil))
	pairs, err := s.List(ctx, "d", nil)
	require.NoError(t, err)
	assert.Len(t, pairs, 2)
}

func TestValuesAreLimitedWhateverTheKey(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s, p := tapped(t, Options{})
	key := strings.Repeat("k", maxWireKey)
	mortal := &valkeyrie.WriteOptions{TTL: time.Hour}
	require.NoError(t, s.Put(ctx, key, make([]byte, maxValue), mortal), "the longest key with the largest value")
	l, err := s.NewLock(ctx, key[1:], &valkeyrie.LockOptions{Value: make([]byte, maxValue)})
	require.NoError(t, err)
	_, err = l.TryLock(ctx)
	require.NoError(t, err)
	require.NoError(t, l.Unlock(ctx))
	p.took()
	require.ErrorIs(t, s.Put(ctx, "k", make([]byte, maxValue+1), nil), valkeyrie.ErrValueTooLarge)
	ops := p.ops() // the reader of the stream, which the lock has started, may still be at it
	assert.NotContains(t, ops, "PutItem", "nothing is sent")
	assert.NotContains(t, ops, "UpdateItem", "nothing is sent")

	prefixed := open(t, &valkeyrie.Config{Prefix: "p"}, nil)
	require.ErrorIs(t, prefixed.Put(ctx, key, nil, nil), valkeyrie.ErrInvalidKey, "too long with the prefix")
	require.NoError(t, prefixed.Put(ctx, key[2:], nil, nil))
	require.NoError(t, s.Delete(ctx, key))
	require.NoError(t, prefixed.Delete(ctx, key[2:]))
}

func TestNewDoesNotWaitForTheServer(t *testing.T) {
	testutils.RequireUnreachable(t, func() valkeyrie.Store {
		s := mustNew(t, "127.0.0.1:1", nil, nil)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	})
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]struct {
		endpoints []string
		cfg       valkeyrie.Config
		opts      Options
		field     string
	}{
		"two endpoints":     {[]string{"a:1", "b:1"}, valkeyrie.Config{}, Options{}, "endpoints"},
		"an empty endpoint": {[]string{""}, valkeyrie.Config{}, Options{}, "endpoints"},
		"another scheme":    {[]string{"tcp://a:1"}, valkeyrie.Config{}, Options{}, "endpoints"},
		"TLS to http":       {[]string{"http://a:1"}, valkeyrie.Config{TLS: tlsOfNobody}, Options{}, "endpoints"},
		"no URL":            {[]string{"http://a b:1"}, valkeyrie.Config{}, Options{}, "endpoints"},
		"short table":       {nil, valkeyrie.Config{}, Options{Table: "t"}, "Options.Table"},
		"bad table":         {nil, valkeyrie.Config{}, Options{Table: "a/b/c"}, "Options.Table"},
		"negative interval": {nil, valkeyrie.Config{}, Options{PollInterval: -1}, "Options.PollInterval"},
		"no region":         {nil, valkeyrie.Config{}, Options{AWS: &aws.Config{}}, "Options.AWS"},
		"two TLS settings":  {[]string{"a:1"}, valkeyrie.Config{TLS: tlsOfNobody}, Options{AWS: awsTest(new(tap))}, "Config.TLS"},
	} {
		_, err := New(c.endpoints, &c.cfg, &c.opts)
		var bad *valkeyrie.InvalidConfigError
		require.ErrorAs(t, err, &bad, name)
		assert.Equal(t, c.field, bad.Field, name)
		assert.Equal(t, StoreName, bad.Backend, name)
	}
}
