package testutils

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var contextChecks = []check{
	{"a call with a cancelled context is context.Canceled, and nothing is written", contextsCancelled},
	{"a call with a deadline that has passed is context.DeadlineExceeded, and nothing is written", contextsExpired},
	{"a write whose context ends meanwhile is applied, refused or said to be ambiguous", contextsWrites},
	{"Events ends with its context, which is no error", contextsEvents},
	{"Walk ends with its context, and never by leaving out the rest in silence", contextsWalk},
	{"Lock waits no longer than its context", contextsLock},
	{"a context governs its call and nothing after it", contextsCallOnly},
}

// contextsDone makes every call with a context that is done.
func contextsDone(e *env, ctx context.Context, want error) {
	e.Helper()
	key, missing := e.key("d/k"), e.key("missing")
	e.put(key, "v")
	p := e.get(key)
	for _, c := range storeCalls() {
		if c.op == "Events" || c.op == "NewLock" {
			continue // Events has a check of its own; NewLock asks nobody
		}
		for _, k := range []string{key, missing, e.key("d")} {
			start := time.Now()
			got, err := c.run(ctx, e.kv, k, p)
			e.refused(err, c.op, k, want)
			require.NotErrorIs(e, err, valkeyrie.ErrAmbiguous, "%s %q: nothing was sent", c, k)
			require.Zero(e, got, "%s %q returned something along with its error", c, k)
			require.Less(e, time.Since(start), patience)
		}
	}
	l, err := e.kv.NewLock(e.ctx, e.key("lock"), nil)
	require.NoError(e, err)
	_, err = l.TryLock(ctx)
	e.refused(err, "TryLock", e.key("lock"), want)
	_, err = l.Lock(ctx)
	e.refused(err, "Lock", e.key("lock"), want)

	require.Equal(e, p, e.get(key), "a call whose context was done has changed the key")
	require.Equal(e, []string{key}, e.list(e.kv, e.dir), "a call whose context was done has written something")
	_, err = l.TryLock(e.ctx)
	require.NoError(e, err, "the lock is free")
	require.NoError(e, l.Unlock(e.ctx))
}

func contextsCancelled(e *env) {
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	contextsDone(e, ctx, context.Canceled)
}

func contextsExpired(e *env) {
	ctx, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
	defer cancel()
	contextsDone(e, ctx, context.DeadlineExceeded)
}

// contextsWrites cancels writes at all times of their way.
func contextsWrites(e *env) {
	other := e.open(nil)
	unknown := 0
	for i := range 200 {
		key := e.key(fmt.Sprint("k", i))
		ctx, cancel := context.WithCancel(e.ctx)
		timer := time.AfterFunc(time.Duration(i%50)*20*time.Microsecond, cancel)
		_, p, err := e.kv.AtomicPut(ctx, key, []byte("v"), nil, nil)
		timer.Stop()
		cancel()
		there, lookErr := other.Exists(e.ctx, key, nil)
		require.NoError(e, lookErr)
		switch {
		case err == nil:
			require.True(e, there, "a write that returned nil is not there")
			require.Equal(e, p, e.get(key))
		case errors.Is(err, valkeyrie.ErrAmbiguous):
			require.ErrorIs(e, err, context.Canceled)
			unknown++ // either is right
		default:
			e.refused(err, "AtomicPut", key, context.Canceled)
			require.False(e, there, "a write was applied, and its error does not say that it may have been: %v", err)
		}
	}
	e.Logf("%d of 200 writes had an unknown outcome", unknown)
}

func contextsEvents(e *env) {
	e.put(e.key("k"), "v")
	done, cancel := context.WithCancel(e.ctx)
	cancel()
	passed, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
	defer cancel()
	for _, tree := range []bool{false, true} {
		opts := &valkeyrie.WatchOptions{Tree: tree}
		for _, ctx := range []context.Context{done, passed} {
			got, err := firstEvent(e.kv.Events(ctx, e.key("k"), opts))
			require.NoError(e, err, "Events with a context that is done")
			require.Nil(e, got)
		}
		// One that ends while Events waits for changes.
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		for ev, err := range e.kv.Events(ctx, e.key("k"), opts) {
			require.NoError(e, err, "the end of the context is no error of Events")
			if ev.Type == valkeyrie.Synced {
				time.AfterFunc(20*time.Millisecond, cancel)
			}
		}
		require.ErrorIs(e, ctx.Err(), context.Canceled, "Events ended by itself")
	}
}

