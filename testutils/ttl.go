package testutils

import (
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// ttlChecks are the sentences about expiry; ttl_writes.go and keepalive.go
// hold the functions of the later ones.
var ttlChecks = []check{
	{"a key is there for at least its TTL, and gone from every read a second later", ttlExpires},
	{"a TTL is never truncated to zero nor so long that it overflows", ttlExtremes},
	{"a create over an expired key succeeds, and not before it has expired", ttlCreateOverExpired},
	{"an expired key is gone for every conditional write and delete", ttlGoneForWrites},
	{"a revision is not repeated after expiry", ttlRevisions},
	{"a later write without TTL makes the key permanent", ttlCleared},
	{"a later write with a TTL starts a new one", ttlRestarted},
	{"a key that was deleted and written again has nothing of the old TTL", ttlDeleted},
	{"a refused write leaves the TTL as it is", ttlRefused},
	{"a key with children expires, and its children stay", ttlParents},
	{"all of many keys expire", ttlMany},
	{"a key outlives the store that put it, for its TTL", ttlAfterClose},
	{"a negative TTL and KeepAlive without TTL are ErrInvalidOption, and nothing is written", ttlInvalid},
	{"KeepAlive keeps a key, and renewing is not a write", keepAliveKeeps},
	{"KeepAlive ends when the key is overwritten", keepAliveOverwritten},
	{"KeepAlive ends when the key is deleted", keepAliveDeleted},
	{"KeepAlive ends when the store is closed", keepAliveClosed},
}

// mortal is a key that expires, and the times that the contract sets for it.
// Only the times before and after the write are known, so that what happens
// between the bounds proves nothing.
type mortal struct {
	key   string
	until time.Time // it is there until this time at least
	gone  time.Time // it is gone from this time on
	dead  bool      // somebody has seen that it is gone
}

// mortal writes a key with a TTL and notes its times.
func (e *env) mortal(key string, ttl time.Duration, write func(*valkeyrie.WriteOptions) error) *mortal {
	e.Helper()
	before := time.Now()
	require.NoError(e, write(&valkeyrie.WriteOptions{TTL: ttl}))
	return &mortal{key: key, until: before.Add(ttl), gone: time.Now().Add(ttl + max(time.Second, ttl/20))}
}

// putMortal is mortal with a plain Put.
func (e *env) putMortal(s kvstore, key string, ttl time.Duration) *mortal {
	e.Helper()
	return e.mortal(key, ttl, func(o *valkeyrie.WriteOptions) error { return s.Put(e.ctx, key, []byte("v"), o) })
}

// observe judges one look at the key that took from start to now.
func (m *mortal) observe(e *env, how string, there bool, start time.Time) {
	e.Helper()
	now := time.Now()
	switch {
	case !there && now.Before(m.until):
		require.FailNow(e, "expired too early", "%s of %q: gone %v before its TTL was over", how, m.key, m.until.Sub(now))
	case there && m.dead:
		require.FailNow(e, "an expired key came back", "%s of %q", how, m.key)
	case there && start.After(m.gone):
		require.FailNow(e, "expired too late", "%s of %q: still there %v after the latest time", how, m.key, start.Sub(m.gone))
	}
	m.dead = m.dead || !there
}

// expire watches keys of the check's directory live and die, by all reads and
// through several stores.
func (e *env) expire(stores []kvstore, mortals ...*mortal) {
	e.Helper()
	for last := false; ; time.Sleep(5 * time.Millisecond) {
		for _, s := range stores {
			for _, m := range mortals {
				start := time.Now()
				_, err := s.Get(e.ctx, m.key, nil)
				if err != nil {
					require.ErrorIs(e, err, valkeyrie.ErrKeyNotFound)
				}
				m.observe(e, "Get", err == nil, start)
				start = time.Now()
				there, err := s.Exists(e.ctx, m.key, nil)
				require.NoError(e, err)
				m.observe(e, "Exists", there, start)
			}
			e.expireLists(s, mortals)
		}
		if last {
			return
		}
		last = true // look once more after all must be gone
		for _, m := range mortals {
			last = last && time.Now().After(m.gone)
		}
	}
}

// expireLists looks for the keys in List and Walk.
func (e *env) expireLists(s kvstore, mortals []*mortal) {
	e.Helper()
	start := time.Now()
	listed, err := s.List(e.ctx, e.dir, nil)
	if !errors.Is(err, valkeyrie.ErrKeyNotFound) {
		require.NoError(e, err)
	}
	for _, m := range mortals {
		m.observe(e, "List", find(listed, m.key) != nil, start)
	}
	start = time.Now()
	walked, err := collect(s.Walk(e.ctx, e.dir, &valkeyrie.ReadOptions{KeysOnly: true}))
	require.NoError(e, err)
	for _, m := range mortals {
		m.observe(e, "Walk", find(walked, m.key) != nil, start)
	}
}

// stay asserts that keys are there, untouched, for the given time.
func (e *env) stay(s kvstore, during time.Duration, keys ...string) {
	e.Helper()
	want := make([]*pair, len(keys))
	for i, key := range keys {
		p, err := s.Get(e.ctx, key, nil)
		require.NoError(e, err, "%q", key)
		want[i] = p
	}
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for i, key := range keys {
			p, err := s.Get(e.ctx, key, nil)
			require.NoError(e, err, "%q has to stay", key)
			require.Equal(e, want[i], p)
		}
	}
}

