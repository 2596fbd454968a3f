package testutils

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

func listsWalk(e *env) {
	keys := e.tree()
	e.putAll(keys, nil)
	listed, err := e.kv.List(e.ctx, e.key("tree"), nil)
	require.NoError(e, err)
	walk := e.kv.Walk(e.ctx, e.key("tree"), nil)
	for range 2 { // each range is a walk of its own
		walked, err := collect(walk)
		require.NoError(e, err)
		slices.SortFunc(walked, func(a, b *pair) int { return strings.Compare(a.Key, b.Key) })
		require.Equal(e, listed, walked)
	}
	e.put(e.key("tree/new"), "")
	walked, err := collect(walk)
	require.NoError(e, err)
	require.Contains(e, keysOf(walked), e.key("tree/new"), "a walk starts when it is ranged over")
}

func listsWalkBreak(e *env) {
	keys := make([]string, 0, 300)
	for i := range 300 {
		keys = append(keys, e.key(fmt.Sprintf("d/%03d", i)))
	}
	e.putAll(keys, nil)
	for range 100 {
		for p, err := range e.kv.Walk(e.ctx, e.key("d"), nil) {
			require.NoError(e, err)
			require.NotNil(e, p)
			break
		}
	}
	large := make([]byte, 50_000) // makes a file grow under an open walk
	n := 0
	for p, err := range e.kv.Walk(e.ctx, e.key("d"), nil) {
		require.NoError(e, err)
		if n++; n > 100 {
			continue
		}
		require.NoError(e, e.kv.Put(e.ctx, e.key(fmt.Sprint("inside/", n)), large, nil))
		require.Equal(e, p, e.get(p.Key))
		switch n % 3 {
		case 0:
			require.NoError(e, e.kv.Delete(e.ctx, p.Key))
		case 1:
			_, err := e.kv.AtomicDelete(e.ctx, p.Key, p)
			require.NoError(e, err)
		case 2:
			_, _, err := e.kv.AtomicPut(e.ctx, p.Key, nil, p, nil)
			require.NoError(e, err)
			_, err = collect(e.kv.Walk(e.ctx, e.key("d"), nil)) // one inside the other
			require.NoError(e, err)
		}
	}
	require.Equal(e, 300, n)
	require.NoError(e, e.kv.DeleteTree(e.ctx, e.dir))
}

func listsWalkWrites(e *env) {
	const n = 500
	keys := make([]string, 0, n)
	for i := range n {
		keys = append(keys, e.key(fmt.Sprintf("d/%03d/k", i)))
	}
	e.putAll(keys, nil)
	other := e.open(nil)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { // overwrites what stays, and adds and removes others between them
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			extra := e.key(fmt.Sprintf("d/%03d/extra", i%n))
			if err := errors.Join(other.Put(e.ctx, extra, nil, nil), other.Put(e.ctx, keys[i%n], nil, nil), other.Delete(e.ctx, extra)); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 10 {
		walked, err := collect(e.kv.Walk(e.ctx, e.key("d"), nil))
		require.NoError(e, err)
		stayed := slices.DeleteFunc(keysOf(walked), func(key string) bool { return strings.HasSuffix(key, "/extra") })
		require.Equal(e, keys, sorted(stayed), "each key that was there all the time is there once")
		listed, err := e.kv.List(e.ctx, e.key("d"), nil)
		require.NoError(e, err)
		require.True(e, slices.IsSorted(keysOf(listed)))
		stayed = slices.DeleteFunc(keysOf(listed), func(key string) bool { return strings.HasSuffix(key, "/extra") })
		require.Equal(e, keys, stayed)
	}
	close(stop)
	require.NoError(e, receive(e, done, "the writer"))
}

func listsLarge(e *env) {
	dir := e.key("large")
	keys := make([]string, 0, e.h.Keys)
	for i := range e.h.Keys {
		keys = append(keys, fmt.Sprintf("%s/%d/%d", dir, i%97, i))
	}
	outside := []string{e.key("larg"), e.key("large-/x"), e.key("large0")}
	e.putAll(outside, nil)
	e.putAll(keys, nil)
	slices.Sort(keys)

	listed, err := e.kv.List(e.ctx, dir, nil)
	require.NoError(e, err)
	require.True(e, slices.Equal(keys, keysOf(listed)), "List returned %d of %d keys, or in another order", len(listed), len(keys))
	for _, p := range listed {
		require.Equal(e, p.Key, string(p.Value), "the values of two keys were mixed up")
	}
	walked, err := collect(e.kv.Walk(e.ctx, dir, nil))
	require.NoError(e, err)
	require.True(e, slices.Equal(keys, sorted(keysOf(walked))), "Walk yielded %d keys for %d, or not each once", len(walked), len(keys))
	bare, err := e.kv.List(e.ctx, dir, &valkeyrie.ReadOptions{KeysOnly: true})
	require.NoError(e, err)
	require.True(e, slices.Equal(keys, keysOf(bare)), "KeysOnly listed %d of %d keys", len(bare), len(keys))
	for i, p := range bare {
		require.Nil(e, p.Value)
		require.Equal(e, listed[i].LastIndex, p.LastIndex)
	}
	part, err := e.kv.List(e.ctx, dir+"/7", nil)
	require.NoError(e, err)
	require.Len(e, part, (e.h.Keys-7+96)/97)

	require.NoError(e, e.kv.DeleteTree(e.ctx, dir))
	require.Equal(e, sorted(outside), e.list(e.kv, e.dir))
	e.refused(e.kv.DeleteTree(e.ctx, dir), "DeleteTree", dir, valkeyrie.ErrKeyNotFound)
}
