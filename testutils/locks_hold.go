package testutils

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// lockHandOver takes the median of some, so that one slow moment of a busy
// machine does not count.
func lockHandOver(e *env) {
	key, kvs := e.key("lock"), []kvstore{e.kv, e.open(nil)}
	var took []time.Duration
	for i := range 5 {
		holder, waiter := e.locker(kvs[i%2], key, nil), e.locker(kvs[1-i%2], key, nil)
		e.mustLock(holder)
		wait := e.lockLater(e.ctx, waiter)
		before := time.Now()
		require.NoError(e, holder.Unlock(e.ctx))
		a := receive(e, wait, "the waiter's turn")
		require.NoError(e, a.err)
		took = append(took, a.at.Sub(before))
		e.mustBeHeld(e.kv, key)
		require.NoError(e, waiter.Unlock(e.ctx))
	}
	slices.Sort(took)
	require.LessOrEqual(e, took[len(took)/2], e.h.HandOver, "from Unlock to the waiter's hold: %v", took)
}

func lockWaitDeadline(e *env) {
	key := e.key("lock")
	holder := e.locker(e.kv, key, nil)
	lost := e.mustLock(holder)
	for _, kv := range []kvstore{e.kv, e.open(nil)} {
		l := e.locker(kv, key, nil)
		ctx, cancel := context.WithTimeout(e.ctx, 2*pause)
		before := time.Now()
		ch, err := l.Lock(ctx)
		cancel()
		e.refused(err, "Lock", key, context.DeadlineExceeded)
		require.Nil(e, ch)
		require.GreaterOrEqual(e, time.Since(before), 2*pause-10*time.Millisecond, "the wait ended before its deadline")
		require.Less(e, time.Since(before), 2*pause+soon, "the wait outlasted its deadline")
		require.Zero(e, l.Token())
	}
	e.stillHeld(lost, "somebody waited in vain")
	require.NoError(e, holder.Unlock(e.ctx))
	e.mustBeFree(e.kv, key)
	e.mustBeFree(e.open(nil), key)
}

func lockWaitCancelled(e *env) {
	key := e.key("lock")
	holder := e.locker(e.kv, key, nil)
	e.mustLock(holder)
	var waits []<-chan acquired
	ctx, cancel := e.cancellable()
	for _, kv := range []kvstore{e.kv, e.open(nil), e.open(nil)} {
		waits = append(waits, e.lockLater(ctx, e.locker(kv, key, nil)))
	}
	cancel()
	before := time.Now()
	for _, wait := range waits {
		e.refused(receive(e, wait, "the end of a cancelled wait").err, "Lock", key, context.Canceled)
	}
	require.Less(e, time.Since(before), soon)
	require.NoError(e, holder.Unlock(e.ctx))
	e.mustBeFree(e.kv, key)
}

// lockWaitInTheMiddle is for queues in which each waits for the one before.
func lockWaitInTheMiddle(e *env) {
	key := e.key("lock")
	holder, last := e.locker(e.kv, key, nil), e.locker(e.open(nil), key, nil)
	held := e.mustLock(holder)
	ctx, cancel := e.cancellable()
	middle := e.lockLater(ctx, e.locker(e.kv, key, nil))
	wait := e.lockLater(e.ctx, last)
	cancel()
	e.refused(receive(e, middle, "the cancelled wait").err, "Lock", key, context.Canceled)
	quiet(e, wait, "the last waiter got in while the lock is held")
	e.stillHeld(held, "a waiter gave up")
	require.NoError(e, holder.Unlock(e.ctx))
	require.NoError(e, receive(e, wait, "the last waiter's turn").err)
	require.NoError(e, last.Unlock(e.ctx))
	e.mustBeFree(e.kv, key)
}

func lockOutlivesContext(e *env) {
	key := e.key("lock")
	l := e.locker(e.kv, key, &valkeyrie.LockOptions{TTL: e.h.LockTTL})
	for _, lock := range []func(context.Context) (<-chan struct{}, error){l.Lock, l.TryLock} {
		ctx, cancel := e.cancellable()
		lost, err := lock(ctx)
		require.NoError(e, err)
		cancel()
		e.heldFor(lost, key, e.h.LockTTL*3/2)
		require.NoError(e, l.Unlock(e.ctx))
	}
}

// heldFor watches a hold for some time: lost stays open and nobody else gets in.
func (e *env) heldFor(lost <-chan struct{}, key string, d time.Duration) {
	e.Helper()
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		select {
		case <-lost:
			require.FailNow(e, "the hold was lost")
		case <-time.After(d / 20):
		}
		e.mustBeHeld(e.kv, key)
	}
}

func lockIsRenewed(e *env) {
	key := e.key("lock")
	l := e.locker(e.open(nil), key, &valkeyrie.LockOptions{TTL: e.h.LockTTL, Value: []byte("holder")})
	lost := e.mustLock(l)
	token := l.Token()
	e.heldFor(lost, key, 3*e.h.LockTTL)
	require.Equal(e, token, l.Token(), "renewing does not change the token")
	require.Equal(e, "holder", string(e.get(key).Value))
	require.NoError(e, l.Unlock(e.ctx))
	e.mustBeFree(e.kv, key)
}

func lockAgainAfterUnlock(e *env) {
	key := e.key("lock")
	l := e.locker(e.kv, key, nil)
	for range 3 {
		lost := e.mustLock(l)
		e.stillHeld(lost, "right after Lock")
		require.NoError(e, l.Unlock(e.ctx))
		closes(e, lost, soon, "lost after Unlock")
		require.Zero(e, l.Token())
		e.mustBeFree(e.kv, key)
	}
}

