package dynamodb

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestEachCallIsOneRequest(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s, p := tapped(t, Options{})
	mortal := &valkeyrie.WriteOptions{TTL: time.Minute}
	var pair *valkeyrie.KVPair
	for _, c := range []struct {
		name string
		call func() error
		want string
	}{
		{"Put", func() error { return s.Put(ctx, "one/k", []byte("v"), nil) }, "PutItem"},
		{"Put with a TTL", func() error { return s.Put(ctx, "one/k", []byte("v"), mortal) }, "PutItem"},
		{"Get", func() error { _, err := s.Get(ctx, "one/k", nil); return err }, "GetItem"},
		{"Exists", func() error { _, err := s.Exists(ctx, "one/k", nil); return err }, "GetItem"},
		{"create", func() (err error) { _, pair, err = s.AtomicPut(ctx, "one/new", nil, nil, nil); return err }, "PutItem"},
		{"update", func() (err error) { _, pair, err = s.AtomicPut(ctx, "one/new", nil, pair, mortal); return err }, "PutItem"},
		{"AtomicDelete", func() error { _, err := s.AtomicDelete(ctx, "one/new", pair); return err }, "DeleteItem"},
		{"Delete", func() error { return s.Delete(ctx, "one/k") }, "DeleteItem"},
	} {
		require.NoError(t, c.call(), c.name)
		assert.Equal(t, []string{c.want}, p.ops(), c.name)
	}
}

func TestListReadsOnlyItsTree(t *testing.T) {
	const foreign, others, own = 13_400, 13_400 / 25 * 6, 20 // others: not in the same partition
	ctx := testserver.Within(t, 2*time.Minute)
	s, p := tapped(t, Options{Table: "trees", NoStream: true})
	c := raw(t, testserver.DynamoDB(t))
	for i := 0; i < foreign; i += deletesAtOnce {
		var batch []types.WriteRequest
		for j := range deletesAtOnce {
			// In the same partition, in one of its own, and around the tree in order.
			key := fmt.Sprintf([]string{"app/a%d", "app%d/tree/k", "app/tree%d", "app/z/%d"}[j%4], i+j)
			it := item{key: key, value: make([]byte, 100), revision: 1}
			batch = append(batch, types.WriteRequest{PutRequest: &types.PutRequest{Item: it.encode()}})
		}
		_, err := c.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"trees": batch}})
		require.NoError(t, err)
	}
	for i := range own {
		require.NoError(t, s.Put(ctx, fmt.Sprintf("app/tree/%d", i), []byte("v"), nil))
	}
	p.took()
	pairs, err := s.List(ctx, "app/tree", nil)
	require.NoError(t, err)
	assert.Len(t, pairs, own)
	requests := p.took()
	require.Len(t, requests, 1)
	var answer struct{ Count, ScannedCount int }
	require.NoError(t, json.Unmarshal(requests[0].answer, &answer))
	assert.Equal(t, own, answer.ScannedCount, "items that the server read")

	all, err := s.List(ctx, "", nil) // what List of a tree is spared
	require.NoError(t, err)
	assert.Equal(t, foreign+own, len(all))
	require.NoError(t, s.DeleteTree(ctx, "app/tree"))
	all, err = s.List(ctx, "", &valkeyrie.ReadOptions{KeysOnly: true})
	require.NoError(t, err)
	assert.Equal(t, foreign, len(all), "DeleteTree takes nothing else")
	require.NoError(t, s.DeleteTree(ctx, "app"))
	all, err = s.List(ctx, "", nil)
	require.NoError(t, err)
	assert.Equal(t, others, len(all), "DeleteTree takes all of %d", foreign-others)
}

// count answers the first n requests of an operation.
func count(op string, n int32, answer func(r exchange) *http.Response) func(r exchange) *http.Response {
	var done atomic.Int32
	return func(r exchange) *http.Response {
		if r.op != op || done.Add(1) > n {
			return nil
		}
		return answer(r)
	}
}

