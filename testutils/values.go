package testutils

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var valueChecks = []check{
	{"an empty value comes back as an empty slice that is not nil, is listed, and exists", valuesEmpty},
	{"any bytes come back as they went in", valuesAnyBytes},
	{"a value of 100 kB is a value", valuesLarge},
	{"a value that is too large is refused and changes nothing", valuesTooLarge},
	{"what a call returns belongs to the caller", valuesReturned},
	{"what a caller passed in may be reused after the call", valuesPassedIn},
	{"KeysOnly leaves the values out and nothing else", valuesKeysOnly},
}

// everywhere asserts that a key has the value in all reads of both stores.
func (e *env) everywhere(other kvstore, key string, want []byte) {
	e.Helper()
	for _, s := range []kvstore{e.kv, other} {
		p, err := s.Get(e.ctx, key, nil)
		require.NoError(e, err)
		require.NotNil(e, p.Value)
		require.True(e, bytes.Equal(want, p.Value), "Get %q: %q, want %q", key, short(p.Value), short(want))
		dir := key[:strings.LastIndexByte(key, '/')]
		listed, err := s.List(e.ctx, dir, nil)
		require.NoError(e, err)
		walked, err := collect(s.Walk(e.ctx, dir, nil))
		require.NoError(e, err)
		for how, pairs := range map[string][]*pair{"List": listed, "Walk": walked} {
			found := find(pairs, key)
			require.NotNil(e, found, "%s without %q", how, key)
			require.NotNil(e, found.Value, "%s: nil value", how)
			require.True(e, bytes.Equal(want, found.Value), "%s %q: %q, want %q", how, key, short(found.Value), short(want))
			require.Equal(e, p.LastIndex, found.LastIndex, "%s and Get disagree on the revision", how)
		}
		there, err := s.Exists(e.ctx, key, nil)
		require.NoError(e, err)
		require.True(e, there)
	}
}

// short keeps messages readable.
func short(b []byte) []byte { return b[:min(len(b), 80)] }

// find returns the pair of a key, or nil.
func find(pairs []*pair, key string) *pair {
	for _, p := range pairs {
		if p.Key == key {
			return p
		}
	}
	return nil
}

func valuesEmpty(e *env) {
	other := e.open(nil)
	for i, empty := range [][]byte{nil, {}} {
		put, created, updated := e.key("put"), e.key("created"), e.key("updated")
		require.NoError(e, e.kv.Put(e.ctx, put, empty, nil))
		_, p, err := e.kv.AtomicPut(e.ctx, created, empty, nil, nil)
		require.NoError(e, err)
		require.Equal(e, []byte{}, p.Value, "the pair of AtomicPut")
		e.put(updated, "was full")
		_, p, err = e.kv.AtomicPut(e.ctx, updated, empty, e.get(updated), nil)
		require.NoError(e, err)
		require.Equal(e, []byte{}, p.Value, "the pair of AtomicPut")
		require.NoError(e, e.kv.Put(e.ctx, e.key("mortal"), empty, &valkeyrie.WriteOptions{TTL: time.Minute}))

		for _, key := range []string{put, created, updated, e.key("mortal")} {
			e.everywhere(other, key, []byte{})
			ch, err := e.kv.Watch(e.ctx, key, nil)
			require.NoError(e, err)
			require.Equal(e, []byte{}, receive(e, ch, "Watch").Value, "Watch: nil would mean absent")
			_, _, err = e.kv.AtomicPut(e.ctx, key, []byte("x"), nil, nil)
			e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyExists)
			require.NoError(e, e.kv.Delete(e.ctx, key), "round %d", i)
			e.absent(other, key)
		}
	}
}

func valuesAnyBytes(e *env) {
	other := e.open(nil)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	values := [][]byte{
		all, bytes.Repeat([]byte{0}, 300), bytes.Repeat([]byte{0xff}, 300), {0}, {0xff}, []byte("\x00leading"), []byte("trailing\x00"),
		[]byte("\xff\xfe not UTF-8 \xc3"), []byte("\xed\xa0\x80"), []byte("\ufeffwith a BOM"), []byte("line\r\nline\n"), []byte(" space "), []byte("\n"),
		// what a backend may use for itself: encodings, headers, markers of absence
		[]byte("aGVsbG8="), []byte("base64:aGVsbG8="), []byte(`{"value":"x"}`), []byte(`"quoted"`), []byte("null"), []byte("nil"), []byte("(nil)"),
		[]byte("{}"), []byte("<a>&amp;"), []byte("%2F"), []byte("a=b&c=d"), []byte("0"), []byte("1e9"), []byte("true"), []byte("-inf"),
	}
	for range 20 {
		b := make([]byte, 1+rand.IntN(40))
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		values = append(values, b)
	}
	key := e.key("k")
	for i, v := range values {
		if i%2 == 0 {
			require.NoError(e, e.kv.Put(e.ctx, key, v, nil))
		} else {
			_, p, err := e.kv.AtomicPut(e.ctx, key, v, e.get(key), nil)
			require.NoError(e, err)
			require.Equal(e, v, p.Value, "the pair of AtomicPut")
		}
		e.everywhere(other, key, v)
	}
	for _, v := range values { // what was read serves as a value again
		require.NoError(e, e.kv.Put(e.ctx, key, v, nil))
		read := e.get(key).Value
		require.NoError(e, e.kv.Put(e.ctx, key, read, nil))
		require.Equal(e, v, e.get(key).Value)
	}
}

