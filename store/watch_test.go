package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var errBroken = errors.New("connection lost")

// snapshot reports a snapshot of pairs.
func snapshot(sink Sink, pairs ...*valkeyrie.KVPair) {
	sink.Begin()
	for _, p := range pairs {
		sink.Put(p)
	}
	sink.Synced()
}

// inTurn is a watch whose n-th run is the n-th script; the last one then waits.
func inTurn(scripts ...func(sink Sink) error) func(context.Context, WatchRequest, Sink) error {
	runs := 0
	return func(ctx context.Context, _ WatchRequest, sink Sink) error {
		runs++
		if runs <= len(scripts) {
			if err := scripts[runs-1](sink); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// describe makes events comparable.
func describe(e valkeyrie.Event) string {
	if e.Pair == nil {
		return e.Type.String()
	}
	return fmt.Sprintf("%v %s=%s@%d", e.Type, e.Pair.Key, e.Pair.Value, e.Pair.LastIndex)
}

func TestABrokenStreamIsComparedWithWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &scripted{watch: inTurn(
			func(sink Sink) error {
				snapshot(sink, pair("d/kept", "1", 1), pair("d/changed", "1", 2), pair("d/gone", "1", 3))
				synctest.Wait()
				return errBroken
			},
			func(sink Sink) error { // breaks in the middle of its snapshot: nothing of it says that a key is gone
				sink.Begin()
				sink.Put(pair("d/kept", "1", 1))
				return errBroken
			},
			func(sink Sink) error {
				snapshot(sink, pair("d/kept", "1", 1), pair("d/changed", "2", 5), pair("d/new", "1", 6),
					pair("d/.valkeyrie/queue", "", 7), pair("d//odd", "", 8))
				synctest.Wait()
				sink.Delete("d/never-known")
				sink.Delete("d/new")
				return nil
			},
		)}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var got []string
		for e, err := range s.Events(ctx, "d", &valkeyrie.WatchOptions{Tree: true}) {
			require.NoError(t, err)
			got = append(got, describe(e))
		}
		require.Len(t, got, 8)
		assert.Equal(t, []string{"Put d/kept=1@1", "Put d/changed=1@2", "Put d/gone=1@3", "Synced"}, got[:4])
		assert.ElementsMatch(t, []string{"Put d/changed=2@5", "Put d/new=1@6", "Delete d/gone=@3"}, got[4:7])
		assert.Equal(t, "Delete d/new=@6", got[7])
	})
}

func TestAFirstStateThatCannotBeReadIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &scripted{watch: func(context.Context, WatchRequest, Sink) error { return valkeyrie.ErrNotReachable }}
		s := open(t, d, nil)
		_, err := s.Watch(t.Context(), "a", nil)
		require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
		for _, err := range s.Events(t.Context(), "a", nil) {
			require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
		}

		d.watch = func(context.Context, WatchRequest, Sink) error { return nil }
		_, err = s.WatchTree(t.Context(), "a", nil)
		require.ErrorIs(t, err, errWatchEnded)

		d.watch = func(ctx context.Context, _ WatchRequest, _ Sink) error { // connected, and silent
			<-ctx.Done()
			return ctx.Err()
		}
		began := time.Now()
		_, err = s.Watch(t.Context(), "a", nil)
		require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
		assert.Equal(t, valkeyrie.DefaultConnectionTimeout, time.Since(began))
	})
}

func TestALongSnapshotIsNotTakenForSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &scripted{watch: inTurn(func(sink Sink) error {
			sink.Begin()
			for i := range 10 {
				time.Sleep(valkeyrie.DefaultConnectionTimeout / 2)
				sink.Put(pair(fmt.Sprintf("d/%d", i), "", uint64(i+1)))
			}
			sink.Synced()
			return nil
		})}, nil)
		states, err := s.WatchTree(t.Context(), "d", nil)
		require.NoError(t, err)
		assert.Len(t, <-states, 10)
	})
}

func TestARefusalEndsAWatchForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		runs := 0
		s := open(t, &scripted{watch: func(_ context.Context, _ WatchRequest, sink Sink) error {
			if runs++; runs > 2 {
				return valkeyrie.ErrUnauthorized
			}
			snapshot(sink)
			time.Sleep(time.Second)
			return errBroken
		}}, &valkeyrie.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		states, err := s.Watch(t.Context(), "a", nil)
		require.NoError(t, err)
		time.Sleep(time.Minute) // nobody reads
		synctest.Wait()
		assert.Equal(t, 3, runs)
		assert.True(t, isClosed(states))
		assert.Contains(t, log.String(), `msg="watch ended for good" backend=scripted key=a tree=false error="not authorized"`)

		runs = 0
		var last error
		for _, err := range s.Events(t.Context(), "a", nil) {
			last = err
		}
		assert.ErrorIs(t, last, valkeyrie.ErrUnauthorized)
	})
}

func TestReconnectsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		s := open(t, &scripted{watch: func(_ context.Context, _ WatchRequest, sink Sink) error {
			if runs++; runs == 1 {
				snapshot(sink)
			}
			return errBroken
		}}, nil)
		_, err := s.Watch(t.Context(), "a", nil)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Greater(t, runs, 15)
		assert.Less(t, runs, 40, "a server that is away is not hammered")
	})
}

func TestAStalledReaderCostsNoMoreThanTheKeys(t *testing.T) {
	const keys, writes = 100, 20_000
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &scripted{}, nil)
		for _, keep := range []bool{false, true} {
			w := newStates(s, false, keep)
			snapshot(w)
			w.takeAll()
			revision := uint64(0)
			for i := range writes {
				revision++
				w.Put(pair(fmt.Sprintf("d/%d", i%keys), "v", revision))
				// Keys that come and go leave nothing behind.
				revision++
				w.Put(pair(fmt.Sprintf("d/passing-%d", i), "v", revision))
				w.Delete(fmt.Sprintf("d/passing-%d", i))
			}
			assert.Len(t, w.keys, keys)
			news := 0
			for st := w.news.head; st != nil; st = st.next {
				news++
			}
			assert.LessOrEqual(t, news, keys)
			if keep {
				all := w.takeAll()
				require.Len(t, all, keys)
				assert.IsIncreasing(t, keysOf(all))
			}
		}
	})
}

func TestAKeyThatCameAndWentUnseenIsNothingToTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &scripted{}, nil)
		one, tree := newStates(s, false, false), newStates(s, false, true)
		for _, w := range []*states{one, tree} {
			snapshot(w)
		}
		require.NotNil(t, one.takeOne("d/a"), "the state at the start")
		require.NotNil(t, tree.takeAll())
		for _, w := range []*states{one, tree} {
			w.Put(pair("d/a", "v", 1))
			w.Delete("d/a")
			snapshot(w)
		}
		assert.Nil(t, one.takeOne("d/a"), "absent, as before")
		assert.Nil(t, tree.takeAll(), "empty, as before")

		for _, w := range []*states{one, tree} {
			w.Put(pair("d/a", "v", 2))
		}
		require.NotNil(t, one.takeOne("d/a"))
		require.Len(t, tree.takeAll(), 1)
		for _, w := range []*states{one, tree} {
			w.Delete("d/a")
		}
		assert.Equal(t, &valkeyrie.KVPair{Key: "d/a", LastIndex: 2}, one.takeOne("d/a"))
		assert.Equal(t, []*valkeyrie.KVPair{}, tree.takeAll())
		assert.Nil(t, one.takeOne("d/a"))
		assert.Nil(t, tree.takeAll())
	})
}

func keysOf(pairs []*valkeyrie.KVPair) (keys []string) {
	for _, p := range pairs {
		keys = append(keys, p.Key)
	}
	return keys
}

func TestTheLastStateArrivesAtASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &scripted{watch: inTurn(func(sink Sink) error {
			snapshot(sink)
			for i := range 1000 {
				sink.Put(pair("a", fmt.Sprint(i), uint64(i+1)))
				time.Sleep(time.Millisecond)
			}
			return nil
		})}, nil)
		states, err := s.Watch(t.Context(), "a", nil)
		require.NoError(t, err)
		var got []uint64
		for len(got) == 0 || got[len(got)-1] != 1000 {
			got = append(got, (<-states).LastIndex)
			time.Sleep(100 * time.Millisecond)
		}
		assert.IsIncreasing(t, got)
		assert.Less(t, len(got), 20)
	})
}

func TestAStoreThatClosesEndsItsWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &scripted{}, nil)
		states, err := s.Watch(t.Context(), "a", nil)
		require.NoError(t, err)
		ended := make(chan error, 1)
		go func() {
			var last error
			for _, last = range s.Events(t.Context(), "a", nil) {
			}
			ended <- last
		}()
		synctest.Wait()
		require.NoError(t, s.Close())
		assert.True(t, isClosed(states))
		assert.ErrorIs(t, <-ended, valkeyrie.ErrClosed)
	})
}

// TestSyncedComesAfterWhatExists has a driver begin its second snapshot before
// anybody has taken the first.
func TestSyncedComesAfterWhatExists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &scripted{watch: func(ctx context.Context, _ WatchRequest, sink Sink) error {
			snapshot(sink, pair("k", "1", 1))
			sink.Begin()
			synctest.Wait() // the reader has looked
			sink.Put(pair("k", "1", 1))
			sink.Synced()
			<-ctx.Done()
			return ctx.Err()
		}}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var got []string
		for e, err := range s.Events(ctx, "k", nil) {
			require.NoError(t, err)
			got = append(got, describe(e))
		}
		assert.Equal(t, []string{"Put k=1@1", "Synced"}, got)
	})
}
