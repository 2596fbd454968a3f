package testutils

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var lockFaults = []faultCheck{
	{"locks exclude, and their tokens grow, whatever the network and the server do", true, locksOfFaults},
	{"a hold goes on or is lost when the server restarts, and the lock works after it", true, lockOverRestart},
	{"a waiter outlives a restart of the server", true, waiterOverRestart},
	{"a holder who is cut off has lost the lock before another gets it", false, lockOfCutOffHolder},
	{"a waiter who was cut off gets the lock when the network is back", false, waiterCutOff},
	{"a holder who was stopped has lost the lock, and its token is refused", false, lockOfStoppedHolder},
}

func lockOfCutOffHolder(r *rig) {
	for _, o := range outages {
		r.sub(o.name, func(r *rig) {
			p, key := r.proxy(), r.key("lock")
			s := r.through(p, nil)
			old := r.locker(s, key, &valkeyrie.LockOptions{TTL: r.h.LockTTL, Value: []byte("same")})
			next := r.locker(r.kv, key, &valkeyrie.LockOptions{Value: []byte("same")})
			g := holders{pulse: r.pulse}
			lost := r.mustLock(old)
			require.NoError(r, g.enter(old, lost))
			token := old.Token()
			// Not right after Lock, but at any time between two renewals.
			pauseFor(r.ctx, 0, r.h.LockTTL)
			require.True(r, !isLost(lost) || r.pulse.missed(time.Now().Add(-5*time.Second)) > 0, "lost although the network was whole")
			o.begin(p)
			lostAt := make(chan time.Time, 1)
			go func() {
				<-lost
				lostAt <- time.Now()
			}()
			ctx, cancel := context.WithTimeout(r.ctx, 2*r.h.LockTTL+r.h.CrashBound+soon)
			defer cancel()
			held, err := next.Lock(ctx)
			at := time.Now()
			require.NoError(r, err, "the hold of a client that is cut off must end")
			require.NoError(r, g.enter(next, held))
			before := at.Sub(receive(r.env, lostAt, "lost"))
			require.Greater(r, next.Token(), token)
			r.Logf("lost %v before another got it", before)

			require.NoError(r, restore(p))
			r.refused(old.Unlock(r.ctx), "Unlock", key, valkeyrie.ErrLockNotHeld)
			r.recovers(s)
			r.heldFor(held, key, time.Second)
			require.NoError(r, next.Unlock(r.ctx))
			r.mustLock(old)
			require.Greater(r, old.Token(), g.token)
			require.NoError(r, old.Unlock(r.ctx))
		})
	}
}

func waiterCutOff(r *rig) {
	for _, o := range outages {
		r.sub(o.name, func(r *rig) {
			p, key := r.proxy(), r.key("lock")
			first := r.locker(r.kv, key, nil)
			s := r.through(p, nil)
			r.recovers(s) // one that still has to connect when the outage begins may say so
			second := r.locker(s, key, &valkeyrie.LockOptions{TTL: r.h.LockTTL})
			lost := r.mustLock(first)
			wait := r.lockLater(r.ctx, second)
			o.begin(p)
			// Longer than the waiter's own TTL: its place in a line may be lost.
			quietFor(r, wait, r.h.LockTTL+r.h.CrashBound+time.Second)
			require.NoError(r, restore(p))
			r.stillHeld(lost, "another's network failed")
			token := first.Token()
			require.NoError(r, first.Unlock(r.ctx))
			a := receive(r.env, wait, "the lock")
			require.NoError(r, a.err)
			require.Greater(r, second.Token(), token)
			require.NoError(r, second.Unlock(r.ctx))
			r.becomesFree(r.kv, key)
		})
	}
}

// quietFor fails when Lock returns within the time.
func quietFor(r *rig, wait <-chan acquired, d time.Duration) {
	r.Helper()
	select {
	case a := <-wait:
		require.FailNow(r, "Lock returned although another holds the lock", "%v", a.err)
	case <-time.After(d):
	}
}

