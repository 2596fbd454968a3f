package local

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// late is how much later than its time an expiry may come on a busy machine.
const late = 500 * time.Millisecond

func TestExpiryIsOnTime(t *testing.T) {
	e := newEnv(t)
	sink := &recorder{}
	e.watch(store.WatchRequest{Tree: true}, sink)
	e.eventually("the watch has begun", sink.synced)
	const ttl = 60 * time.Millisecond
	begun := time.Now()
	e.put("k", "", ttl)
	put := time.Now()
	for e.exists("k") {
		require.Less(t, time.Since(put), ttl+late)
	}
	require.GreaterOrEqual(t, time.Since(begun), ttl)
	e.eventually("the watch hears of it", func() bool { return sink.has("delete k") })
	require.Less(t, time.Since(put), ttl+late)
	_, found, err := e.f.Storage.Get("k", false)
	require.NoError(t, err)
	require.False(t, found, "it is deleted, not only hidden")
}

func TestExpiryOfAKeyThatChanges(t *testing.T) {
	const short, long = 40 * time.Millisecond, time.Hour
	for name, c := range map[string]struct {
		change func(e *env, revision uint64)
		gone   bool
	}{
		"longer":    {func(e *env, _ uint64) { e.put("k", "", long) }, false},
		"permanent": {func(e *env, _ uint64) { e.put("k", "", 0) }, false},
		"renewed": {func(e *env, r uint64) {
			w, err := e.Renew(e.ctx, "k", r, long)
			require.NoError(e, err)
			require.Equal(e, r, w.Revision)
		}, false},
		"created again": {func(e *env, _ uint64) {
			require.NoError(e, e.Delete(e.ctx, "k", 0))
			e.put("k", "", 0)
		}, false},
		"left alone": {func(*env, uint64) {}, true},
		"shorter":    {func(e *env, _ uint64) { e.put("k", "", time.Millisecond) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			// A TTL that has certainly not ended when it is changed, and one
			// that ends first and shows that the sweeper has been there.
			r := e.put("k", "", time.Second)
			e.db.expiries.mu.Lock()
			e.db.expiries.items["k"].at = after(short + late)
			e.db.expiries.mu.Unlock()
			c.change(e, r)
			e.put("mark", "", short+late+time.Millisecond)
			e.eventually("the sweeper has passed", func() bool { return !e.exists("mark") })
			if c.gone {
				e.eventually("gone", func() bool { return !e.exists("k") })
			} else {
				require.True(t, e.exists("k"))
			}
		})
	}
}

func TestManyExpireAtOnce(t *testing.T) {
	e := newEnv(t)
	const n = 3 * sweepLimit
	at := after(time.Second)
	require.NoError(t, e.f.Storage.Update(func(tx Tx) error {
		for i := range n {
			r, err := tx.NextRevision()
			if err != nil {
				return err
			}
			if err := tx.Put(fmt.Sprint("k", i), Record{Revision: r, Expires: at}); err != nil {
				return err
			}
		}
		return nil
	}))
	db, err := Open(e.f, nil)
	require.NoError(t, err)
	defer func() {
		close(db.stop) // the storage is closed by the other database
		<-db.stopped
	}()
	e.eventually("all are deleted", func() bool {
		view, err := e.f.View()
		require.NoError(t, err)
		any := false
		view.Scan("", "", func(string, Record, error) bool { any = true; return false })
		return !any
	})
	require.GreaterOrEqual(t, now(), at)
}

func TestTTLCountsFromTheCommit(t *testing.T) {
	e := newEnv(t)
	release := e.f.block()
	defer release()
	const ttl = 150 * time.Millisecond
	done := make(chan time.Time, 1)
	go func() {
		e.put("k", "", ttl)
		done <- time.Now()
	}()
	<-e.f.arrived
	time.AfterFunc(2*ttl, release)
	returned := <-done
	for e.exists("k") {
		require.Less(t, time.Since(returned), ttl+late)
	}
	require.Greater(t, time.Since(returned), ttl-20*time.Millisecond, "a slow commit takes nothing from the TTL")
}

func TestRenewDoesNotWaitForTheDisk(t *testing.T) {
	e := newEnv(t)
	const ttl = 300 * time.Millisecond
	r := e.put("k", "", ttl)
	release := e.f.block()
	defer release()
	blocked := make(chan error, 1)
	go func() {
		_, err := e.Write(e.ctx, store.Write{Key: "other"})
		blocked <- err
	}()
	<-e.f.arrived
	out := make(chan error, 1)
	go func() {
		_, err := e.Renew(e.ctx, "k", r, time.Hour)
		out <- err
	}()
	time.AfterFunc(2*ttl, release) // the renewal is committed after the old TTL
	for waiting := true; waiting; {
		select {
		case err := <-out:
			require.NoError(t, err)
			waiting = false
		default:
		}
		require.True(t, e.exists("k"))
	}
	require.NoError(t, <-blocked)
}

func TestCreateOverExpired(t *testing.T) {
	e := newEnv(t)
	r := e.put("k", "", time.Millisecond)
	e.eventually("expired", func() bool { return !e.exists("k") })
	_, err := e.Renew(e.ctx, "k", r, time.Hour)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	w, err := e.Write(e.ctx, store.Write{Key: "k", Create: true, TTL: time.Hour})
	require.NoError(t, err)
	require.Greater(t, w.Revision, r)
}

func TestHugeTTL(t *testing.T) {
	e := newEnv(t)
	e.put("k", "", math.MaxInt64)
	require.True(t, e.exists("k"))
	require.EqualValues(t, math.MaxInt64, after(math.MaxInt64))
}

func TestRestart(t *testing.T) {
	e := newEnv(t)
	e.put("dead", "", time.Minute)
	e.put("alive", "", time.Minute)
	_, err := e.TryLock(e.ctx, store.LockRequest{Key: "lock", TTL: time.Hour, Owner: "gone"})
	require.NoError(t, err)
	close(e.db.stop) // without closing the storage
	<-e.db.stopped
	require.NoError(t, e.f.Storage.Update(func(tx Tx) error {
		r, _, err := tx.Get("dead")
		if err != nil {
			return err
		}
		r.Expires = 1 // as if the time had passed
		return tx.Put("dead", r)
	}))

	db, err := Open(e.f, nil)
	require.NoError(t, err)
	d := NewDriver(db, "local", db.Close)
	defer func() { require.NoError(t, d.Close()) }()
	again := &env{T: t, Driver: d, ctx: e.ctx, f: e.f}
	require.False(t, again.exists("dead"))
	require.True(t, again.exists("alive"))
	require.False(t, again.exists("lock"), "whoever held it is gone")
	e.release = func() error { return nil }
}
