package testutils

import (
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var lockChecks = []check{
	{"one holder at a time", lockExcludes},
	{"two clients with the same value exclude each other", lockSameValueExcludes},
	{"two goroutines with one Locker exclude each other", lockOneLockerExcludes},
	{"locks of different keys do not meet", lockKeysAreApart},
	{"waiters get it in the order in which they asked", lockIsFair},
	{"TryLock of a held lock is ErrLockHeld at once", lockTryHeld},
	{"Get returns the value while it is held and the key is absent after Unlock", lockValueVisible},
	{"the default options hold an empty value", lockDefaults},
	{"its key is an ordinary key and nothing else shows", lockShowsOneKey},
	{"a waiter takes over promptly after Unlock", lockHandOver},
	{"a wait ends with its deadline and leaves nothing behind", lockWaitDeadline},
	{"a cancelled wait ends at once and leaves nothing behind", lockWaitCancelled},
	{"a wait that ends early does not end the one behind it", lockWaitInTheMiddle},
	{"a hold outlives the context of Lock", lockOutlivesContext},
	{"a hold is renewed for as long as it is wanted", lockIsRenewed},
	{"Unlock closes lost, and the Locker can lock again", lockAgainAfterUnlock},
	{"Unlock of a lock that is not held is ErrLockNotHeld", lockUnlockNotHeld},
	{"Unlock by another Locker releases nobody", lockUnlockByAnother},
	{"Unlock ends the hold here even if the context is done", lockUnlockWithoutContext},
	{"tokens grow with every acquisition, by anyone", lockTokenGrows},
	{"tokens grow under contention", lockTokenGrowsUnderContention},
	{"the token of a lock that is not held is 0", lockTokenZero},
	{"options that cannot be meant are refused", lockInvalidOptions},
	{"an invalid key is refused", lockInvalidKey},
	{"a prefix applies to locks", lockPrefix},
	{"a deletion of the key ends the hold", lockLostByDelete},
	{"a DeleteTree above the key ends the hold", lockLostByDeleteTree},
	{"a put of the key ends the hold and counts as held by somebody else", lockLostByPut},
	{"data that a put left there counts as held by somebody else", lockOverData},
	{"data with a TTL holds the lock until it has expired", lockOverExpiringData},
	{"after a take-over the old Locker releases nobody", lockTakenOver},
	{"after a loss the same Locker can lock again", lockAgainAfterLoss},
	{"a waiter takes over after a deletion of the key", lockHandOverAfterDelete},
	{"closing the store ends the hold and frees the lock", lockCloseWhileHeld},
	{"closing the store ends a wait with ErrClosed", lockCloseWhileWaiting},
}

func lockExcludes(e *env) {
	var g guarded
	e.contend(e.key("lock"), 8, 8, func(valkeyrie.Locker) error { return g.enter() })
	require.EqualValues(e, 64, g.count.Load(), "counts were lost")
	e.mustBeFree(e.kv, e.key("lock"))
}

func lockSameValueExcludes(e *env) {
	key, opts := e.key("lock"), &valkeyrie.LockOptions{Value: []byte("same")}
	first := e.locker(e.kv, key, opts)
	lost := e.mustLock(first)
	for _, kv := range []kvstore{e.kv, e.open(nil)} {
		_, err := e.locker(kv, key, opts).TryLock(e.ctx)
		e.refused(err, "TryLock", key, valkeyrie.ErrLockHeld)
		e.refused(e.locker(kv, key, opts).Unlock(e.ctx), "Unlock", key, valkeyrie.ErrLockNotHeld)
	}
	e.stillHeld(lost, "another Locker with the same value tried it")
	require.NoError(e, first.Unlock(e.ctx))
}

func lockOneLockerExcludes(e *env) {
	key := e.key("lock")
	l := e.locker(e.kv, key, nil)
	var g guarded
	e.contendWith([]valkeyrie.Locker{l, l, l, l}, 8, func(valkeyrie.Locker) error { return g.enter() })
	require.EqualValues(e, 32, g.count.Load(), "counts were lost")

	lost := e.mustLock(l)
	_, err := l.TryLock(e.ctx)
	e.refused(err, "TryLock", key, valkeyrie.ErrLockHeld)
	again := e.lockLater(e.ctx, l)
	e.stillHeld(lost, "the same Locker locked again")
	require.NoError(e, l.Unlock(e.ctx))
	a := receive(e, again, "the second Lock of the same Locker")
	require.NoError(e, a.err)
	e.stillHeld(a.lost, "the second hold of the same Locker")
	require.NoError(e, l.Unlock(e.ctx))
}

func lockKeysAreApart(e *env) {
	names := []string{"lock", "lock2", "loc", "other/lock", "lock-"}
	if !e.h.NoChildrenOfValues {
		names = append(names, "lock/lock")
	}
	var held []valkeyrie.Locker
	for _, name := range names {
		l := e.locker(e.kv, e.key(name), nil)
		_, err := l.TryLock(e.ctx)
		require.NoError(e, err, name)
		held = append(held, l)
	}
	for _, l := range held {
		require.NoError(e, l.Unlock(e.ctx))
	}
}

func lockIsFair(e *env) {
	if !e.h.FIFO {
		e.Skip("this backend does not declare that its locks are fair")
	}
	key := e.key("lock")
	stores := []kvstore{e.kv, e.open(nil)}
	first := e.locker(e.kv, key, nil)
	e.mustLock(first)
	var waits []<-chan acquired
	lockers := make([]valkeyrie.Locker, 6)
	for i := range lockers {
		lockers[i] = e.locker(stores[i%2], key, nil)
		waits = append(waits, e.lockLater(e.ctx, lockers[i]))
	}
	require.NoError(e, first.Unlock(e.ctx))
	for i := range waits {
		e.eventually(patience, "somebody gets the lock", func() bool {
			return slices.ContainsFunc(waits[i:], func(wait <-chan acquired) bool { return len(wait) > 0 })
		})
		for j, wait := range waits[i:] {
			require.Equal(e, j == 0, len(wait) == 1, "it is the turn of waiter %d; waiter %d has the lock: %v", i, i+j, len(wait) == 1)
		}
		require.NoError(e, receive(e, waits[i], "the waiter's turn").err)
		require.NoError(e, lockers[i].Unlock(e.ctx))
	}
}

func lockTryHeld(e *env) {
	key := e.key("lock")
	l := e.locker(e.kv, key, nil)
	lost, err := l.TryLock(e.ctx)
	require.NoError(e, err)
	require.NotNil(e, lost)
	before := time.Now()
	e.mustBeHeld(e.kv, key)
	e.mustBeHeld(e.open(nil), key)
	require.Less(e, time.Since(before), soon, "TryLock does not wait")
	e.stillHeld(lost, "others tried it")
	require.NoError(e, l.Unlock(e.ctx))
	e.mustBeFree(e.open(nil), key)
}

func lockValueVisible(e *env) {
	key, other := e.key("lock"), e.open(nil)
	value := []byte("holder \x00\xff")
	l := e.locker(e.kv, key, &valkeyrie.LockOptions{Value: value})
	e.absent(e.kv, key)
	copy(value, "reused") // what a caller passed in may be reused after the call
	for range 3 {
		e.mustLock(l)
		p, err := other.Get(e.ctx, key, nil)
		require.NoError(e, err)
		require.Equal(e, "holder \x00\xff", string(p.Value))
		require.Equal(e, key, p.Key)
		require.True(e, p.LastIndex != 0)
		require.NoError(e, l.Unlock(e.ctx))
		e.absent(other, key)
		e.absent(e.kv, key)
	}
}

func lockDefaults(e *env) {
	for i, opts := range []*valkeyrie.LockOptions{nil, {}} {
		key := e.key(fmt.Sprintf("lock%d", i))
		l := e.locker(e.kv, key, opts)
		e.mustLock(l)
		p := e.get(key)
		require.True(e, p.Value != nil && len(p.Value) == 0, "the default value is empty and not nil, got %s", show(p))
		require.NoError(e, l.Unlock(e.ctx))
	}
}

func lockShowsOneKey(e *env) {
	dir := e.key("d")
	key := dir + "/lock"
	l := e.locker(e.kv, key, &valkeyrie.LockOptions{Value: []byte("holder")})
	e.mustLock(l)
	waiting := e.locker(e.open(nil), key, nil)
	wait := e.lockLater(e.ctx, waiting)
	require.Equal(e, []string{key}, e.list(e.kv, dir), "of a lock that is held and waited for only its key shows")
	require.Empty(e, e.list(e.kv, key), "nothing shows below a lock's key")
	got := receive(e, e.watchTree(dir), "the state at the start")
	require.Equal(e, []string{key}, keysOf(got))
	require.Equal(e, "holder", string(got[0].Value))
	require.NoError(e, l.Unlock(e.ctx))
	require.NoError(e, receive(e, wait, "the waiter's turn").err)
	require.NoError(e, waiting.Unlock(e.ctx))
	_, err := e.kv.List(e.ctx, dir, nil)
	e.refused(err, "List", dir, valkeyrie.ErrKeyNotFound)
}
