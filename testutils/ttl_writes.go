package testutils

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// overwrites are the ways to write a key that is there.
func (e *env) overwrites() map[string]func(key string, o *valkeyrie.WriteOptions) error {
	other := e.open(nil)
	ways := make(map[string]func(key string, o *valkeyrie.WriteOptions) error)
	for name, s := range map[string]kvstore{"the same store": e.kv, "another store": other} {
		ways["Put by "+name] = func(key string, o *valkeyrie.WriteOptions) error {
			return s.Put(e.ctx, key, []byte("over"), o)
		}
		ways["AtomicPut by "+name] = func(key string, o *valkeyrie.WriteOptions) error {
			_, _, err := s.AtomicPut(e.ctx, key, []byte("over"), e.get(key), o)
			return err
		}
	}
	return ways
}

func ttlCleared(e *env) {
	const ttl = 1500 * time.Millisecond
	var keys []string
	for how, write := range e.overwrites() {
		for i, none := range []*valkeyrie.WriteOptions{nil, {}} {
			key := e.key(fmt.Sprint(how, i))
			require.NoError(e, e.kv.Put(e.ctx, key, []byte("v"), &valkeyrie.WriteOptions{TTL: ttl}))
			require.NoError(e, write(key, none), how)
			keys = append(keys, key)
		}
	}
	e.stay(e.open(nil), ttl+time.Second, keys...)
	require.Equal(e, sorted(keys), e.list(e.kv, e.dir))
}

func ttlRestarted(e *env) {
	other := e.open(nil)
	var all []*mortal
	for how, write := range e.overwrites() {
		for name, ttls := range map[string][2]time.Duration{
			"longer":    {1500 * time.Millisecond, 3 * time.Second},
			"shorter":   {time.Minute, 500 * time.Millisecond},
			"same":      {1500 * time.Millisecond, 1500 * time.Millisecond},
			"permanent": {0, 600 * time.Millisecond},
		} {
			key := e.key(how + " " + name)
			require.NoError(e, e.kv.Put(e.ctx, key, []byte("v"), &valkeyrie.WriteOptions{TTL: ttls[0]}))
			all = append(all, e.mortal(key, ttls[1], func(o *valkeyrie.WriteOptions) error { return write(key, o) }))
		}
	}
	// One that is written again and again stays as long as that goes on.
	key := e.key("again")
	var last *mortal
	for range 6 {
		last = e.putMortal(e.kv, key, 600*time.Millisecond)
		for time.Now().Before(last.until.Add(-300 * time.Millisecond)) {
			start := time.Now()
			there, err := other.Exists(e.ctx, key, nil)
			require.NoError(e, err)
			last.observe(e, "Exists", there, start)
			time.Sleep(10 * time.Millisecond)
		}
	}
	e.expire([]kvstore{e.kv, other}, append(all, last)...)
}

func ttlDeleted(e *env) {
	const ttl = 1500 * time.Millisecond
	other := e.open(nil)
	var permanent []string
	var mortals []*mortal
	for name, s := range map[string]kvstore{"same": e.kv, "other": other} {
		for how, remove := range map[string]func(key string) error{
			"delete": func(key string) error { return s.Delete(e.ctx, key) },
			"atomic": func(key string) error {
				_, err := s.AtomicDelete(e.ctx, key, e.get(key))
				return err
			},
			"tree": func(key string) error { return s.DeleteTree(e.ctx, strings.TrimSuffix(key, "/k")) },
		} {
			key := e.key(name + "/" + how + "/k")
			require.NoError(e, e.kv.Put(e.ctx, key, []byte("v"), &valkeyrie.WriteOptions{TTL: ttl}))
			require.NoError(e, remove(key))
			_, _, err := s.AtomicPut(e.ctx, key, []byte("new"), nil, nil)
			require.NoError(e, err)
			permanent = append(permanent, key)

			key = e.key(name + "/" + how + "-longer/k")
			require.NoError(e, e.kv.Put(e.ctx, key, []byte("v"), &valkeyrie.WriteOptions{TTL: ttl}))
			require.NoError(e, remove(key))
			mortals = append(mortals, e.putMortal(s, key, 2*ttl))
		}
	}
	e.expire([]kvstore{e.kv, other}, mortals...)
	require.Equal(e, sorted(permanent), e.list(e.kv, e.dir))
}

