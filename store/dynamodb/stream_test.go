package dynamodb

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

// shards answers for a stream what DynamoDB Local does not do at will. It knows
// no record of the table but those that a test puts in.
type shards struct {
	mu      sync.Mutex
	open    map[string]bool
	parents map[string]string
	records map[string][]string // keys, for who reads the shard from its beginning
	failure string              // code for GetRecords
	once    bool                // the failure is over then
	got     []string            // iterators asked for
}

func (s *shards) answer(r exchange) *http.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in struct{ ShardId, ShardIteratorType, ShardIterator string } //nolint:revive // AWS's name
	if err := json.Unmarshal(r.body, &in); err != nil {
		panic(err)
	}
	switch r.op {
	case "DescribeStream":
		list := []map[string]any{}
		for id, open := range s.open {
			numbers := map[string]string{"StartingSequenceNumber": "1"}
			if !open {
				numbers["EndingSequenceNumber"] = "2"
			}
			shard := map[string]any{"ShardId": id, "SequenceNumberRange": numbers}
			if parent := s.parents[id]; parent != "" {
				shard["ParentShardId"] = parent
			}
			list = append(list, shard)
		}
		return respond(http.StatusOK, map[string]any{"StreamDescription": map[string]any{"StreamStatus": "ENABLED", "Shards": list}})
	case "GetShardIterator":
		s.got = append(s.got, in.ShardId+" "+in.ShardIteratorType)
		return respond(http.StatusOK, map[string]string{"ShardIterator": in.ShardId + " " + in.ShardIteratorType})
	case "GetRecords":
		if code := s.failure; code != "" {
			if s.once {
				s.failure = ""
			}
			return refusal(http.StatusBadRequest, code)
		}
		id, from, _ := strings.Cut(in.ShardIterator, " ")
		records := []map[string]any{}
		if from == "TRIM_HORIZON" {
			for _, key := range s.records[id] {
				records = append(records, map[string]any{"dynamodb": map[string]any{"Keys": primaryKeyJSON(key)}})
			}
		}
		out := map[string]any{"Records": records}
		if s.open[id] {
			out["NextShardIterator"] = id + " LATEST"
		}
		return respond(http.StatusOK, out)
	}
	return nil
}

func primaryKeyJSON(key string) map[string]any {
	return map[string]any{attrPartition: map[string]string{"S": partition(key)}, attrKey: map[string]string{"S": key}}
}

func (s *shards) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// scripted opens a store whose stream is the script's, and watches a key.
func scripted(t *testing.T, script *shards, key string) <-chan *valkeyrie.KVPair {
	t.Helper()
	s, p := tapped(t, Options{})
	p.answering(script.answer)
	states, err := s.Watch(testserver.Within(t, time.Minute), key, nil)
	require.NoError(t, err)
	require.Nil(t, (<-states).Value)
	return states
}

// shows waits for a value.
func shows(t *testing.T, states <-chan *valkeyrie.KVPair, want string) {
	t.Helper()
	select {
	case p := <-states:
		require.Equal(t, want, string(p.Value))
	case <-time.After(20 * time.Second):
		require.FailNow(t, "the change does not show")
	}
}

// TestShardsThatFollowAreRead has a change that only a shard tells of that came
// about when another one was split, and was closed at once.
func TestShardsThatFollowAreRead(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	const key = "stream/split"
	script := &shards{
		open: map[string]bool{"old": false, "first": true}, parents: map[string]string{}, records: map[string][]string{},
	}
	states := scripted(t, script, key)
	other := open(t, nil, nil)
	require.NoError(t, other.Put(ctx, key, []byte("v"), nil))
	script.change(func() { script.open["first"] = false })
	time.Sleep(readPause) // its end may show before those that follow
	script.change(func() {
		script.open["second"], script.parents["second"] = false, "first"
		script.open["third"], script.parents["third"] = true, "second"
		script.records["second"] = []string{"stream/other", key}
	})
	shows(t, states, "v")
	require.NoError(t, other.Delete(ctx, key))
	script.change(func() {
		script.open["third"] = false
		script.open["fourth"], script.parents["fourth"] = true, "third"
		script.records["fourth"] = []string{key}
	})
	shows(t, states, "")
	script.change(func() {
		assert.ElementsMatch(t, []string{"first LATEST", "second TRIM_HORIZON", "third TRIM_HORIZON", "fourth TRIM_HORIZON"}, script.got)
	})
}

