package redis

import (
	"bytes"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func FuzzDecode(f *testing.F) {
	header, _ := encode([]byte("v"), false)
	for _, seed := range [][]byte{nil, []byte("plain"), []byte(magic), []byte(magic + "\x02\x801234567\x03ownvalue"), []byte(magic + "\x02\x801234567\x09own"), header[:headerSize-1], header[:headerSize], header, append([]byte(magic+"\x01"), make([]byte, 8)...)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		before := bytes.Clone(stored)
		value, revision, err := decode("the key", stored)
		require.Equal(t, before, stored)
		if err != nil {
			require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
			require.ErrorContains(t, err, `"the key"`)
			require.True(t, hasMagic(stored), "whatever another tool wrote can be read")
			return
		}
		require.NotZero(t, revision)
		if !hasMagic(stored) {
			require.True(t, bytes.Equal(before, value))
		} else {
			require.Equal(t, stored[len(magic)] == lockKind, revision&lockBit != 0, "only holds have the revisions of holds")
			head, err := decodeHeader("k", stored[:headerSize])
			require.NoError(t, err)
			require.Equal(t, revision, head, "the header says the same")
			require.True(t, bytes.HasSuffix(stored, value))
		}
		// What was read can be written, either way, and read again.
		for _, plain := range []bool{false, true} {
			again, at := encode(value, plain)
			got, revision, err := decode("k", again)
			require.NoError(t, err)
			require.Equal(t, at, revision)
			require.True(t, bytes.Equal(value, got))
			require.Zero(t, newRevision()&lockBit)
		}
	})
}

func TestWhatIsStored(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.Redis(t).Endpoints
	c, s := raw(t, endpoints[0]), open(t, endpoints, nil, nil)
	require.NoError(t, s.Put(ctx, "stored", []byte("the value"), nil))
	stored, err := redis.Bytes(do(t, c, "GET", "stored"), nil)
	require.NoError(t, err)
	assert.Len(t, stored, headerSize+len("the value"))
	assert.True(t, bytes.HasPrefix(stored, []byte(magic)))
	assert.True(t, bytes.HasSuffix(stored, []byte("the value")))
}

func TestStringsOfOtherTools(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.Redis(t).Endpoints
	c, s := raw(t, endpoints[0]), open(t, endpoints, nil, nil)
	for _, theirs := range []string{"plain text", "", "\x00\xff", "VK", "\x9aV", "\x9a"} {
		do(t, c, "SET", "foreign/a", theirs)
		p, err := s.Get(ctx, "foreign/a", nil)
		require.NoError(t, err)
		assert.Equal(t, theirs, string(p.Value))
		assert.NotNil(t, p.Value)
		assert.NotZero(t, p.LastIndex)
		for _, opts := range []*valkeyrie.ReadOptions{nil, {KeysOnly: true}} {
			pairs, err := s.List(ctx, "foreign", opts)
			require.NoError(t, err)
			require.Len(t, pairs, 1)
			assert.Equal(t, p.LastIndex, pairs[0].LastIndex)
		}
		again, err := open(t, endpoints, nil, nil).Get(ctx, "foreign/a", nil)
		require.NoError(t, err)
		assert.Equal(t, p.LastIndex, again.LastIndex, "the same for everybody")

		_, _, err = s.AtomicPut(ctx, "foreign/a", nil, nil, nil)
		require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
		do(t, c, "SET", "foreign/a", theirs+"!")
		_, _, err = s.AtomicPut(ctx, "foreign/a", []byte("ours"), p, nil)
		require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
		do(t, c, "SET", "foreign/a", theirs)
		_, p, err = s.AtomicPut(ctx, "foreign/a", []byte("ours"), p, nil)
		require.NoError(t, err)
		ok, err := s.AtomicDelete(ctx, "foreign/a", p)
		require.NoError(t, err)
		assert.True(t, ok)
	}
}

func TestDamagedHeaders(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.Redis(t).Endpoints
	c, s := raw(t, endpoints[0]), open(t, endpoints, nil, nil)
	for _, damaged := range []string{magic, magic + "\x011234567", magic + "\x01\x00\x00\x00\x00\x00\x00\x00\x00v", magic + "\x0312345678v", magic + "\x01\x80" + "2345678v", magic + "\x02\x00" + "2345678\x01ov"} {
		do(t, c, "SET", "damaged/a", damaged)
		for _, opts := range []*valkeyrie.ReadOptions{nil, {KeysOnly: true}} {
			_, err := s.Get(ctx, "damaged/a", opts)
			require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
			_, err = s.List(ctx, "damaged", opts)
			require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
			require.ErrorContains(t, err, `"damaged/a"`, "a list says which key it is")
		}
		_, _, err := s.AtomicPut(ctx, "damaged/a", nil, &valkeyrie.KVPair{LastIndex: 1}, nil)
		require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
		got, err := redis.String(do(t, c, "GET", "damaged/a"), nil)
		require.NoError(t, err)
		assert.Equal(t, damaged, got, "it is left as it is")
		require.NoError(t, s.Put(ctx, "damaged/a", nil, nil))
		require.NoError(t, s.Delete(ctx, "damaged/a"))
	}
}