func contextsWalk(e *env) {
	keys := make([]string, 0, 1000)
	for i := range 1000 {
		keys = append(keys, e.key(fmt.Sprint("d/", i)))
	}
	e.putAll(keys, nil)
	for _, stopAt := range []int{1, 10, 500} {
		ctx, cancel := context.WithCancel(e.ctx)
		n := 0
		var failed error
		for _, err := range e.kv.Walk(ctx, e.key("d"), nil) {
			require.NoError(e, failed, "the Walk went on after its error")
			if failed = err; err == nil {
				n++
			}
			if n == stopAt {
				cancel()
			}
		}
		if n < len(keys) { // what is on its way already may still come
			e.refused(failed, "Walk", e.key("d"), context.Canceled)
		}
		cancel()
	}
}

func contextsLock(e *env) {
	key := e.key("lock")
	holder, err := e.kv.NewLock(e.ctx, key, nil)
	require.NoError(e, err)
	_, err = holder.Lock(e.ctx)
	require.NoError(e, err)
	for _, s := range []kvstore{e.kv, e.open(nil)} {
		waiter, err := s.NewLock(e.ctx, key, nil)
		require.NoError(e, err)
		const wait = 300 * time.Millisecond
		ctx, cancel := context.WithTimeout(e.ctx, wait)
		start := time.Now()
		lost, err := waiter.Lock(ctx)
		took := time.Since(start)
		cancel()
		e.refused(err, "Lock", key, context.DeadlineExceeded)
		require.Nil(e, lost)
		require.GreaterOrEqual(e, took, wait, "Lock gave up before its deadline")
		require.Less(e, took, wait+2*time.Second, "Lock waited on after its deadline")

		ctx, cancel = context.WithCancel(e.ctx)
		time.AfterFunc(50*time.Millisecond, cancel)
		start = time.Now()
		_, err = waiter.Lock(ctx)
		e.refused(err, "Lock", key, context.Canceled)
		require.Less(e, time.Since(start), 2*time.Second)
		require.Zero(e, waiter.Token())
	}
	require.NotZero(e, holder.Token(), "the holder is not touched")
	require.NoError(e, holder.Unlock(e.ctx))
}

// contextsCallOnly: who cancels the context of a call that has returned must not
// end what the call began, or break the connection for the next one.
func contextsCallOnly(e *env) {
	for i := range 20 {
		ctx, cancel := context.WithCancel(e.ctx)
		key := e.key(fmt.Sprint("k", i))
		require.NoError(e, e.kv.Put(ctx, key, []byte("v"), nil))
		p, err := e.kv.Get(ctx, key, nil)
		require.NoError(e, err)
		cancel()
		require.Equal(e, p, e.get(key))
	}
	ctx, cancel := context.WithCancel(e.ctx)
	require.NoError(e, e.kv.Put(ctx, e.key("alive"), nil, &valkeyrie.WriteOptions{TTL: aliveTTL, KeepAlive: true}))
	ttl := 2 * max(aliveTTL, e.h.LockTTL) // with room for a busy server
	l, err := e.kv.NewLock(ctx, e.key("lock"), &valkeyrie.LockOptions{TTL: ttl})
	require.NoError(e, err)
	lost, err := l.Lock(ctx)
	require.NoError(e, err)
	cancel()
	e.stay(e.kv, ttl*3/2, e.key("alive"))
	select {
	case <-lost:
		require.FailNow(e, "the hold ended with the context of Lock")
	default:
	}
	require.NoError(e, l.Unlock(e.ctx))
}