func ttlRefused(e *env) {
	const ttl = 3 * time.Second // long enough for all of the calls
	permanent, key := e.key("permanent"), e.key("k")
	e.put(permanent, "v")
	m := e.putMortal(e.kv, key, ttl)
	stale := &pair{LastIndex: e.get(key).LastIndex + 1}
	for _, opts := range []*valkeyrie.WriteOptions{nil, {TTL: time.Minute}, {TTL: 50 * time.Millisecond}, {TTL: time.Second, KeepAlive: true}} {
		for _, k := range []string{key, permanent} {
			_, _, err := e.kv.AtomicPut(e.ctx, k, nil, nil, opts)
			e.refused(err, "AtomicPut", k, valkeyrie.ErrKeyExists)
		}
		_, _, err := e.kv.AtomicPut(e.ctx, key, nil, stale, opts)
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
	}
	e.expire([]kvstore{e.kv, e.open(nil)}, m)
	e.stay(e.kv, 200*time.Millisecond, permanent)
}

// ttlParents: on servers with real directories a key that expires and its
// children do not go together by themselves.
func ttlParents(e *env) {
	if e.h.NoChildrenOfValues {
		return
	}
	const ttl = time.Second
	other := e.open(nil)
	before := e.putMortal(e.kv, e.key("before"), ttl)
	e.put(e.key("before/child/grandchild"), "put after its parent")
	e.put(e.key("after/child/grandchild"), "put before its parent")
	after := e.putMortal(e.kv, e.key("after"), ttl)
	created := e.mortal(e.key("created"), ttl, func(o *valkeyrie.WriteOptions) error {
		_, _, err := e.kv.AtomicPut(e.ctx, e.key("created"), nil, nil, o)
		return err
	})
	require.NoError(e, other.Put(e.ctx, e.key("created/child"), nil, nil))
	require.NoError(e, e.kv.Put(e.ctx, e.key("alive"), nil, &valkeyrie.WriteOptions{TTL: aliveTTL, KeepAlive: true}))
	require.NoError(e, other.Put(e.ctx, e.key("alive/child"), nil, nil))
	both := e.putMortal(e.kv, e.key("both"), ttl)
	child := e.putMortal(other, e.key("both/child"), ttl*2)
	e.expire([]kvstore{e.kv, other}, before, after, created, both, child)
	require.Equal(e, []string{e.key("after/child/grandchild"), e.key("alive"), e.key("alive/child"), e.key("before/child/grandchild"), e.key("created/child")}, e.list(e.kv, e.dir))
	require.Equal(e, []string{e.key("before/child/grandchild")}, e.list(e.kv, before.key))
	_, _, err := e.kv.AtomicPut(e.ctx, before.key, nil, nil, nil)
	require.NoError(e, err, "an expired parent can be created")
}

func ttlMany(e *env) {
	const ttl = 2 * time.Second
	keys := make([]string, 0, 200)
	for i := range 200 {
		keys = append(keys, e.key(fmt.Sprint("d", i%10, "/", i)))
	}
	start := time.Now()
	e.putAll(keys, &valkeyrie.WriteOptions{TTL: ttl})
	wrote := time.Now()
	for time.Now().Before(start.Add(ttl)) {
		names := e.walkKeys(e.kv)
		if time.Now().Before(start.Add(ttl)) {
			require.Len(e, names, len(keys), "some of many keys expired early")
		}
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(time.Until(wrote.Add(ttl + time.Second)))
	require.Empty(e, e.walkKeys(e.kv), "some of many keys expired late")
	require.Empty(e, e.list(e.open(nil), e.dir))
}

// walkKeys returns what is in the directory of the check, unsorted.
func (e *env) walkKeys(s kvstore) []string {
	e.Helper()
	walked, err := collect(s.Walk(e.ctx, e.dir, nil))
	require.NoError(e, err)
	return keysOf(walked)
}

func ttlInvalid(e *env) {
	existing, missing := e.key("existing"), e.key("missing")
	e.put(existing, "v")
	p := e.get(existing)
	for _, opts := range []*valkeyrie.WriteOptions{
		{TTL: -1}, {TTL: -time.Second}, {TTL: -1 << 63}, {TTL: -time.Hour, KeepAlive: true}, {KeepAlive: true},
	} {
		for _, key := range []string{existing, missing} {
			e.refused(e.kv.Put(e.ctx, key, nil, opts), "Put", key, valkeyrie.ErrInvalidOption)
			for _, previous := range []*pair{nil, p} {
				got, err := flat(e.kv.AtomicPut(e.ctx, key, nil, previous, opts))
				e.refused(err, "AtomicPut", key, valkeyrie.ErrInvalidOption)
				require.Zero(e, got)
			}
		}
	}
	require.Equal(e, p, e.get(existing))
	e.absent(e.kv, missing)
}
