package testutils

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// aliveTTL is that of keys that are kept alive: several of them must pass for a
// proof that they are renewed. It leaves more than a second for a renewal, as a
// machine that is busy with the rest of the suite makes writes wait.
const aliveTTL = 2 * time.Second

// putAlive writes a key that is kept alive.
func (e *env) putAlive(s kvstore, key string) {
	e.Helper()
	require.NoError(e, s.Put(e.ctx, key, []byte("alive"), &valkeyrie.WriteOptions{TTL: aliveTTL, KeepAlive: true}))
}

func keepAliveKeeps(e *env) {
	other := e.open(nil)
	e.putAlive(e.kv, e.key("put"))
	_, created, err := e.kv.AtomicPut(e.ctx, e.key("created"), nil, nil, &valkeyrie.WriteOptions{TTL: aliveTTL, KeepAlive: true})
	require.NoError(e, err)
	e.put(e.key("updated"), "permanent")
	_, updated, err := e.kv.AtomicPut(e.ctx, e.key("updated"), nil, e.get(e.key("updated")), &valkeyrie.WriteOptions{TTL: aliveTTL, KeepAlive: true})
	require.NoError(e, err)
	require.NoError(e, e.kv.Put(e.ctx, e.key("short"), nil, &valkeyrie.WriteOptions{TTL: 1500 * time.Millisecond, KeepAlive: true}))
	e.putAlive(e.kv, e.key("twice")) // a second KeepAlive takes the place of the first
	require.NoError(e, e.kv.Put(e.ctx, e.key("twice"), nil, &valkeyrie.WriteOptions{TTL: 2 * aliveTTL, KeepAlive: true}))

	// stay compares whole pairs: revisions do not change either.
	e.stay(other, 3*aliveTTL+aliveTTL/2, e.key("put"), e.key("created"), e.key("updated"), e.key("short"), e.key("twice"))
	for _, p := range []*pair{created, updated} {
		_, _, err := other.AtomicPut(e.ctx, p.Key, nil, p, nil)
		require.NoError(e, err, "the pair of the write is still the current one after renewals")
	}
}

func keepAliveOverwritten(e *env) {
	other, passing := e.open(nil), e.open(nil)
	var permanent []string
	var mortals []*mortal
	for how, write := range e.overwrites() {
		key := e.key(how)
		e.putAlive(e.kv, key)
		mortals = append(mortals, e.mortal(key, aliveTTL, func(o *valkeyrie.WriteOptions) error { return write(key, o) }))
		key = e.key(how + " for good")
		e.putAlive(e.kv, key)
		require.NoError(e, write(key, nil))
		permanent = append(permanent, key)
		key = e.key(how + " for good, when the first store is gone")
		e.putAlive(passing, key)
		require.NoError(e, write(key, nil))
		permanent = append(permanent, key)
	}
	// Overwriting what was kept alive with a delete in between is no different.
	key := e.key("re-created")
	e.putAlive(e.kv, key)
	require.NoError(e, other.Delete(e.ctx, key))
	mortals = append(mortals, e.putMortal(other, key, aliveTTL))

	require.NoError(e, passing.Close())
	e.expire([]kvstore{e.kv, other}, mortals...)
	e.stay(other, aliveTTL/2, permanent...) // the TTLs are long over
	require.Equal(e, sorted(permanent), e.list(e.kv, e.dir))
}

func keepAliveDeleted(e *env) {
	other := e.open(nil)
	var keys []string
	for name, s := range map[string]kvstore{"same": e.kv, "other": other} {
		for how, remove := range map[string]func(key string) error{
			"delete": func(key string) error { return s.Delete(e.ctx, key) },
			"atomic": func(key string) error {
				_, err := s.AtomicDelete(e.ctx, key, e.get(key))
				return err
			},
			"tree": func(string) error { return s.DeleteTree(e.ctx, e.key("below")) },
		} {
			key := e.key("below/" + name + how)
			e.putAlive(e.kv, key)
			if how == "delete" { // also in the middle of a life, after renewals
				e.stay(other, aliveTTL+200*time.Millisecond, key)
			}
			require.NoError(e, remove(key))
			keys = append(keys, key)
		}
	}
	require.NotEmpty(e, keys)
	for end := time.Now().Add(2 * aliveTTL); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		require.Empty(e, e.walkKeys(other), "a key that was kept alive came back after it was deleted")
	}
	for _, key := range keys {
		e.absent(e.kv, key)
	}
}

func keepAliveClosed(e *env) {
	s := e.open(nil)
	var mortals []*mortal
	for _, name := range []string{"a", "b/c", "d"} {
		key := e.key(name)
		e.putAlive(s, key)
		mortals = append(mortals, &mortal{key: key})
	}
	e.putAlive(e.kv, e.key("of another store"))
	e.stay(e.kv, aliveTTL+300*time.Millisecond, e.key("a"), e.key("b/c"), e.key("d"))
	require.NoError(e, s.Close())
	for _, m := range mortals {
		m.gone = time.Now().Add(aliveTTL + max(time.Second, e.h.CrashBound))
	}
	e.expire([]kvstore{e.kv}, mortals...)
	e.stay(e.kv, 200*time.Millisecond, e.key("of another store"))
}

// ttlAfterClose: a command that registers something and ends must not take it
// with it, as a server's session would.
func ttlAfterClose(e *env) {
	const ttl = 2 * time.Second
	s := e.open(nil)
	bound := max(time.Second, e.h.CrashBound)
	put := e.putMortal(s, e.key("put"), ttl)
	created := e.mortal(e.key("created"), ttl, func(o *valkeyrie.WriteOptions) error {
		_, _, err := s.AtomicPut(e.ctx, e.key("created"), nil, nil, o)
		return err
	})
	short := e.putMortal(s, e.key("short"), 400*time.Millisecond)
	require.NoError(e, s.Close())
	for _, m := range []*mortal{put, created, short} {
		m.gone = m.gone.Add(bound - time.Second)
	}
	e.expire([]kvstore{e.kv, e.open(nil)}, put, created, short)
}
