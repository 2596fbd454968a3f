package testutils

import (
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// atomicChecks are the sentences about conditional writes; atomic_races.go holds
// the functions of those under contention.
var atomicChecks = []check{
	{"AtomicPut without previous creates, and refuses a key that exists", atomicCreate},
	{"of N concurrent creates exactly one succeeds, the others get ErrKeyExists", atomicCreateRace},
	{"AtomicPut with previous writes only over that revision", atomicUpdate},
	{"of N concurrent updates of one revision exactly one succeeds, the others get ErrKeyModified", atomicUpdateRace},
	{"AtomicPut returns the pair of this very write", atomicOwnPair},
	{"AtomicPut tells a key that was modified from one that is gone", atomicModifiedOrGone},
	{"a previous pair without revision never creates and never matches", atomicZeroPrevious},
	{"AtomicDelete deletes only that revision", atomicDelete},
	{"AtomicDelete without previous is ErrPreviousNotSpecified", atomicDeleteNil},
	{"of N concurrent deletes of one revision exactly one succeeds", atomicDeleteRace},
	{"increments with AtomicPut by many writers are never lost", atomicCounter},
	{"AtomicPut and AtomicDelete of one revision never both succeed", atomicPutDeleteRace},
	{"of N concurrent deletes of one key exactly one succeeds", atomicPlainDeleteRace},
}

// racers is how many goroutines a race has; they are spread over two stores.
func atomicCreate(e *env) {
	key := e.key("k")
	ok, p, err := e.kv.AtomicPut(e.ctx, key, []byte("v"), nil, nil)
	require.NoError(e, err)
	require.True(e, ok)
	require.Equal(e, e.get(key), p)
	for _, opts := range []*valkeyrie.WriteOptions{nil, {}} {
		got, err := flat(e.kv.AtomicPut(e.ctx, key, []byte("w"), nil, opts))
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyExists)
		require.Zero(e, got)
		require.Equal(e, p, e.get(key), "a refused create changed the key")
	}
	e.put(e.key("put"), "")
	_, _, err = e.kv.AtomicPut(e.ctx, e.key("put"), []byte("w"), nil, nil)
	e.refused(err, "AtomicPut", e.key("put"), valkeyrie.ErrKeyExists) // an empty value is a value
	require.NoError(e, e.kv.Delete(e.ctx, key))
	ok, p, err = e.kv.AtomicPut(e.ctx, key, []byte("again"), nil, nil)
	require.NoError(e, err, "create after a delete")
	require.True(e, ok)
	require.Equal(e, "again", string(p.Value))
}

// race lets racers run f at once in many rounds, and asserts that one of them
// succeeds in each and that the others fail with one of the given errors.
func atomicUpdate(e *env) {
	key := e.key("k")
	e.put(key, "1")
	first := e.get(key)
	ok, second, err := e.kv.AtomicPut(e.ctx, key, []byte("2"), first, nil)
	require.NoError(e, err)
	require.True(e, ok)
	require.Equal(e, second, e.get(key))

	got, err := flat(e.kv.AtomicPut(e.ctx, key, []byte("3"), first, nil))
	e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
	require.Zero(e, got)
	require.Equal(e, second, e.get(key), "a refused update changed the key")
	// Of previous only LastIndex counts.
	_, third, err := e.kv.AtomicPut(e.ctx, key, []byte("3"), &pair{Key: "other", Value: []byte("other"), LastIndex: second.LastIndex}, nil)
	require.NoError(e, err)
	require.Equal(e, key, third.Key)
	_, _, err = e.kv.AtomicPut(e.ctx, key, []byte("3"), &pair{Key: key, Value: third.Value, LastIndex: second.LastIndex}, nil)
	e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
}

// atomicOwnPair: a pair that AtomicPut reads after its write could be somebody
// else's, so others write all the time.
func atomicModifiedOrGone(e *env) {
	key := e.key("k")
	e.put(key, "v")
	p := e.get(key)
	e.put(key, "v")
	_, _, err := e.kv.AtomicPut(e.ctx, key, []byte("w"), p, nil)
	e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
	_, err = e.kv.AtomicDelete(e.ctx, key, p)
	e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyModified)
	current := e.get(key)
	require.NoError(e, e.kv.Delete(e.ctx, key))
	for _, previous := range []*pair{p, current} {
		got, err := flat(e.kv.AtomicPut(e.ctx, key, []byte("w"), previous, nil))
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyNotFound)
		require.Zero(e, got)
		ok, err := e.kv.AtomicDelete(e.ctx, key, previous)
		e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyNotFound)
		require.False(e, ok)
	}
	e.absent(e.kv, key)
}

// atomicZeroPrevious: the pair that Watch sends for an absent key has revision
// 0, which must not turn an update into a create or into a plain write.
func atomicZeroPrevious(e *env) {
	key, missing := e.key("k"), e.key("missing")
	e.put(key, "v")
	p := e.get(key)
	for _, zero := range []*pair{{}, {Key: key, Value: []byte("v")}} {
		_, _, err := e.kv.AtomicPut(e.ctx, key, []byte("w"), zero, nil)
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
		_, err = e.kv.AtomicDelete(e.ctx, key, zero)
		e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyModified)
		_, _, err = e.kv.AtomicPut(e.ctx, missing, []byte("w"), zero, nil)
		e.refused(err, "AtomicPut", missing, valkeyrie.ErrKeyNotFound)
		_, err = e.kv.AtomicDelete(e.ctx, missing, zero)
		e.refused(err, "AtomicDelete", missing, valkeyrie.ErrKeyNotFound)
	}
	require.Equal(e, p, e.get(key))
	e.absent(e.kv, missing)
}

func atomicDelete(e *env) {
	key := e.key("k")
	e.put(key, "1")
	first := e.get(key)
	e.put(key, "2")
	second := e.get(key)
	ok, err := e.kv.AtomicDelete(e.ctx, key, first)
	e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyModified)
	require.False(e, ok)
	require.Equal(e, second, e.get(key))
	ok, err = e.kv.AtomicDelete(e.ctx, key, &pair{LastIndex: second.LastIndex})
	require.NoError(e, err, "of previous only LastIndex counts")
	require.True(e, ok)
	e.absent(e.kv, key)
	ok, err = e.kv.AtomicDelete(e.ctx, key, second)
	e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyNotFound)
	require.False(e, ok)
}

func atomicDeleteNil(e *env) {
	key := e.key("k")
	e.put(key, "v")
	for _, k := range []string{key, e.key("missing")} {
		ok, err := e.kv.AtomicDelete(e.ctx, k, nil)
		e.refused(err, "AtomicDelete", k, valkeyrie.ErrPreviousNotSpecified)
		require.False(e, ok)
	}
	require.Equal(e, "v", string(e.get(key).Value))
}

// increment adds one to a decimal number, which it creates where it is missing.
// Each refusal means that another writer got in between, so that there are no
// more of them than writes at all.