func ttlExpires(e *env) {
	other, prefixed := e.open(nil), e.prefixed("app")
	var all []*mortal
	for _, ttl := range []time.Duration{300 * time.Millisecond, time.Second, 1500 * time.Millisecond, 3 * time.Second} {
		name := func(how string) string { return e.key(fmt.Sprint(how, "-", ttl)) }
		key := name("put")
		all = append(all, e.putMortal(e.kv, key, ttl))
		key = name("created")
		all = append(all, e.mortal(key, ttl, func(o *valkeyrie.WriteOptions) error {
			_, p, err := e.kv.AtomicPut(e.ctx, key, nil, nil, o)
			require.Equal(e, &pair{Key: key, Value: []byte{}, LastIndex: p.LastIndex}, p)
			return err
		}))
		key = name("updated")
		e.put(key, "permanent")
		previous := e.get(key)
		all = append(all, e.mortal(key, ttl, func(o *valkeyrie.WriteOptions) error {
			_, _, err := e.kv.AtomicPut(e.ctx, key, []byte("v"), previous, o)
			return err
		}))
		key = name("app/prefixed")
		all = append(all, e.mortal(key, ttl, func(o *valkeyrie.WriteOptions) error {
			return prefixed.Put(e.ctx, fmt.Sprint("prefixed-", ttl), nil, o)
		}))
	}
	e.expire([]kvstore{e.kv, other}, all...)
	_, err := e.kv.List(e.ctx, e.dir, nil)
	e.refused(err, "List", e.dir, valkeyrie.ErrKeyNotFound)
	e.refused(e.kv.DeleteTree(e.ctx, e.dir), "DeleteTree", e.dir, valkeyrie.ErrKeyNotFound)
}

func ttlExtremes(e *env) {
	var all []*mortal
	for _, ttl := range []time.Duration{1, time.Microsecond, time.Millisecond, 999 * time.Microsecond, 50 * time.Millisecond} {
		all = append(all, e.putMortal(e.kv, e.key(ttl.String()), ttl))
	}
	year := 365 * 24 * time.Hour
	var long []string
	for _, ttl := range []time.Duration{36 * time.Hour, 30 * 24 * time.Hour, 60 * year, 290 * year, 1<<63 - 1} {
		key := e.key("long-" + ttl.String())
		require.NoError(e, e.kv.Put(e.ctx, key, nil, &valkeyrie.WriteOptions{TTL: ttl}))
		_, _, err := e.kv.AtomicPut(e.ctx, key, nil, e.get(key), &valkeyrie.WriteOptions{TTL: ttl})
		require.NoError(e, err)
		long = append(long, key)
	}
	e.expire([]kvstore{e.kv}, all...)
	e.stay(e.open(nil), 500*time.Millisecond, long...)
}

