package testutils

import (
	"errors"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// The holds of these checks have the default TTL of 20 s: the next renewal, and
// with it the last chance to notice, is more than "soon" away, so that only
// what the contract asks for, seeing the change of the key, can pass.

// mustBeLost checks that a hold has ended for its holder in every respect.
func (e *env) mustBeLost(l valkeyrie.Locker, lost <-chan struct{}, key string) {
	e.Helper()
	closes(e, lost, soon, "lost")
	require.Zero(e, l.Token(), "the token of a lost hold is 0")
	e.refused(l.Unlock(e.ctx), "Unlock", key, valkeyrie.ErrLockNotHeld)
}

func lockLostByDelete(e *env) {
	key := e.key("lock")
	for _, kv := range []kvstore{e.kv, e.open(nil)} {
		l := e.locker(e.kv, key, nil)
		lost := e.mustLock(l)
		require.NoError(e, kv.Delete(e.ctx, key))
		e.mustBeLost(l, lost, key)
		e.becomesFree(e.kv, key)
	}
}

func lockLostByDeleteTree(e *env) {
	key := e.key("d/lock")
	l := e.locker(e.kv, key, nil)
	lost := e.mustLock(l)
	require.NoError(e, e.open(nil).DeleteTree(e.ctx, e.key("d")))
	e.mustBeLost(l, lost, key)
	e.becomesFree(e.kv, key)
}

func lockLostByPut(e *env) {
	key, other := e.key("lock"), e.open(nil)
	for _, value := range []string{"data", "holder"} { // also the very value of the hold
		l := e.locker(e.kv, key, &valkeyrie.LockOptions{Value: []byte("holder")})
		lost := e.mustLock(l)
		require.NoError(e, other.Put(e.ctx, key, []byte(value), nil))
		want := e.get(key)
		e.mustBeLost(l, lost, key)
		requireSamePair(e, want, e.get(key))
		e.mustBeHeld(e.kv, key)
		e.mustBeHeld(other, key)
		_, err := l.TryLock(e.ctx)
		e.refused(err, "TryLock", key, valkeyrie.ErrLockHeld)
		requireSamePair(e, want, e.get(key))
		require.NoError(e, other.Delete(e.ctx, key))
		e.becomesFree(e.kv, key)
	}
}

func lockOverData(e *env) {
	key, other := e.key("lock"), e.open(nil)
	e.put(key, "data")
	want := e.get(key)
	e.mustBeHeld(e.kv, key)
	e.mustBeHeld(other, key)
	l := e.locker(other, key, &valkeyrie.LockOptions{Value: []byte("holder")})
	wait := e.lockLater(e.ctx, l)
	requireSamePair(e, want, e.get(key))
	e.put(key, "other data")
	quiet(e, wait, "the lock was taken over data that was changed")
	require.NoError(e, e.kv.Delete(e.ctx, key))
	a := receive(e, wait, "the lock after the data was deleted")
	require.NoError(e, a.err)
	require.Equal(e, "holder", string(e.get(key).Value))
	require.NoError(e, l.Unlock(e.ctx))
	e.mustBeFree(e.kv, key)
}

func lockOverExpiringData(e *env) {
	key, ttl := e.key("lock"), time.Second
	before := time.Now()
	require.NoError(e, e.kv.Put(e.ctx, key, []byte("data"), &valkeyrie.WriteOptions{TTL: ttl}))
	after := time.Now()
	l := e.locker(e.open(nil), key, nil)
	e.mustLock(l)
	require.GreaterOrEqual(e, time.Since(before), ttl, "the lock was taken before the data expired")
	require.Less(e, time.Since(after), ttl+time.Second+soon)
	require.NoError(e, l.Unlock(e.ctx))
}

func lockTakenOver(e *env) {
	key, other := e.key("lock"), e.open(nil)
	old := e.locker(e.kv, key, &valkeyrie.LockOptions{Value: []byte("same")})
	next := e.locker(other, key, &valkeyrie.LockOptions{Value: []byte("same")})
	lost := e.mustLock(old)
	oldToken := old.Token()
	require.NoError(e, other.Delete(e.ctx, key))
	held := e.mustLock(next)
	require.Greater(e, next.Token(), oldToken)
	e.mustBeLost(old, lost, key)
	e.mustBeHeld(e.kv, key)
	e.stillHeld(held, "the Locker that lost the lock called Unlock")
	require.Equal(e, "same", string(e.get(key).Value))
	require.NoError(e, next.Unlock(e.ctx))
	e.mustBeFree(e.kv, key)
}

func lockAgainAfterLoss(e *env) {
	key := e.key("lock")
	l := e.locker(e.kv, key, &valkeyrie.LockOptions{Value: []byte("holder")})
	for range 3 {
		lost := e.mustLock(l)
		token := l.Token()
		require.NoError(e, e.kv.Delete(e.ctx, key))
		closes(e, lost, soon, "lost after a deletion")
		lost = e.mustLock(l) // without an Unlock in between
		require.Greater(e, l.Token(), token)
		require.Equal(e, "holder", string(e.get(key).Value))
		e.stillHeld(lost, "a new hold has a channel of its own")
		require.NoError(e, l.Unlock(e.ctx))
		closes(e, lost, soon, "lost after Unlock")
	}
	e.mustBeFree(e.kv, key)
}

func lockHandOverAfterDelete(e *env) {
	key, other := e.key("lock"), e.open(nil)
	old, waiting := e.locker(e.kv, key, nil), e.locker(other, key, nil)
	lost := e.mustLock(old)
	wait := e.lockLater(e.ctx, waiting)
	require.NoError(e, other.Delete(e.ctx, key))
	closes(e, lost, soon, "lost after a deletion")
	a := receive(e, wait, "the waiter's turn after a deletion of the key")
	require.NoError(e, a.err)
	require.True(e, waiting.Token() != 0, "the token of a held lock is not 0")
	e.refused(old.Unlock(e.ctx), "Unlock", key, valkeyrie.ErrLockNotHeld)
	e.stillHeld(a.lost, "the Locker that lost the lock called Unlock")
	e.mustBeHeld(e.kv, key)
	require.NoError(e, waiting.Unlock(e.ctx))
	e.mustBeFree(e.kv, key)
}

// lockCloseWhileHeld uses the default TTL, so that only Close can have freed it.
func lockCloseWhileHeld(e *env) {
	key, other := e.key("lock"), e.open(nil)
	l := e.locker(other, key, nil)
	lost := e.mustLock(l)
	wait := e.lockLater(e.ctx, e.locker(e.kv, key, nil))
	require.NoError(e, other.Close())
	closes(e, lost, soon, "lost after Close")
	require.Zero(e, l.Token())
	a := receive(e, wait, "a waiter's turn after Close")
	require.NoError(e, a.err)
	err := l.Unlock(e.ctx)
	require.True(e, errors.Is(err, valkeyrie.ErrClosed) || errors.Is(err, valkeyrie.ErrLockNotHeld), "Unlock after Close: %v", err)
	e.stillHeld(a.lost, "the Locker of a closed store called Unlock")
}

func lockCloseWhileWaiting(e *env) {
	key, other := e.key("lock"), e.open(nil)
	l := e.locker(e.kv, key, nil)
	e.mustLock(l)
	waiting := e.locker(other, key, nil)
	wait := e.lockLater(e.ctx, waiting)
	before := time.Now()
	require.NoError(e, other.Close())
	e.refused(receive(e, wait, "the end of the wait").err, "Lock", key, valkeyrie.ErrClosed)
	require.Less(e, time.Since(before), soon)
	_, err := waiting.TryLock(e.ctx)
	e.refused(err, "TryLock", key, valkeyrie.ErrClosed)
	_, err = waiting.Lock(e.ctx)
	e.refused(err, "Lock", key, valkeyrie.ErrClosed)
	require.NoError(e, l.Unlock(e.ctx))
	e.mustBeFree(e.kv, key)
}
