package testutils

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// locker makes a Locker; a nil opts means the defaults.
func (e *env) locker(kv kvstore, key string, opts *valkeyrie.LockOptions) valkeyrie.Locker {
	e.Helper()
	l, err := kv.NewLock(e.ctx, key, opts)
	require.NoError(e, err)
	require.NotNil(e, l)
	return l
}

// mustLock takes a lock that is free or soon will be.
func (e *env) mustLock(l valkeyrie.Locker) (lost <-chan struct{}) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	lost, err := l.Lock(ctx)
	require.NoError(e, err)
	require.NotNil(e, lost)
	require.True(e, l.Token() != 0, "the token of a held lock is not 0")
	return lost
}

// mustBeHeld checks that nobody else gets the lock.
func (e *env) mustBeHeld(kv kvstore, key string) {
	e.Helper()
	lost, err := e.locker(kv, key, nil).TryLock(e.ctx)
	e.refused(err, "TryLock", key, valkeyrie.ErrLockHeld)
	require.Nil(e, lost)
}

// mustBeFree checks that the lock can be had at once, and that it leaves nothing.
func (e *env) mustBeFree(kv kvstore, key string) {
	e.Helper()
	l := e.locker(kv, key, nil)
	_, err := l.TryLock(e.ctx)
	require.NoError(e, err, "the lock must be free")
	require.NoError(e, l.Unlock(e.ctx))
	require.Empty(e, e.list(kv, key), "keys left behind below the lock")
	e.absent(kv, key)
}

// becomesFree is mustBeFree for a lock that was lost: the one who lost it may
// still be clearing up.
func (e *env) becomesFree(kv kvstore, key string) {
	e.Helper()
	l := e.locker(kv, key, nil)
	e.eventually(soon, "the lock is free", func() bool {
		_, err := l.TryLock(e.ctx)
		if err != nil {
			require.ErrorIs(e, err, valkeyrie.ErrLockHeld)
		}
		return err == nil
	})
	require.NoError(e, l.Unlock(e.ctx))
	e.mustBeFree(kv, key)
}

// stillHeld fails when a hold has ended.
func (e *env) stillHeld(lost <-chan struct{}, what string) {
	e.Helper()
	select {
	case <-lost:
		require.FailNow(e, "the hold was lost: "+what)
	default:
	}
}

// acquired is the outcome of a Lock in another goroutine.
type acquired struct {
	lost <-chan struct{}
	err  error
	at   time.Time
}

// lockLater calls Lock in a goroutine and lets it get in line, which nothing
// shows but time.
func (e *env) lockLater(ctx context.Context, l valkeyrie.Locker) <-chan acquired {
	e.Helper()
	ch := make(chan acquired, 1)
	go func() {
		lost, err := l.Lock(ctx)
		ch <- acquired{lost, err, time.Now()}
	}()
	select {
	case a := <-ch:
		require.FailNow(e, "Lock of a held lock did not wait", "%v", a.err)
	case <-time.After(pause):
	}
	return ch
}

// contend has many goroutines with a Locker each, over several stores, take the
// lock some times; inside calls f, which must never run twice at a time.
func (e *env) contend(key string, goroutines, times int, f func(l valkeyrie.Locker) error) {
	e.Helper()
	stores := []kvstore{e.kv, e.open(nil), e.open(nil)}
	lockers := make([]valkeyrie.Locker, goroutines)
	for i := range lockers {
		lockers[i] = e.locker(stores[i%len(stores)], key, &valkeyrie.LockOptions{Value: []byte("same")})
	}
	e.contendWith(lockers, times, f)
}

func (e *env) contendWith(lockers []valkeyrie.Locker, times int, f func(l valkeyrie.Locker) error) {
	e.Helper()
	e.start(len(lockers), func(i int) error {
		for range times {
			if _, err := lockers[i].Lock(e.ctx); err != nil {
				return err
			}
			if err := f(lockers[i]); err != nil {
				return err
			}
			if err := lockers[i].Unlock(e.ctx); err != nil {
				return err
			}
		}
		return nil
	})()
}

// guarded is what the lock guards in these checks: a counter that loses counts,
// and notices, when two are inside. The atomics are there so that the race
// detector, which knows nothing of a lock on a server, leaves it alone.
type guarded struct{ inside, count atomic.Int64 }

func (g *guarded) enter() error {
	if n := g.inside.Add(1); n != 1 {
		return fmt.Errorf("%d holders at a time", n)
	}
	n := g.count.Load()
	time.Sleep(time.Millisecond)
	g.count.Store(n + 1)
	g.inside.Add(-1)
	return nil
}