func TestAStreamThatWasLostIsNotMissed(t *testing.T) {
	for _, code := range []string{"ExpiredIteratorException", "TrimmedDataAccessException", "ResourceNotFoundException"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			ctx := testserver.Within(t, time.Minute)
			key := "stream/" + code
			script := &shards{open: map[string]bool{"first": true}, once: true}
			states := scripted(t, script, key)
			require.NoError(t, open(t, nil, nil).Put(ctx, key, []byte("v"), nil))
			script.change(func() { script.failure = code })
			shows(t, states, "v")
		})
	}
}

func TestAThrottledStreamIsReadLater(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	const key = "stream/throttled"
	script := &shards{open: map[string]bool{"first": true}, parents: map[string]string{}, records: map[string][]string{}}
	states := scripted(t, script, key)
	script.change(func() { script.failure = "LimitExceededException" })
	require.NoError(t, open(t, nil, nil).Put(ctx, key, []byte("v"), nil))
	time.Sleep(time.Second)
	script.change(func() {
		script.failure = ""
		script.open["first"], script.open["second"], script.parents["second"] = false, true, "first"
		script.records["second"] = []string{key}
	})
	shows(t, states, "v")
	script.change(func() {
		assert.Equal(t, []string{"first LATEST", "second TRIM_HORIZON"}, script.got, "read on where it was")
	})
}

// TestOneReaderForAllWatches counts what idle watches cost, and a change.
func TestOneReaderForAllWatches(t *testing.T) {
	const watches, idle = 50, 2 * time.Second
	ctx := testserver.Within(t, time.Minute)
	s, p := tapped(t, Options{Table: "quiet"})
	var states []<-chan *valkeyrie.KVPair
	for i := range watches {
		ch, err := s.Watch(ctx, fmt.Sprint("quiet/", i), nil)
		require.NoError(t, err)
		<-ch
		states = append(states, ch)
	}
	p.took()
	time.Sleep(idle)
	ops := p.ops()
	for _, op := range ops {
		require.Equal(t, "GetRecords", op)
	}
	assert.NotEmpty(t, ops)
	assert.LessOrEqual(t, len(ops), int(idle/readPause)+2, "polls of one shard")
	require.NoError(t, s.Put(ctx, "quiet/7", []byte("v"), nil))
	shows(t, states[7], "v")
	reads := 0
	for _, op := range p.ops() {
		if op != "GetRecords" && op != "PutItem" {
			require.Equal(t, "GetItem", op)
			reads++
		}
	}
	assert.Equal(t, 1, reads, "for a change of one key that one watch is on")
	require.NoError(t, s.Delete(ctx, "quiet/7"))
}

// TestWithoutAStream is on tables that have none, and on one whose stream is not
// to be used.
func TestWithoutAStream(t *testing.T) {
	creator := open(t, nil, &Options{Table: "streamless", Create: true, NoStream: true})
	require.NoError(t, creator.Put(testserver.Within(t, time.Minute), "k", nil, nil))
	for name, opts := range map[string]Options{
		"none":     {Table: "streamless", PollInterval: 100 * time.Millisecond},
		"not used": {Table: "valkeyrie", Create: true, NoStream: true, PollInterval: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testserver.Within(t, time.Minute)
			a, b := open(t, nil, &opts), open(t, nil, &opts)
			states, err := a.Watch(ctx, "poll/k", nil)
			require.NoError(t, err)
			require.Nil(t, (<-states).Value)
			trees, err := a.WatchTree(ctx, "poll", nil)
			require.NoError(t, err)
			require.Empty(t, <-trees)
			require.NoError(t, b.Put(ctx, "poll/k", []byte("1"), nil))
			shows(t, states, "1")
			require.Len(t, <-trees, 1)
			begun := time.Now()
			require.NoError(t, b.Put(ctx, "poll/k", []byte("2"), &valkeyrie.WriteOptions{TTL: time.Second}))
			shows(t, states, "2")
			shows(t, states, "") // expired
			assert.GreaterOrEqual(t, time.Since(begun), time.Second)
			assert.Less(t, time.Since(begun), 3*time.Second)
			for pairs := range trees {
				if len(pairs) == 0 {
					break
				}
			}

			first, err := a.NewLock(ctx, "poll/lock", nil)
			require.NoError(t, err)
			lost, err := first.Lock(ctx)
			require.NoError(t, err)
			second, err := b.NewLock(ctx, "poll/lock", nil)
			require.NoError(t, err)
			got := make(chan error, 1)
			go func() {
				_, err := second.Lock(ctx)
				got <- err
			}()
			require.NoError(t, first.Unlock(ctx))
			<-lost
			require.NoError(t, <-got)
			token := second.Token()
			require.NoError(t, b.Delete(ctx, "poll/lock"))
			_, err = first.Lock(ctx)
			require.NoError(t, err)
			require.Greater(t, first.Token(), token)
			require.NoError(t, first.Unlock(ctx))
		})
	}
}