func TestThrottledRequestsAreSentAgain(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s, p := tapped(t, Options{})
	throttle := func(exchange) *http.Response {
		return refusal(http.StatusBadRequest, "ProvisionedThroughputExceededException")
	}
	p.answering(count("PutItem", 3, throttle))
	require.NoError(t, s.Put(ctx, "throttled", []byte("v"), nil))
	assert.Equal(t, []string{"PutItem", "PutItem", "PutItem", "PutItem"}, p.ops())
	p.answering(count("GetItem", 3, throttle))
	_, err := s.Get(ctx, "throttled", nil)
	require.NoError(t, err)

	p.answering(count("PutItem", 1000, throttle))
	short := testserver.Within(t, 300*time.Millisecond)
	begun := time.Now()
	err = s.Put(short, "throttled", []byte("w"), nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable, "what was throttled was not applied")
	require.NotErrorIs(t, err, valkeyrie.ErrAmbiguous)
	assert.Less(t, time.Since(begun), 2*time.Second, "retries end with the context")
}

func TestAWriteWithoutAnAnswerIsNotRepeated(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s, p := tapped(t, Options{})
	require.NoError(t, s.Put(ctx, "lost/k", nil, nil))
	pair, err := s.Get(ctx, "lost/k", nil)
	require.NoError(t, err)
	p.took()
	lose := func(exchange) *http.Response { return refusal(http.StatusInternalServerError, "InternalServerError") }
	for op, call := range map[string]func() error{
		"PutItem":        func() error { return s.Put(ctx, "lost/k", nil, nil) },
		"DeleteItem":     func() error { _, err := s.AtomicDelete(ctx, "lost/k", pair); return err },
		"BatchWriteItem": func() error { return s.DeleteTree(ctx, "lost") },
	} {
		p.answering(count(op, 1, lose))
		require.ErrorIs(t, call(), valkeyrie.ErrAmbiguous, op)
		n := 0
		for _, sent := range p.ops() {
			if sent == op {
				n++
			}
		}
		assert.Equal(t, 1, n, op)
	}
	p.answering(count("GetItem", 2, lose))
	got, err := s.Get(ctx, "lost/k", nil)
	require.NoError(t, err, "a read is repeated")
	assert.Equal(t, pair, got)
	p.answering(count("GetItem", 1000, lose))
	_, err = s.Get(ctx, "lost/k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
}

// TestWhatABatchLeavesIsSentAgain has the server leave what it was sent, and then
// all but one of it.
func TestWhatABatchLeavesIsSentAgain(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s, p := tapped(t, Options{})
	for i := range 60 {
		require.NoError(t, s.Put(ctx, fmt.Sprintf("batches/%d", i), nil, nil))
	}
	p.answering(count("BatchWriteItem", 4, func(r exchange) *http.Response {
		var in struct{ RequestItems map[string]any }
		if err := json.Unmarshal(r.body, &in); err != nil {
			panic(err)
		}
		return respond(http.StatusOK, map[string]any{"UnprocessedItems": in.RequestItems})
	}))
	require.NoError(t, s.DeleteTree(ctx, "batches"))
	_, err := s.List(ctx, "batches", nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	batches := 0
	for _, op := range p.ops() {
		if op == "BatchWriteItem" {
			batches++
		}
	}
	assert.Equal(t, 3+4, batches, "batches of 25, and those that were left")
}

// TestATTLCountsFromWhenTheWriteArrived delays a write for longer than the slack.
func TestATTLCountsFromWhenTheWriteArrived(t *testing.T) {
	const ttl, late = time.Second, 800 * time.Millisecond
	ctx := testserver.Within(t, time.Minute)
	s, p := tapped(t, Options{})
	var arrived time.Time
	p.answering(count("PutItem", 1, func(exchange) *http.Response {
		time.Sleep(late) // the network is slow
		arrived = time.Now()
		return nil
	}))
	require.NoError(t, s.Put(ctx, "late", nil, &valkeyrie.WriteOptions{TTL: ttl}))
	for time.Since(arrived) < ttl {
		begun := time.Now()
		there, err := s.Exists(ctx, "late", nil)
		require.NoError(t, err)
		if time.Since(arrived) < ttl {
			require.True(t, there, "gone %v after it arrived", begun.Sub(arrived))
		}
	}
	require.Eventually(t, func() bool {
		there, err := s.Exists(ctx, "late", nil)
		return err == nil && !there
	}, 5*time.Second, 10*time.Millisecond)
}
