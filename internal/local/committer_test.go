package local

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

func TestOneTransactionForAllThatWait(t *testing.T) {
	e := newEnv(t)
	release := e.f.block()
	defer release()
	const n = 50
	errs := make(chan error, n+1)
	write := func(w store.Write) {
		_, err := e.Write(e.ctx, w)
		errs <- err
	}
	go write(store.Write{Key: "first"})
	<-e.f.arrived
	before := e.f.count()
	for i := range n {
		go write(store.Write{Key: fmt.Sprint("k", i%10), Create: true}) // one in five succeeds
	}
	e.eventually("all wait", func() bool { return e.db.waiting() == n })
	release()
	failed := 0
	for range n + 1 {
		if err := <-errs; err != nil {
			require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
			failed++
		}
	}
	require.Equal(t, n-10, failed, "those whose condition does not hold fail alone")
	require.Equal(t, before+1, e.f.count())
}

// waiting returns how many requests are in the queue.
func (db *DB) waiting() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return len(db.queue)
}

func TestConditionThatFailsCommitsNothing(t *testing.T) {
	e := newEnv(t)
	e.put("k", "", 0)
	e.f.breakNext(false) // would show in a commit
	_, err := e.Write(e.ctx, store.Write{Key: "k", Create: true})
	require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
}

// end is how a call is made to return early, and the error that tells so.
type end struct {
	name  string
	now   func(e *env, cancel context.CancelFunc)
	cause error
}

var ends = []end{
	{"the context ends", func(_ *env, cancel context.CancelFunc) { cancel() }, context.Canceled},
	{"the driver is closed", func(e *env, _ context.CancelFunc) {
		e.closed.Store(true)
		close(e.done) // as Close does, which would wait for the commit
	}, valkeyrie.ErrClosed},
}

func TestWritesThatAreCutOff(t *testing.T) {
	for _, how := range ends {
		t.Run(how.name, func(t *testing.T) {
			e := newEnv(t)
			release := e.f.block()
			defer release()
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			start := func(key string) chan error {
				out := make(chan error, 1)
				go func() {
					_, err := e.Write(ctx, store.Write{Key: key})
					out <- err
				}()
				return out
			}
			first := start("taken")
			<-e.f.arrived
			second := start("waiting")
			e.eventually("the second waits", func() bool { return e.db.waiting() == 1 })
			how.now(e, cancel)

			err := <-first
			require.ErrorIs(t, err, how.cause)
			require.ErrorIs(t, err, valkeyrie.ErrAmbiguous, "it is being committed")
			err = <-second
			require.ErrorIs(t, err, how.cause)
			require.NotErrorIs(t, err, valkeyrie.ErrAmbiguous, "it was withdrawn")

			release()
			other := NewDriver(e.db, "local", func() error { return nil })
			_, err = other.Write(e.ctx, store.Write{Key: "last"})
			require.NoError(t, err)
			found := func(key string) bool {
				_, err := other.Get(e.ctx, key, valkeyrie.ReadOptions{})
				return err == nil
			}
			require.True(t, found("taken"))
			require.False(t, found("waiting"))
			if how.cause == valkeyrie.ErrClosed {
				require.NoError(t, e.db.Close())
			}
		})
	}
}

func TestClosedDriver(t *testing.T) {
	e := newEnv(t)
	other := NewDriver(e.db, "local", func() error { return nil })
	require.NoError(t, other.Close())
	require.NoError(t, other.Close())
	_, err := other.Get(e.ctx, "k", valkeyrie.ReadOptions{})
	require.ErrorIs(t, err, valkeyrie.ErrClosed)
	_, err = other.Write(e.ctx, store.Write{Key: "k"})
	require.ErrorIs(t, err, valkeyrie.ErrClosed)
	require.ErrorIs(t, other.Watch(e.ctx, store.WatchRequest{Key: "k"}, &recorder{}), valkeyrie.ErrClosed)
	for _, err := range other.Walk(e.ctx, "", valkeyrie.ReadOptions{}) {
		require.ErrorIs(t, err, valkeyrie.ErrClosed)
	}
	e.put("k", "", 0) // the other one goes on
}

func TestFailedCommit(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprint("applied: ", applied), func(t *testing.T) {
			e := newEnv(t)
			l, err := e.TryLock(e.ctx, store.LockRequest{Key: "lock", TTL: 100 * time.Millisecond, Owner: "me"})
			require.NoError(t, err)
			watched := make(chan error, 1)
			sink := &recorder{}
			go func() { watched <- e.Watch(e.ctx, store.WatchRequest{Tree: true}, sink) }()
			e.eventually("the watch has begun", func() bool { return sink.synced() })

			cause := e.f.breakNext(applied)
			_, err = e.Write(e.ctx, store.Write{Key: "k", TTL: 200 * time.Millisecond})
			require.ErrorIs(t, err, cause)
			require.ErrorIs(t, err, valkeyrie.ErrAmbiguous)
			require.Equal(t, applied, e.exists("k"))
			require.Error(t, <-watched, "it has to look again")

			for range 10 {
				require.NoError(t, l.Renew(e.ctx), "holds are as they were")
				e.put("other", "", time.Minute)
			}
			e.eventually("expiry works again", func() bool {
				_, found, err := e.f.Storage.Get("k", false)
				require.NoError(t, err)
				return !found
			})
		})
	}
}