func valuesLarge(e *env) {
	other := e.open(nil)
	large := make([]byte, 100_000)
	for i := range large {
		large[i] = byte(rand.Uint32())
	}
	if e.h.MaxValue > 0 {
		large = large[:min(len(large), e.h.MaxValue)]
	}
	require.NoError(e, e.kv.Put(e.ctx, e.key("put"), large, nil))
	_, p, err := e.kv.AtomicPut(e.ctx, e.key("created"), large, nil, nil)
	require.NoError(e, err)
	require.True(e, bytes.Equal(large, p.Value))
	e.everywhere(other, e.key("put"), large)
	e.everywhere(other, e.key("created"), large)
	e.put(e.key("put"), "small again")
	e.everywhere(other, e.key("put"), []byte("small again"))
	// A directory of many such values is more than one message of most servers.
	keys := make([]string, 0, 30)
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCD" {
		keys = append(keys, e.key("many/"+string(c)))
	}
	e.each(keys, func(key string) error { return e.kv.Put(e.ctx, key, large, nil) })
	listed, err := other.List(e.ctx, e.key("many"), nil)
	require.NoError(e, err)
	require.Equal(e, sorted(keys), keysOf(listed))
	for _, p := range listed {
		require.True(e, bytes.Equal(large, p.Value), "%q", p.Key)
	}
}

func valuesTooLarge(e *env) {
	if e.h.MaxValue == 0 {
		return // the harness declares that there is no limit to try
	}
	key, missing := e.key("k"), e.key("missing")
	largest := bytes.Repeat([]byte("v"), e.h.MaxValue)
	require.NoError(e, e.kv.Put(e.ctx, key, largest, nil), "the largest value that the harness declares")
	require.True(e, bytes.Equal(largest, e.get(key).Value))
	e.put(key, "old")
	p := e.get(key)
	for _, size := range []int{e.h.MaxValue + 1, 2 * e.h.MaxValue} {
		v := make([]byte, size)
		for _, opts := range []*valkeyrie.WriteOptions{nil, {TTL: time.Minute}} {
			for _, k := range []string{key, missing} {
				e.refused(e.kv.Put(e.ctx, k, v, opts), "Put", k, valkeyrie.ErrValueTooLarge)
			}
			ok, got, err := e.kv.AtomicPut(e.ctx, key, v, p, opts)
			e.refused(err, "AtomicPut", key, valkeyrie.ErrValueTooLarge)
			require.False(e, ok)
			require.Nil(e, got)
			_, _, err = e.kv.AtomicPut(e.ctx, missing, v, nil, opts)
			e.refused(err, "AtomicPut", missing, valkeyrie.ErrValueTooLarge)
		}
	}
	require.Equal(e, p, e.get(key), "the old value stays, at its revision")
	e.absent(e.kv, missing)
	require.Equal(e, []string{key}, e.list(e.kv, e.dir))
}

// spoil overwrites a slice, and what lies behind it up to its capacity.
func spoil(b []byte) {
	for i := range b[:cap(b)] {
		b[:cap(b)][i] = 'X'
	}
}

func valuesReturned(e *env) {
	other := e.open(nil)
	key := e.key("k")
	_, p, err := e.kv.AtomicPut(e.ctx, key, []byte("value"), nil, nil)
	require.NoError(e, err)
	spoil(p.Value)
	read := func(s kvstore) []*pair {
		got, err := s.Get(e.ctx, key, nil)
		require.NoError(e, err)
		listed, err := s.List(e.ctx, e.dir, nil)
		require.NoError(e, err)
		walked, err := collect(s.Walk(e.ctx, e.dir, nil))
		require.NoError(e, err)
		one, err := s.Watch(e.ctx, key, nil)
		require.NoError(e, err)
		tree, err := s.WatchTree(e.ctx, e.dir, nil)
		require.NoError(e, err)
		ev, err := firstEvent(s.Events(e.ctx, key, nil))
		require.NoError(e, err)
		return []*pair{got, listed[0], walked[0], receive(e, one, "Watch"), receive(e, tree, "WatchTree")[0], ev.(valkeyrie.Event).Pair}
	}
	for round := range 3 { // what one read returned must not be what a later one returns
		pairs := slices.Concat(read(e.kv), read(other))
		for _, p := range pairs {
			require.Equal(e, "value", string(p.Value), "round %d", round)
			require.Equal(e, key, p.Key)
			spoil(p.Value) // and not what another caller got: the next one is still checked
			p.Key, p.LastIndex = "spoiled", 0
		}
	}
	e.everywhere(other, key, []byte("value"))
}