// lockOverRestart has holds that are longer than the outage and shorter ones.
func lockOverRestart(r *rig) {
	for round, away := range []time.Duration{0, r.h.LockTTL + time.Second} {
		g := holders{pulse: r.pulse}
		keys := map[string]time.Duration{r.key(fmt.Sprint("long", round)): time.Minute, r.key(fmt.Sprint("short", round)): r.h.LockTTL}
		held := make(map[string]valkeyrie.Locker)
		lost := make(map[string]<-chan struct{})
		tokens := make(map[string]uint64)
		for key, ttl := range keys {
			held[key] = r.locker(r.kv, key, &valkeyrie.LockOptions{TTL: ttl})
			lost[key] = r.mustLock(held[key])
			tokens[key] = held[key].Token()
		}
		require.NoError(r, r.server.Kill())
		if away > 0 {
			begun := time.Now()
			for key, ttl := range keys {
				if ttl < away {
					// That it closes before anyone else can have the lock is shown
					// where the holder is cut off; this process may not get to run.
					closes(r.env, lost[key], r.h.LockTTL+soon, "lost of a hold whose server is away for longer than its TTL")
				}
			}
			pauseFor(r.ctx, away-time.Since(begun), 0)
		}
		require.NoError(r, r.server.Restart())
		r.recovers(r.kv)
		other := r.open(nil)
		for key := range keys {
			l := r.locker(other, key, nil)
			_, err := l.TryLock(r.ctx)
			switch {
			case err == nil: // so the hold is over
				require.True(r, isLost(lost[key]), "two holders of %s", key)
				require.Greater(r, l.Token(), tokens[key])
				require.NoError(r, l.Unlock(r.ctx))
			case !isLost(lost[key]):
				require.ErrorIs(r, err, valkeyrie.ErrLockHeld)
				r.notTwo(lost[key], key)
				require.NoError(r, unlock(r.ctx, held[key]))
			default: // lost here, and not over there yet
				require.ErrorIs(r, err, valkeyrie.ErrLockHeld)
			}
			ctx, cancel := context.WithTimeout(r.ctx, r.h.LockTTL+r.h.CrashBound+soon)
			again, err := held[key].Lock(ctx)
			cancel()
			require.NoError(r, err, "the lock works after the restart")
			require.NoError(r, g.enter(held[key], again))
			require.Greater(r, held[key].Token(), tokens[key])
			require.NoError(r, held[key].Unlock(r.ctx))
			g = holders{pulse: r.pulse}
			r.mustBeFree(r.kv, key)
		}
	}
}

// notTwo tries for a second to take a lock that is held: nobody gets it unless it
// is lost, which may happen at any time after a restart.
func (r *rig) notTwo(lost <-chan struct{}, key string) {
	r.Helper()
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		l := r.locker(r.kv, key, nil)
		if _, err := l.TryLock(r.ctx); err == nil {
			require.True(r, isLost(lost), "two holders of %s", key)
			require.NoError(r, l.Unlock(r.ctx))
			return
		}
	}
}

func waiterOverRestart(r *rig) {
	key, p := r.key("lock"), r.proxy()
	first := r.locker(r.kv, key, &valkeyrie.LockOptions{TTL: time.Minute})
	lost := r.mustLock(first)
	token := first.Token()
	var waiting []valkeyrie.Locker
	var waits []<-chan acquired
	for _, s := range []kvstore{r.open(nil), r.through(p, nil)} {
		r.recovers(s) // see waiterCutOff
		l := r.locker(s, key, nil)
		waiting, waits = append(waiting, l), append(waits, r.lockLater(r.ctx, l))
	}
	for range 2 {
		require.NoError(r, r.server.Kill())
		pauseFor(r.ctx, 0, time.Second)
		require.NoError(r, r.server.Restart())
	}
	r.recovers(r.kv)
	if !isLost(lost) {
		for _, wait := range waits {
			quiet(r.env, wait, "the lock was given to a waiter while it was held")
		}
		require.NoError(r, unlock(r.ctx, first))
	}
	for range waits {
		i, a := receiveFirst(r, waits)
		require.NoError(r, a.err, "a waiter outlives a restart")
		require.Greater(r, waiting[i].Token(), token)
		token = waiting[i].Token()
		require.NoError(r, waiting[i].Unlock(r.ctx))
		waits[i] = nil
	}
	r.becomesFree(r.kv, key)
}

// receiveFirst waits for whoever of several gets the lock.
func receiveFirst(r *rig, waits []<-chan acquired) (int, acquired) {
	r.Helper()
	end := time.Now().Add(2 * patience)
	for time.Now().Before(end) {
		for i, wait := range waits {
			select {
			case a := <-wait:
				return i, a
			default:
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	require.FailNow(r, "no waiter gets the lock after the restart")
	panic("not reached")
}

// unlock ends a hold; that it was lost meanwhile is no error.
func unlock(ctx context.Context, l valkeyrie.Locker) error {
	err := l.Unlock(ctx)
	if errors.Is(err, valkeyrie.ErrLockNotHeld) {
		return nil
	}
	return err
}
