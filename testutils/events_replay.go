package testutils

import (
	"context"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// yielded is what one step of a range over Events yields.
type yielded struct {
	valkeyrie.Event
	err error
}

// String shows an event in messages.
func (y yielded) String() string {
	if y.err != nil {
		return "error: " + y.err.Error()
	}
	return y.Type.String() + " " + show(y.Pair)
}

// eventsOn ranges over Events and hands each event on, unbuffered, so that the
// check is the reader. The channel is closed after the loop ended by itself.
func (e *env) eventsOn(ctx context.Context, kv kvstore, key string, opts *valkeyrie.WatchOptions) <-chan yielded {
	ch := make(chan yielded)
	reader, stop := e.cancellable()
	e.Cleanup(stop)
	go func() {
		defer close(ch)
		for ev, err := range kv.Events(ctx, key, opts) {
			select {
			case ch <- yielded{ev, err}:
			case <-reader.Done():
				return
			}
		}
	}()
	return ch
}

// eventsOf follows one key, eventsOfTree a directory, for as long as the check.
func (e *env) eventsOf(key string) <-chan yielded { return e.eventsOn(e.ctx, e.kv, key, nil) }

func (e *env) eventsOfTree(dir string) <-chan yielded {
	return e.eventsOn(e.ctx, e.kv, dir, &valkeyrie.WatchOptions{Tree: true})
}

// next receives an event of the given type.
func (e *env) next(ch <-chan yielded, want valkeyrie.EventType, what string) *pair {
	e.Helper()
	got := receive(e, ch, what)
	require.NoError(e, got.err, what)
	require.Equal(e, want.String(), got.Type.String(), "%s: got %s", what, got)
	if want == valkeyrie.Synced {
		require.Nil(e, got.Pair, "Synced has no pair")
		return nil
	}
	require.NotNil(e, got.Pair, what)
	if want == valkeyrie.Delete {
		require.True(e, got.Pair.Value == nil, "a Delete has no value, got %s", got)
	}
	return got.Pair
}

// nextPut receives a Put and checks that it is what Get returns.
func (e *env) nextPut(ch <-chan yielded, key, what string) *pair {
	e.Helper()
	got := e.next(ch, valkeyrie.Put, what)
	requireSamePair(e, e.get(key), got)
	return got
}

// replica is the state that the events so far add up to.
type replica struct {
	state  map[string]*pair
	synced int
}

// apply applies an event and checks that it makes sense.
func (r *replica) apply(e *env, y yielded) {
	e.Helper()
	require.NoError(e, y.err)
	if r.state == nil {
		r.state = make(map[string]*pair)
	}
	switch y.Type {
	case valkeyrie.Put:
		old := r.state[y.Pair.Key]
		require.True(e, old == nil || old.LastIndex != y.Pair.LastIndex, "the same Put twice: %s", y)
		r.state[y.Pair.Key] = y.Pair
	case valkeyrie.Delete:
		// A put that was merged with the deletion after it shows as the deletion
		// alone, so the key may be one that no event has named.
		require.Positive(e, r.synced, "Delete before Synced: %s", y)
		require.True(e, y.Pair.LastIndex != 0, "a Delete has the last revision seen: %s", y)
		require.True(e, y.Pair.Value == nil, "a Delete has no value, got %s", y)
		delete(r.state, y.Pair.Key)
	case valkeyrie.Synced:
		r.synced++
		require.Equal(e, 1, r.synced, "Synced comes once")
		require.Nil(e, y.Pair)
	default:
		require.FailNow(e, "unknown event", y.String())
	}
}

// is tells whether the replica holds just these pairs.
func (r *replica) is(want []*pair) bool {
	if r.synced == 0 || len(want) != len(r.state) {
		return false
	}
	for _, p := range want {
		if got := r.state[p.Key]; got == nil || got.LastIndex != p.LastIndex || string(got.Value) != string(p.Value) {
			return false
		}
	}
	return true
}

// eventsReplay opens ranges while a writer is at work, so that changes fall
// between the snapshot and what follows it.
func eventsReplay(e *env) {
	dir, other := e.key("d"), e.open(nil)
	stop := e.hammer(other, treeKeys(dir)...)
	var chans []<-chan yielded
	var replicas []*replica
	for i := range 20 {
		kv := e.kv
		if i%2 == 1 {
			kv = other
		}
		ch, r := e.eventsOn(e.ctx, kv, dir, &valkeyrie.WatchOptions{Tree: true}), &replica{}
		until(e, ch, "Synced", func(y yielded) bool {
			r.apply(e, y)
			return r.synced > 0
		})
		chans, replicas = append(chans, ch), append(replicas, r)
	}
	stop()
	want := e.snapshot(e.kv, dir)
	for i, ch := range chans {
		for !replicas[i].is(want) {
			replicas[i].apply(e, receive(e, ch, "the events that lead to the last state "+show(want)))
		}
	}
	quiet(e, merge(e, chans), "yielded after the last state")
}

func eventsNeverGoBack(e *env) {
	dir, other := e.key("d"), e.open(nil)
	ch := e.eventsOfTree(dir)
	stop := e.hammer(other, treeKeys(dir)...)
	seen, r := growing{}, &replica{}
	end := time.Now().Add(time.Second)
	for i := 0; i < 200 || time.Now().Before(end); i++ {
		y := receive(e, ch, "an event")
		r.apply(e, y)
		if y.Type == valkeyrie.Put {
			seen.check(e, []*pair{y.Pair})
		}
	}
	stop()
}

func eventsSlowReader(e *env) {
	dir, keys := e.key("d"), treeKeys(e.key("d"))
	ch := e.eventsOfTree(dir)
	e.next(ch, valkeyrie.Synced, "Synced")
	wait := e.start(1, func(int) error {
		for i := range 500 {
			if err := e.kv.Put(e.ctx, keys[i%len(keys)], []byte(strconv.Itoa(i)), nil); err != nil {
				return err
			}
		}
		return nil
	})
	seen, r := growing{}, &replica{synced: 1}
	until(e, ch, "the last state of every key", func(y yielded) bool {
		r.apply(e, y)
		seen.check(e, []*pair{y.Pair})
		time.Sleep(2 * time.Millisecond) // the reader is slower than the writer
		for i := 500 - len(keys); i < 500; i++ {
			if seen[keys[i%len(keys)]] != i {
				return false
			}
		}
		return true
	})
	wait()
	require.True(e, r.is(e.snapshot(e.kv, dir)))
	quiet(e, ch, "yielded after the last state")
}

func eventsAbsentReader(e *env) {
	dir := e.key("d")
	ch := e.eventsOfTree(dir)
	e.next(ch, valkeyrie.Synced, "Synced")
	e.flood(e.kv, 5000, treeKeys(dir)...)
	want, events, r := e.snapshot(e.kv, dir), 0, &replica{synced: 1}
	until(e, ch, "the last state", func(y yielded) bool {
		events++
		r.apply(e, y)
		return r.is(want)
	})
	require.LessOrEqual(e, events, stored, "events were kept for a reader who was away instead of merged")
}
