package testutils

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// listChecks are the sentences about reads and deletes of many keys;
// lists_walk.go holds the functions of the larger ones.
var listChecks = []check{
	{"Get, Delete, DeleteTree and List of nothing are ErrKeyNotFound, Exists and Walk are not", listsNothing},
	{"errors name the backend, the method and the key", listsErrors},
	{"List of a key without children is empty and no error", listsKeyWithoutChildren},
	{"List returns all depths, sorted in byte order, without the directory's own key", listsSorted},
	{"Walk yields what List returns", listsWalk},
	{"Walk can be broken off, and the store used inside it", listsWalkBreak},
	{"Walk yields what existed from start to end exactly once, whatever is written meanwhile", listsWalkWrites},
	{"DeleteTree removes all that is below and nothing else", listsDeleteTree},
	{"a write that returned is seen by every read of every store", listsLinearizable},
	{"AllowStale permits a late answer, not a wrong one", listsStale},
	{"a large directory is listed, walked and removed whole", listsLarge},
}

func listsNothing(e *env) {
	for _, key := range []string{e.dir, e.key("a"), e.key("a/b/c")} {
		e.absent(e.kv, key)
		e.refused(e.kv.Delete(e.ctx, key), "Delete", key, valkeyrie.ErrKeyNotFound)
		e.refused(e.kv.DeleteTree(e.ctx, key), "DeleteTree", key, valkeyrie.ErrKeyNotFound)
		listed, err := e.kv.List(e.ctx, key, nil)
		e.refused(err, "List", key, valkeyrie.ErrKeyNotFound)
		require.Nil(e, listed)
		walked, err := collect(e.kv.Walk(e.ctx, key, nil))
		require.NoError(e, err)
		require.Empty(e, walked)
	}
	// Once it was there, and is deleted, nothing is left.
	key := e.key("a/b/c")
	e.put(key, "v")
	require.NoError(e, e.kv.Delete(e.ctx, key))
	e.refused(e.kv.Delete(e.ctx, key), "Delete", key, valkeyrie.ErrKeyNotFound)
	e.absent(e.kv, key)
	e.put(key, "v")
	require.NoError(e, e.kv.DeleteTree(e.ctx, e.dir))
	e.refused(e.kv.DeleteTree(e.ctx, e.dir), "DeleteTree", e.dir, valkeyrie.ErrKeyNotFound)
	e.absent(e.kv, key)
}

func listsErrors(e *env) {
	key := "/" + e.dir + "//missing key/" // OpError.Key is what the caller gave
	p := &pair{LastIndex: 1}
	for _, c := range plainCalls() {
		got, err := c.run(e.ctx, e.kv, key, p)
		switch {
		case c.op == "Put" || c.op == "Exists" || c.op == "Walk" || c.how == " to create":
			require.NoError(e, err, "%s", c)
			if c.op != "Put" && c.op != "AtomicPut" {
				require.Empty(e, got, "%s", c)
			}
			if c.op == "Put" || c.op == "AtomicPut" {
				require.NoError(e, e.kv.Delete(e.ctx, key))
			}
			continue
		}
		e.refused(err, c.op, key, valkeyrie.ErrKeyNotFound)
		require.Zero(e, got, "%s", c)
		for _, part := range []string{e.h.Backend, c.op, "missing key", valkeyrie.ErrKeyNotFound.Error()} {
			require.Contains(e, err.Error(), part)
		}
		require.NotContains(e, err.Error(), "\n", "an error is one line")
	}
}

func listsKeyWithoutChildren(e *env) {
	key := e.key("k")
	e.put(key, "v")
	for _, opts := range []*valkeyrie.ReadOptions{nil, {}, {KeysOnly: true}} {
		listed, err := e.kv.List(e.ctx, key, opts)
		require.NoError(e, err)
		require.NotNil(e, listed)
		require.Empty(e, listed)
	}
	e.refused(e.kv.DeleteTree(e.ctx, key), "DeleteTree", key, valkeyrie.ErrKeyNotFound)
	require.Equal(e, "v", string(e.get(key).Value))
	e.put(e.key("empty"), "")
	listed, err := e.kv.List(e.ctx, e.key("empty"), nil)
	require.NoError(e, err, "a key with an empty value is a key")
	require.Empty(e, listed)
	if e.h.NoChildrenOfValues {
		return
	}
	e.put(key+"/child", "")
	require.Equal(e, []string{key + "/child"}, e.list(e.kv, key))
	require.NoError(e, e.kv.DeleteTree(e.ctx, key))
	listed, err = e.kv.List(e.ctx, key, nil)
	require.NoError(e, err)
	require.Empty(e, listed)
	require.NoError(e, e.kv.Delete(e.ctx, key))
	_, err = e.kv.List(e.ctx, key, nil)
	e.refused(err, "List", key, valkeyrie.ErrKeyNotFound)
}