func lockUnlockNotHeld(e *env) {
	key := e.key("lock")
	l := e.locker(e.kv, key, nil)
	e.refused(l.Unlock(e.ctx), "Unlock", key, valkeyrie.ErrLockNotHeld)
	e.mustLock(l)
	require.NoError(e, l.Unlock(e.ctx))
	e.refused(l.Unlock(e.ctx), "Unlock", key, valkeyrie.ErrLockNotHeld)

	e.put(key, "data") // of somebody else, which Unlock must leave alone
	e.refused(l.Unlock(e.ctx), "Unlock", key, valkeyrie.ErrLockNotHeld)
	require.Equal(e, "data", string(e.get(key).Value))
}

func lockUnlockByAnother(e *env) {
	key := e.key("lock")
	holder := e.locker(e.kv, key, nil)
	lost := e.mustLock(holder)
	for _, kv := range []kvstore{e.kv, e.open(nil)} {
		e.refused(e.locker(kv, key, nil).Unlock(e.ctx), "Unlock", key, valkeyrie.ErrLockNotHeld)
	}
	e.mustBeHeld(e.kv, key)
	e.stillHeld(lost, "another Locker called Unlock")
	require.NoError(e, holder.Unlock(e.ctx))
}

func lockUnlockWithoutContext(e *env) {
	key := e.key("lock")
	l := e.locker(e.kv, key, &valkeyrie.LockOptions{TTL: e.h.LockTTL})
	lost := e.mustLock(l)
	ctx, cancel := e.cancellable()
	cancel()
	if err := l.Unlock(ctx); err != nil {
		e.refused(err, "Unlock", key, context.Canceled)
	}
	closes(e, lost, soon, "lost after an Unlock whose context was done")
	require.Zero(e, l.Token())
	after := time.Now()
	other := e.locker(e.open(nil), key, nil)
	wait, stop := context.WithTimeout(e.ctx, e.h.LockTTL+e.h.CrashBound+soon)
	defer stop()
	_, err := other.Lock(wait)
	require.NoError(e, err, "after %v the lock must be free", time.Since(after))
	require.NoError(e, other.Unlock(e.ctx))
}

// lockTokenGrows takes the lock by turns from several stores, and ends the holds
// in all the ways that there are.
func lockTokenGrows(e *env) {
	key := e.key("lock")
	stores := []kvstore{e.kv, e.open(nil), e.open(nil)}
	var last uint64
	for i := range 30 {
		kv := stores[i%len(stores)]
		if i%10 == 9 {
			kv = e.open(nil)
		}
		l := e.locker(kv, key, nil)
		lost := e.mustLock(l)
		token := l.Token()
		require.Greater(e, token, last, "token of acquisition %d", i)
		last = token
		switch i % 5 {
		case 0, 1:
			require.NoError(e, l.Unlock(e.ctx))
		case 2:
			require.NoError(e, e.kv.Delete(e.ctx, key))
			closes(e, lost, soon, "lost after a deletion")
		case 3:
			e.put(key, "data")
			closes(e, lost, soon, "lost after a put")
			require.NoError(e, e.kv.Delete(e.ctx, key))
		case 4:
			if kv == e.kv {
				require.NoError(e, l.Unlock(e.ctx))
				break
			}
			require.NoError(e, kv.Close())
			closes(e, lost, soon, "lost after Close")
			stores[i%len(stores)] = e.open(nil)
		}
	}
}

func lockTokenGrowsUnderContention(e *env) {
	var mu sync.Mutex
	var last uint64
	e.contend(e.key("lock"), 6, 6, func(l valkeyrie.Locker) error {
		mu.Lock()
		defer mu.Unlock()
		token := l.Token()
		if token <= last {
			return fmt.Errorf("token %d after %d", token, last)
		}
		last = token
		return nil
	})
}

func lockTokenZero(e *env) {
	key := e.key("lock")
	l := e.locker(e.kv, key, nil)
	require.Zero(e, l.Token(), "before Lock")
	e.mustLock(l)
	other := e.locker(e.kv, key, nil)
	_, err := other.TryLock(e.ctx)
	require.ErrorIs(e, err, valkeyrie.ErrLockHeld)
	require.Zero(e, other.Token(), "after a TryLock in vain")
	require.NoError(e, l.Unlock(e.ctx))
	require.Zero(e, l.Token(), "after Unlock")
}

func lockInvalidOptions(e *env) {
	for _, ttl := range []time.Duration{-1, -time.Second, math.MinInt64} {
		l, err := e.kv.NewLock(e.ctx, e.key("lock"), &valkeyrie.LockOptions{TTL: ttl})
		e.refused(err, "NewLock", e.key("lock"), valkeyrie.ErrInvalidOption)
		require.Nil(e, l)
	}
}

func lockInvalidKey(e *env) {
	for _, key := range []string{"", "/", "a/../b", "a/.valkeyrie", "a\nb", "\xff"} {
		l, err := e.kv.NewLock(e.ctx, key, nil)
		e.refused(err, "NewLock", key, valkeyrie.ErrInvalidKey)
		require.Nil(e, l)
	}
}

func lockPrefix(e *env) {
	inside := e.open(&valkeyrie.Config{Prefix: e.key("app")})
	l := e.locker(inside, "/lock/", &valkeyrie.LockOptions{Value: []byte("holder")})
	e.mustLock(l)
	require.Equal(e, "holder", string(e.get(e.key("app/lock")).Value))
	e.mustBeHeld(e.kv, e.key("app/lock"))
	e.mustBeHeld(inside, "lock")
	require.NoError(e, l.Unlock(e.ctx))
	e.mustBeFree(e.kv, e.key("app/lock"))
}