func valuesPassedIn(e *env) {
	other := e.open(nil)
	ch, err := e.kv.WatchTree(e.ctx, e.dir, nil)
	require.NoError(e, err)
	require.Empty(e, receive(e, ch, "state at the start"))

	buf := []byte("value")
	previous := &pair{Key: "ignored", Value: []byte("ignored")}
	require.NoError(e, e.kv.Put(e.ctx, e.key("put"), buf, nil))
	spoil(buf)
	buf = []byte("value")
	_, p, err := e.kv.AtomicPut(e.ctx, e.key("created"), buf, nil, nil)
	require.NoError(e, err)
	spoil(buf)
	require.Equal(e, "value", string(p.Value), "the pair is a copy")
	e.put(e.key("updated"), "old")
	previous.LastIndex = e.get(e.key("updated")).LastIndex
	buf = []byte("value")
	_, p, err = e.kv.AtomicPut(e.ctx, e.key("updated"), buf, previous, nil)
	require.NoError(e, err, "of previous only LastIndex counts")
	require.NotSame(e, previous, p)
	require.Equal(e, "ignored", string(previous.Value), "previous is not written to")
	spoil(buf)
	// A value that is renewed in the background may be sent again.
	buf = []byte("value")
	opts := &valkeyrie.WriteOptions{TTL: aliveTTL, KeepAlive: true}
	require.NoError(e, e.kv.Put(e.ctx, e.key("alive"), buf, opts))
	spoil(buf)
	opts.TTL, opts.KeepAlive = time.Nanosecond, false
	buf = []byte("value")
	l, err := e.kv.NewLock(e.ctx, e.key("lock"), &valkeyrie.LockOptions{Value: buf})
	require.NoError(e, err)
	spoil(buf)
	_, err = l.TryLock(e.ctx)
	require.NoError(e, err)

	keys := []string{"alive", "created", "lock", "put", "updated"}
	end := time.Now().Add(2 * aliveTTL) // several renewals
	for time.Now().Before(end) {
		for _, key := range keys {
			e.everywhere(other, e.key(key), []byte("value"))
		}
		time.Sleep(20 * time.Millisecond)
	}
	e.eventually(patience, "the watch to show the values", func() bool {
		state := receive(e, ch, "state of the directory")
		return len(state) == len(keys) && string(state[0].Value)+string(state[4].Value) == "valuevalue"
	})
	require.NoError(e, l.Unlock(e.ctx))
}

func valuesKeysOnly(e *env) {
	opts := &valkeyrie.ReadOptions{KeysOnly: true}
	for _, v := range []string{"value", ""} {
		key := e.key("k")
		e.put(key, v)
		want := &pair{Key: key, LastIndex: e.get(key).LastIndex}
		p, err := e.kv.Get(e.ctx, key, opts)
		require.NoError(e, err)
		require.Equal(e, want, p, "Get")
		listed, err := e.kv.List(e.ctx, e.dir, opts)
		require.NoError(e, err)
		require.Equal(e, []*pair{want}, listed, "List")
		walked, err := collect(e.kv.Walk(e.ctx, e.dir, opts))
		require.NoError(e, err)
		require.Equal(e, []*pair{want}, walked, "Walk")
		there, err := e.kv.Exists(e.ctx, key, opts)
		require.NoError(e, err)
		require.True(e, there, "Exists")
		// A pair without its value still serves as previous.
		_, _, err = e.kv.AtomicPut(e.ctx, key, []byte("next"), p, nil)
		require.NoError(e, err)
	}
	_, err := e.kv.Get(e.ctx, e.key("missing"), opts)
	e.refused(err, "Get", e.key("missing"), valkeyrie.ErrKeyNotFound)
	there, err := e.kv.Exists(e.ctx, e.key("missing"), opts)
	require.NoError(e, err)
	require.False(e, there)
	_, err = e.kv.List(e.ctx, e.key("missing"), opts)
	e.refused(err, "List", e.key("missing"), valkeyrie.ErrKeyNotFound)
}