// tree returns keys at many depths whose order in bytes is not the order of a
// depth-first walk: "/" sorts after " ", "-" and ".", and before digits.
func (e *env) tree() []string {
	keys := []string{
		"a", "a/b", "a/b/c/d/e/f", "a/é", "a b", "a-b", "a-b/c", "a.b", "a0", "A", "Z", "b/10", "b/2", "b/2/x", "b/2-x", "b/2 x", "é", "é/ü", "🎉", "\uffff", "~",
	}
	if e.h.NoChildrenOfValues {
		keys = slices.DeleteFunc(keys, func(key string) bool {
			return slices.ContainsFunc(keys, func(other string) bool { return strings.HasPrefix(other, key+"/") })
		})
	}
	return e.below("tree", keys)
}

func listsSorted(e *env) {
	dir := e.key("tree")
	keys := e.tree()
	e.putAll(keys, nil)
	if !e.h.NoChildrenOfValues {
		e.put(dir, "the directory's own")
	}
	listed, err := e.kv.List(e.ctx, dir, nil)
	require.NoError(e, err)
	require.Equal(e, sorted(keys), keysOf(listed))
	for _, p := range listed {
		require.Equal(e, p, e.get(p.Key))
	}
	require.Equal(e, sorted(e.below("tree", []string{"b/10", "b/2-x", "b/2 x"})), slices.DeleteFunc(e.list(e.kv, e.key("tree/b")), func(key string) bool {
		return key == e.key("tree/b/2") || key == e.key("tree/b/2/x")
	}))
}

// listsWalkBreak: a walk must not hold a lock or a connection that the store
// needs for the calls in its body, or after it.
func listsDeleteTree(e *env) {
	keys := e.tree()
	outside := []string{e.key("tree2/a"), e.key("tre"), e.key("tree-a"), e.key("tree a/b"), e.key("tree0")}
	if !e.h.NoChildrenOfValues {
		outside = append(outside, e.key("tree"))
	}
	e.putAll(outside, nil)
	e.putAll(keys, nil)
	require.NoError(e, e.kv.DeleteTree(e.ctx, e.key("tree")))
	require.Equal(e, sorted(outside), e.list(e.kv, e.dir))
	for _, key := range keys {
		e.absent(e.kv, key)
	}
	e.refused(e.kv.DeleteTree(e.ctx, e.key("tree")), "DeleteTree", e.key("tree"), valkeyrie.ErrKeyNotFound)
	e.putAll(keys, nil) // and all can be put again
	require.Equal(e, sorted(keys), e.list(e.kv, e.key("tree")))
}

func listsLinearizable(e *env) {
	other := e.open(nil)
	key := e.key("d/k")
	for i := range 100 {
		writer, reader := e.kv, other
		if i%2 == 1 {
			writer, reader = other, e.kv
		}
		want := fmt.Sprint(i)
		require.NoError(e, writer.Put(e.ctx, key, []byte(want), nil))
		p, err := reader.Get(e.ctx, key, nil)
		require.NoError(e, err)
		require.Equal(e, want, string(p.Value), "Get")
		listed, err := reader.List(e.ctx, e.key("d"), nil)
		require.NoError(e, err)
		require.Equal(e, []*pair{p}, listed, "List")
		there, err := reader.Exists(e.ctx, key, nil)
		require.NoError(e, err)
		require.True(e, there)
		require.NoError(e, writer.Delete(e.ctx, key))
		e.absent(reader, key)
		require.Empty(e, e.list(reader, e.key("d")))
	}
}

func listsStale(e *env) {
	other := e.open(nil)
	opts := &valkeyrie.ReadOptions{AllowStale: true}
	key := e.key("d/k")
	e.put(key, "v")
	want := e.get(key)
	e.eventually(patience, "stale reads to see the write", func() bool {
		p, err := other.Get(e.ctx, key, opts)
		if errors.Is(err, valkeyrie.ErrKeyNotFound) {
			return false
		}
		require.NoError(e, err)
		require.Equal(e, want, p)
		there, err := other.Exists(e.ctx, key, opts)
		require.NoError(e, err)
		listed, err := other.List(e.ctx, e.key("d"), opts)
		if !there || errors.Is(err, valkeyrie.ErrKeyNotFound) {
			return false
		}
		require.NoError(e, err)
		require.Equal(e, []*pair{want}, listed)
		walked, err := collect(other.Walk(e.ctx, e.key("d"), opts))
		require.NoError(e, err)
		return len(walked) == 1
	})
	for range 20 { // a refusal is as good as one of a consistent read
		_, err := other.Get(e.ctx, e.key("missing"), opts)
		e.refused(err, "Get", e.key("missing"), valkeyrie.ErrKeyNotFound)
		_, err = other.List(e.ctx, e.key("missing"), opts)
		e.refused(err, "List", e.key("missing"), valkeyrie.ErrKeyNotFound)
	}
}