func ttlCreateOverExpired(e *env) {
	stores := []kvstore{e.kv, e.open(nil)}
	var keys []string
	for _, ttl := range []time.Duration{300 * time.Millisecond, time.Second} {
		for i, s := range stores { // the one that wrote it, and one that did not
			key := e.key(fmt.Sprint(ttl, "-", i))
			keys = append(keys, key)
			var old *pair
			m := e.mortal(key, ttl, func(o *valkeyrie.WriteOptions) (err error) {
				_, old, err = e.kv.AtomicPut(e.ctx, key, []byte("old"), nil, o)
				return err
			})
			for created := false; !created; {
				start := time.Now()
				_, p, err := s.AtomicPut(e.ctx, key, []byte("new"), nil, nil)
				if created = err == nil; created {
					require.NotEqual(e, old.LastIndex, p.LastIndex)
				} else {
					e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyExists)
				}
				m.observe(e, "create", !created, start)
				time.Sleep(time.Millisecond)
			}
			_, _, err := s.AtomicPut(e.ctx, key, nil, old, nil)
			e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
		}
	}
	e.stay(e.kv, 1500*time.Millisecond, keys...) // the end of the old TTL is not theirs
}

// ttlGoneForWrites does not read first: a read may be what removes an expired key.
func ttlGoneForWrites(e *env) {
	const ttl = 300 * time.Millisecond
	old := make(map[string]*pair)
	tries := map[string]func(s kvstore, key string) error{
		"Delete": func(s kvstore, key string) error { return s.Delete(e.ctx, key) },
		"AtomicPut": func(s kvstore, key string) error {
			_, err := flat(s.AtomicPut(e.ctx, key, nil, old[key], nil))
			return err
		},
		"AtomicDelete": func(s kvstore, key string) error {
			_, err := s.AtomicDelete(e.ctx, key, old[key])
			return err
		},
		"DeleteTree": func(s kvstore, key string) error { return s.DeleteTree(e.ctx, key) },
	}
	stores := []kvstore{e.kv, e.open(nil)}
	var last time.Time
	key := func(op string, i int) string { return e.key(fmt.Sprint(op, i)) }
	for op := range tries {
		for i := range stores {
			k := key(op, i)
			if op == "DeleteTree" {
				k += "/below"
			}
			last = e.mortal(k, ttl, func(o *valkeyrie.WriteOptions) (err error) {
				_, old[k], err = e.kv.AtomicPut(e.ctx, k, []byte("old"), nil, o)
				return err
			}).gone
		}
	}
	time.Sleep(time.Until(last))
	for op, try := range tries {
		for i, s := range stores {
			e.refused(try(s, key(op, i)), op, key(op, i), valkeyrie.ErrKeyNotFound)
		}
	}
	require.Empty(e, e.list(e.kv, e.dir))
}

func ttlRevisions(e *env) {
	key := e.key("k")
	all := seen{}
	for round := range 3 {
		require.NoError(e, e.kv.Put(e.ctx, key, []byte("same"), &valkeyrie.WriteOptions{TTL: time.Second}))
		p, err := e.kv.Get(e.ctx, key, nil)
		require.NoError(e, err)
		all.add(e, p.LastIndex, fmt.Sprint("Put ", round))
		e.eventually(patience, "expiry", func() bool {
			there, err := e.kv.Exists(e.ctx, key, nil)
			require.NoError(e, err)
			return !there
		})
		_, _, err = e.kv.AtomicPut(e.ctx, key, []byte("x"), p, nil)
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyNotFound)
		_, p, err = e.kv.AtomicPut(e.ctx, key, []byte("same"), nil, nil)
		require.NoError(e, err)
		all.add(e, p.LastIndex, fmt.Sprint("create ", round))
		require.NoError(e, e.kv.Delete(e.ctx, key))
	}
}
