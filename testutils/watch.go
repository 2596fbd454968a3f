package testutils

import (
	"bytes"
	"context"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var watchChecks = []check{
	{"sends the state at the start", watchSendsStateAtStart},
	{"a missing key is a pair with a nil value and not an error", watchOfMissingKey},
	{"sends what another store changes", watchSeesOtherStore},
	{"sends what every kind of write does", watchSeesEveryKindOfWrite},
	{"an identical value written again is a new state", watchSeesIdenticalValue},
	{"a deletion is a pair with a nil value and the last revision seen", watchSeesDelete},
	{"an expiry is a pair with a nil value", watchSeesExpiry},
	{"a key that is created again is seen again", watchSeesRecreation},
	{"an empty value is an empty slice that is not nil", watchSeesEmptyValue},
	{"any bytes arrive as they were put", watchSeesBinary},
	{"does not react to siblings, children and parents", watchIgnoresOthers},
	{"does not send the same state twice", watchSendsNoStateTwice},
	{"keys are whole, in normal form and without the prefix", watchKeysNormalised},
	{"with KeysOnly the value of an existing key is empty and not nil", watchKeysOnly},
	{"AllowStale ends in the same state", watchAllowStale},
	{"a key that is kept alive stays and does not change", watchKeepAlive},
	{"what it sends belongs to the receiver", watchPairsBelongToReceiver},
	{"an invalid key is refused", watchInvalidKey},
	{"nothing that happens after the call is missed", watchMissesNothing},
	{"states never go back", watchNeverGoesBack},
	{"a slow reader gets the last state", watchSlowReader},
	{"an absent reader blocks nobody and then gets few states, the last one last", watchAbsentReader},
	{"cancelling closes the channel while somebody reads", watchCancelWithReader},
	{"cancelling closes the channel while nobody reads", watchCancelWithoutReader},
	{"a deadline closes the channel", watchDeadline},
	{"closing the store closes the channel", watchEndsWithStore},
	{"two hundred watches of one key all get the last state", watchManyOnOneKey},
	{"ending one watch leaves the others alone", watchEndsAlone},
	{"watches opened and cancelled in quick succession do no harm", watchChurn},
}

// watch opens a watch that lasts as long as the check.
func (e *env) watch(key string) <-chan *pair {
	e.Helper()
	return e.watchOn(e.ctx, e.kv, key, nil)
}

// watchOn opens a watch with everything given.
func (e *env) watchOn(ctx context.Context, kv kvstore, key string, opts *valkeyrie.ReadOptions) <-chan *pair {
	e.Helper()
	ch, err := kv.Watch(ctx, key, opts)
	require.NoError(e, err)
	require.NotNil(e, ch)
	return ch
}

// nextChange receives the next state and checks that it is what Get returns.
func (e *env) nextChange(ch <-chan *pair, key, what string) *pair {
	e.Helper()
	got := receive(e, ch, what)
	requireSamePair(e, e.get(key), got)
	return got
}

func watchSendsStateAtStart(e *env) {
	key := e.key("k")
	e.put(key, "v")
	want := e.get(key)
	got := receive(e, e.watch(key), "the state at the start")
	requireSamePair(e, want, got)
	require.Equal(e, "v", string(got.Value))
	require.True(e, got.LastIndex != 0, "the revision of a stored pair is never 0")
}

func watchOfMissingKey(e *env) {
	key := e.key("missing")
	ch := e.watch(key)
	requireGone(e, key, 0, receive(e, ch, "the state of the missing key"))
	e.put(key, "v")
	e.nextChange(ch, key, "the key that was created")
}

func watchSeesOtherStore(e *env) {
	key, other := e.key("k"), e.open(nil)
	ch := e.watch(key)
	receive(e, ch, "the state at the start")
	for i := range 5 {
		value := "by another " + strconv.Itoa(i)
		require.NoError(e, other.Put(e.ctx, key, []byte(value), nil))
		require.Equal(e, value, string(e.nextChange(ch, key, "a change by another store").Value))
	}
}

func watchSeesEveryKindOfWrite(e *env) {
	key, lockKey := e.key("d/k"), e.key("d/lock")
	ch := e.watch(key)
	receive(e, ch, "the state at the start")

	_, created, err := e.kv.AtomicPut(e.ctx, key, []byte("created"), nil, nil)
	require.NoError(e, err)
	requireSamePair(e, created, receive(e, ch, "a create"))
	_, updated, err := e.kv.AtomicPut(e.ctx, key, []byte("updated"), created, nil)
	require.NoError(e, err)
	requireSamePair(e, updated, receive(e, ch, "a conditional update"))
	_, err = e.kv.AtomicDelete(e.ctx, key, updated)
	require.NoError(e, err)
	requireGone(e, key, updated.LastIndex, receive(e, ch, "a conditional delete"))

	e.put(key, "again")
	last := e.nextChange(ch, key, "a put")
	require.NoError(e, e.kv.DeleteTree(e.ctx, e.key("d")))
	requireGone(e, key, last.LastIndex, receive(e, ch, "a DeleteTree of the directory above"))

	lockCh := e.watch(lockKey)
	receive(e, lockCh, "the state at the start")
	l, err := e.kv.NewLock(e.ctx, lockKey, &valkeyrie.LockOptions{Value: []byte("holder")})
	require.NoError(e, err)
	_, err = l.Lock(e.ctx)
	require.NoError(e, err)
	until(e, lockCh, "the key of a lock that was taken", func(p *pair) bool { return string(p.Value) == "holder" })
	require.NoError(e, l.Unlock(e.ctx))
	until(e, lockCh, "the key of a lock that was released", func(p *pair) bool { return p.Value == nil })
}

func watchSeesIdenticalValue(e *env) {
	key := e.key("k")
	e.put(key, "same")
	ch := e.watch(key)
	last := receive(e, ch, "the state at the start")
	for range 5 {
		e.put(key, "same")
		got := e.nextChange(ch, key, "an identical value written again")
		require.True(e, got.LastIndex != last.LastIndex, "the revision of an identical value must differ")
		last = got
	}
}

func watchSeesDelete(e *env) {
	key := e.key("k")
	e.put(key, "v")
	ch := e.watch(key)
	last := receive(e, ch, "the state at the start")
	require.NoError(e, e.kv.Delete(e.ctx, key))
	requireGone(e, key, last.LastIndex, receive(e, ch, "the deletion"))
}

func watchSeesExpiry(e *env) {
	key, ttl := e.key("k"), 2*time.Second
	ch := e.watch(key)
	receive(e, ch, "the state at the start")
	before := time.Now()
	require.NoError(e, e.kv.Put(e.ctx, key, []byte("v"), &valkeyrie.WriteOptions{TTL: ttl}))
	after := time.Now()
	last := receive(e, ch, "the put")
	require.Equal(e, "v", string(last.Value))
	requireGone(e, key, last.LastIndex, receive(e, ch, "the expiry"))
	require.GreaterOrEqual(e, time.Since(before), ttl, "a key is there for at least its TTL")
	require.Less(e, time.Since(after), ttl+time.Second+soon, "a key is gone at most 1 s after its TTL")
}

func watchSeesRecreation(e *env) {
	key := e.key("k")
	e.put(key, "first")
	ch := e.watch(key)
	seen := map[uint64]bool{receive(e, ch, "the state at the start").LastIndex: true}
	for i := range 5 {
		require.NoError(e, e.kv.Delete(e.ctx, key))
		require.True(e, receive(e, ch, "the deletion").Value == nil)
		e.put(key, "again "+strconv.Itoa(i))
		got := e.nextChange(ch, key, "the key that was created again")
		require.False(e, seen[got.LastIndex], "revision %d came before", got.LastIndex)
		seen[got.LastIndex] = true
	}
}

func watchSeesEmptyValue(e *env) {
	key := e.key("k")
	e.put(key, "")
	ch := e.watch(key)
	got := receive(e, ch, "the state at the start")
	require.True(e, got.Value != nil && len(got.Value) == 0, "an empty value is not nil at the start, got %s", show(got))
	e.put(key, "full")
	require.Equal(e, "full", string(receive(e, ch, "a change").Value))
	require.NoError(e, e.kv.Put(e.ctx, key, nil, nil))
	got = receive(e, ch, "the empty value")
	require.True(e, got.Value != nil && len(got.Value) == 0, "an empty value is not nil after a change, got %s", show(got))
}

func watchSeesBinary(e *env) {
	key, value := e.key("k"), make([]byte, 1024)
	for i := range value {
		value[i] = byte(i)
	}
	require.NoError(e, e.kv.Put(e.ctx, key, value, nil))
	ch := e.watch(key)
	require.Equal(e, value, receive(e, ch, "the state at the start").Value)
	value = bytes.Repeat([]byte{0xff, 0, 0xc3}, 100)
	require.NoError(e, e.kv.Put(e.ctx, key, value, nil))
	require.Equal(e, value, receive(e, ch, "the change").Value)
}

func watchIgnoresOthers(e *env) {
	key := e.key("p/k")
	others := []string{e.key("p/k2"), e.key("p/kk/a"), e.key("p/k-"), e.key("p/j"), e.key("q")}
	if !e.h.NoChildrenOfValues {
		others = append(others, key+"/child", key+"/deep/er/child", e.key("p"))
	}
	e.put(key, "v")
	ch := e.watch(key)
	receive(e, ch, "the state at the start")
	for _, other := range others {
		e.put(other, "x")
		e.put(other, "y")
	}
	for _, other := range others {
		require.NoError(e, e.kv.Delete(e.ctx, other))
	}
	quiet(e, ch, "a watch of "+key+" reacted to another key")
	e.put(key, "w")
	require.Equal(e, "w", string(e.nextChange(ch, key, "a change of the key itself").Value))
}

func watchSendsNoStateTwice(e *env) {
	key := e.key("k")
	ch := e.watch(key)
	last := receive(e, ch, "the state at the start")
	stop := e.hammer(e.kv, key)
	for range 50 {
		got := receive(e, ch, "a change")
		require.False(e, last.LastIndex == got.LastIndex && (last.Value == nil) == (got.Value == nil),
			"sent twice: %s then %s", show(last), show(got))
		last = got
	}
	stop()
}

func watchKeysNormalised(e *env) {
	inside := e.open(&valkeyrie.Config{Prefix: e.key("app")})
	want := "a/b"
	ch := e.watchOn(e.ctx, inside, "/a//b/", nil)
	require.Equal(e, want, receive(e, ch, "the state at the start").Key)
	e.put(e.key("app/a/b"), "from outside")
	got := receive(e, ch, "a put by a store without the prefix")
	require.Equal(e, want, got.Key)
	require.Equal(e, "from outside", string(got.Value))
	require.NoError(e, e.kv.Delete(e.ctx, e.key("app/a/b")))
	requireGone(e, want, got.LastIndex, receive(e, ch, "the deletion"))
}