func TestKeysOfOtherTypesAreLeftAlone(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.Redis(t).Endpoints
	c, s := raw(t, endpoints[0]), open(t, endpoints, nil, nil)
	do(t, c, "RPUSH", "types/list", "x")
	do(t, c, "HSET", "types/hash", "f", "x")
	do(t, c, "SADD", "types/set", "x")
	require.NoError(t, s.Put(ctx, "types/ours", []byte("v"), nil))
	for _, opts := range []*valkeyrie.ReadOptions{nil, {KeysOnly: true}} {
		pairs, err := s.List(ctx, "types", opts)
		require.NoError(t, err)
		require.Len(t, pairs, 1)
		assert.Equal(t, "types/ours", pairs[0].Key)
	}
	for _, key := range []string{"types/list", "types/hash", "types/set"} {
		_, err := s.Get(ctx, key, nil)
		require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
		require.ErrorContains(t, err, "not a string")
		_, err = s.Exists(ctx, key, nil)
		require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
		_, _, err = s.AtomicPut(ctx, key, nil, nil, nil)
		require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
		_, _, err = s.AtomicPut(ctx, key, nil, &valkeyrie.KVPair{LastIndex: 1}, nil)
		require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
		l, err := s.NewLock(ctx, key, nil)
		require.NoError(t, err)
		_, err = l.TryLock(ctx)
		require.ErrorIs(t, err, valkeyrie.ErrLockHeld)
	}
	states, err := s.WatchTree(ctx, "types", nil)
	require.NoError(t, err)
	assert.Len(t, <-states, 1)
	require.NoError(t, s.DeleteTree(ctx, "types"))
	n, err := redis.Int(do(t, c, "EXISTS", "types/list", "types/hash", "types/set"), nil)
	require.NoError(t, err)
	assert.Equal(t, 3, n, "a tree is deleted without what was never listed")
	require.ErrorIs(t, s.DeleteTree(ctx, "types"), valkeyrie.ErrKeyNotFound)

	require.NoError(t, s.Put(ctx, "types/list", []byte("v"), nil), "who names a key means it")
	require.NoError(t, s.Delete(ctx, "types/hash"))
}

func TestPlainStrings(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.Redis(t).Endpoints
	c, s := raw(t, endpoints[0]), open(t, endpoints, nil, &Options{PlainStrings: true})
	for _, value := range []string{"text", "", "\x00\xff", magic + "not a header"} {
		require.NoError(t, s.Put(ctx, "plain/a", []byte(value), nil))
		stored, err := redis.Bytes(do(t, c, "GET", "plain/a"), nil)
		require.NoError(t, err)
		assert.Equal(t, hasMagic([]byte(value)), string(stored) != value, "as it is, unless it could be taken for a header")
		for _, reader := range []valkeyrie.Store{s, open(t, endpoints, nil, nil)} {
			p, err := reader.Get(ctx, "plain/a", nil)
			require.NoError(t, err)
			assert.Equal(t, value, string(p.Value))
		}
		p, err := s.Get(ctx, "plain/a", nil)
		require.NoError(t, err)
		_, p2, err := s.AtomicPut(ctx, "plain/a", []byte("next"), p, nil)
		require.NoError(t, err)
		got, err := s.Get(ctx, "plain/a", nil)
		require.NoError(t, err)
		assert.Equal(t, got.LastIndex, p2.LastIndex)
		_, _, err = s.AtomicPut(ctx, "plain/a", nil, p, nil)
		require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
	}
	l, err := s.NewLock(ctx, "plain/lock", &valkeyrie.LockOptions{Value: []byte("holder")})
	require.NoError(t, err)
	_, err = l.Lock(ctx)
	require.NoError(t, err)
	p, err := s.Get(ctx, "plain/lock", nil)
	require.NoError(t, err)
	assert.Equal(t, "holder", string(p.Value))
	require.NoError(t, l.Unlock(ctx))
}
