package local

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// recorder is a sink that remembers the last states and checks their order.
type recorder struct {
	stall chan struct{} // when not nil, a Put waits for it

	mu     sync.Mutex
	begun  bool
	ready  bool
	state  map[string]uint64
	gone   map[string]uint64 // the last revision that was deleted
	events []string
	wrong  string
}

func (r *recorder) Begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun, r.ready, r.state, r.gone = true, false, map[string]uint64{}, map[string]uint64{}
}

func (r *recorder) Put(p *valkeyrie.KVPair) {
	if r.stall != nil {
		<-r.stall
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.LastIndex < r.state[p.Key] || p.LastIndex <= r.gone[p.Key] {
		r.wrong = fmt.Sprintf("%s went back to %d", p.Key, p.LastIndex)
	}
	r.state[p.Key] = p.LastIndex
	r.events = append(r.events, "put "+p.Key+" "+string(p.Value))
}

func (r *recorder) Delete(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready {
		r.wrong = "Delete before Synced"
	}
	r.gone[key] = max(r.gone[key], r.state[key])
	delete(r.state, key)
	r.events = append(r.events, "delete "+key)
}

func (r *recorder) Synced() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.begun {
		r.wrong = "Synced before Begin"
	}
	r.ready = true
}

func (r *recorder) synced() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}

// states returns a copy of the last states.
func (r *recorder) states() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.state)
}

func (r *recorder) has(event string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e == event {
			return true
		}
	}
	return false
}

// watch runs a watch until the test ends.
func (e *env) watch(r store.WatchRequest, sink store.Sink) (stop func() error) {
	ctx, cancel := context.WithCancel(e.ctx)
	out := make(chan error, 1)
	go func() { out <- e.Driver.Watch(ctx, r, sink) }()
	once := sync.OnceValue(func() error { cancel(); return <-out })
	e.Cleanup(func() { _ = once() }) // the error of the context
	return once
}

func TestWatchHasNoGap(t *testing.T) {
	e := newEnv(t)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("d/%d", rand.IntN(20))
				switch rand.IntN(4) {
				case 0:
					_ = e.Delete(e.ctx, key, 0) // it may be absent
				case 1:
					e.put(key, "", time.Duration(rand.IntN(5)+1)*time.Millisecond)
				default:
					e.put(key, "", 0)
				}
			}
		})
	}
	var sinks []*recorder
	for i := range 60 {
		sink := &recorder{}
		sinks = append(sinks, sink)
		if i%2 == 0 {
			e.watch(store.WatchRequest{Key: "d/", Tree: true}, sink)
		} else {
			e.watch(store.WatchRequest{Key: "d/3"}, sink)
		}
		e.eventually("the watch has begun", sink.synced)
	}
	close(stop)
	writers.Wait()
	e.eventually("what expires has expired", func() bool {
		e.db.expiries.mu.Lock()
		defer e.db.expiries.mu.Unlock()
		return len(e.db.expiries.items) == 0
	})
	want := map[string]uint64{}
	for p, err := range e.Walk(e.ctx, "d/", valkeyrie.ReadOptions{}) {
		require.NoError(t, err)
		want[p.Key] = p.LastIndex
	}
	for i, sink := range sinks {
		expect := want
		if i%2 == 1 {
			expect = map[string]uint64{}
			if r, ok := want["d/3"]; ok {
				expect["d/3"] = r
			}
		}
		e.eventually("the last state arrives", func() bool { return maps.Equal(expect, sink.states()) })
		require.Empty(t, sink.wrong)
	}
}

func TestWatchSeesWhatConcernsIt(t *testing.T) {
	e := newEnv(t)
	e.put("d/x", "old", 0)
	root, dir, key := &recorder{}, &recorder{}, &recorder{}
	e.watch(store.WatchRequest{Tree: true}, root)
	e.watch(store.WatchRequest{Key: "d/", Tree: true}, dir)
	e.watch(store.WatchRequest{Key: "d"}, key)
	for _, r := range []*recorder{root, dir, key} {
		e.eventually("the watch has begun", r.synced)
	}
	e.put("d", "1", 0)
	e.put("da", "2", 0)
	e.put("d/a/b", "3", 0)
	require.NoError(t, e.Delete(e.ctx, "d/x", 0))
	e.put("/d", "4", 0)
	require.NoError(t, e.Delete(e.ctx, "d", 0))
	e.put("d/end", "", 0)
	e.put("d", "end", 0)

	e.eventually("root", func() bool { return root.has("put d end") })
	e.eventually("dir", func() bool { return dir.has("put d/end ") })
	e.eventually("key", func() bool { return key.has("put d end") })
	require.Equal(t, []string{"put d/x old", "put d/a/b 3", "delete d/x", "put d/end "}, dir.events)
	require.Subset(t, []string{"put d 1", "delete d", "put d end"}, key.events)
	require.Contains(t, root.states(), "/d")
	require.Contains(t, root.states(), "da")
	require.NotContains(t, root.states(), "d/x")
}

func TestSlowWatchHoldsOneStatePerKey(t *testing.T) {
	e := newEnv(t)
	e.put("d/0", "", 0)
	sink := &recorder{stall: make(chan struct{})}
	e.watch(store.WatchRequest{Key: "d/", Tree: true}, sink) // stalls in the snapshot
	e.eventually("the watch is registered", func() bool {
		e.db.hub.mu.Lock()
		defer e.db.hub.mu.Unlock()
		return len(e.db.hub.trees) == 1
	})
	const keys = 5
	last := map[string]uint64{}
	for i := range 5000 {
		key := fmt.Sprint("d/", i%keys)
		last[key] = e.put(key, "x", 0)
	}
	e.db.hub.mu.Lock()
	for w := range e.db.hub.trees["d/"] {
		w.mu.Lock()
		require.LessOrEqual(t, len(w.pending), 2*keys+65)
		require.LessOrEqual(t, cap(w.pending), 256)
		w.mu.Unlock()
	}
	e.db.hub.mu.Unlock()
	close(sink.stall)
	e.eventually("the last state arrives", func() bool { return maps.Equal(last, sink.states()) })
	require.Empty(t, sink.wrong)
	require.LessOrEqual(t, len(sink.events), 1+keys)
}

func TestWatchEnds(t *testing.T) {
	e := newEnv(t)
	sink := &recorder{}
	stop := e.watch(store.WatchRequest{Key: "k"}, sink)
	e.eventually("the watch has begun", sink.synced)
	require.ErrorIs(t, stop(), context.Canceled)
	e.db.hub.mu.Lock()
	defer e.db.hub.mu.Unlock()
	require.Empty(t, e.db.hub.keys, "nothing is left behind")
}

func TestWatchKeysOnly(t *testing.T) {
	e := newEnv(t)
	e.put("k", "secret", 0)
	sink := &recorder{}
	e.watch(store.WatchRequest{Key: "k", KeysOnly: true}, sink)
	e.eventually("the watch has begun", sink.synced)
	e.put("k", "other", 0)
	e.eventually("the change arrives", func() bool { return len(sink.states()) == 1 && sink.has("put k ") })
	require.False(t, sink.has("put k secret") || sink.has("put k other"))
}
