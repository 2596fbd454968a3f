package testutils

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

func keysSiblings(e *env) {
	foo := e.key("foo")
	siblings := []string{e.key("foobar"), e.key("foobar/a"), e.key("foo-/a"), e.key("foo./a"), e.key("foo0/a"), e.key("foo /a"), e.key("fo/o"), e.key("fooo")}
	if e.h.NoChildrenOfValues {
		siblings = siblings[1:]
	}
	e.putAll(siblings, nil)
	require.Empty(e, e.list(e.kv, foo), "nothing but names that begin alike")
	_, err := e.kv.List(e.ctx, foo, nil)
	e.refused(err, "List", foo, valkeyrie.ErrKeyNotFound)
	e.refused(e.kv.DeleteTree(e.ctx, foo), "DeleteTree", foo, valkeyrie.ErrKeyNotFound)
	e.absent(e.kv, foo)

	below := []string{foo + "/a", foo + "/b/c"}
	e.putAll(below, nil)
	require.Equal(e, below, e.list(e.kv, foo))
	require.NoError(e, e.kv.DeleteTree(e.ctx, foo))
	require.Equal(e, sorted(siblings), e.list(e.kv, e.dir), "DeleteTree of foo took siblings, or left children")
	require.NoError(e, e.kv.Delete(e.ctx, e.key("fooo")))
	require.NotContains(e, e.list(e.kv, e.dir), e.key("fooo"))
}

func keysParents(e *env) {
	parent, child, grandchild := e.key("p"), e.key("p/c"), e.key("p/c/g")
	if e.h.NoChildrenOfValues {
		e.put(parent, "a value")
		e.refused(e.kv.Put(e.ctx, child, nil, nil), "Put", child, valkeyrie.ErrCallNotSupported)
		_, _, err := e.kv.AtomicPut(e.ctx, child, nil, nil, nil)
		e.refused(err, "AtomicPut", child, valkeyrie.ErrCallNotSupported)
		e.put(e.key("q/c"), "a child")
		e.refused(e.kv.Put(e.ctx, e.key("q"), nil, nil), "Put", e.key("q"), valkeyrie.ErrCallNotSupported)
		require.Equal(e, []string{parent, e.key("q/c")}, e.list(e.kv, e.dir), "what was refused left no trace")
		return
	}
	for _, order := range [][]string{{parent, child, grandchild}, {grandchild, child, parent}, {child, parent, grandchild}} {
		for _, key := range order {
			e.put(key, key)
		}
		for _, key := range order {
			require.Equal(e, key, string(e.get(key).Value))
		}
		require.Equal(e, []string{parent, child, grandchild}, e.list(e.kv, e.dir))
		require.Equal(e, []string{child, grandchild}, e.list(e.kv, parent), "without the directory's own key")

		require.NoError(e, e.kv.Delete(e.ctx, child), "a key with keys below it can be deleted")
		e.absent(e.kv, child)
		require.Equal(e, []string{parent, grandchild}, e.list(e.kv, e.dir), "Delete keeps what is below and above")
		e.refused(e.kv.Delete(e.ctx, child), "Delete", child, valkeyrie.ErrKeyNotFound)
		_, p, err := e.kv.AtomicPut(e.ctx, child, []byte("again"), nil, nil)
		require.NoError(e, err, "a deleted parent can be created")
		_, err = e.kv.AtomicDelete(e.ctx, child, p)
		require.NoError(e, err)

		require.NoError(e, e.kv.DeleteTree(e.ctx, parent))
		require.Equal(e, []string{parent}, e.list(e.kv, e.dir), "DeleteTree keeps the directory's own key")
		require.NoError(e, e.kv.Delete(e.ctx, parent))
	}
}

func keysImplied(e *env) {
	deep := e.key("a/b/c")
	e.put(deep, "v")
	for _, dir := range []string{e.dir, e.key("a"), e.key("a/b")} {
		e.absent(e.kv, dir)
		e.refused(e.kv.Delete(e.ctx, dir), "Delete", dir, valkeyrie.ErrKeyNotFound)
		_, err := e.kv.AtomicDelete(e.ctx, dir, e.get(deep))
		e.refused(err, "AtomicDelete", dir, valkeyrie.ErrKeyNotFound)
		_, _, err = e.kv.AtomicPut(e.ctx, dir, nil, e.get(deep), nil)
		e.refused(err, "AtomicPut", dir, valkeyrie.ErrKeyNotFound)
		require.Equal(e, []string{deep}, e.list(e.kv, dir), "directories themselves are not listed")
		ch, err := e.kv.Watch(e.ctx, dir, nil)
		require.NoError(e, err)
		require.Nil(e, receive(e, ch, "state of a directory").Value, "Watch of %q", dir)
	}
	if e.h.NoChildrenOfValues {
		return
	}
	ok, p, err := e.kv.AtomicPut(e.ctx, e.key("a/b"), nil, nil, nil)
	require.NoError(e, err, "a directory that was never put can be created as a key")
	require.True(e, ok)
	require.Equal(e, p, e.get(e.key("a/b")))
	require.Equal(e, []string{e.key("a/b"), deep}, e.list(e.kv, e.dir))
}

// keysImpliedGone: servers with real directories must not leave empty ones that
// are seen, and must be able to put a key where one of them was.
func keysImpliedGone(e *env) {
	dir, deep := e.key("a/b"), e.key("a/b/c")
	remove := map[string]func() error{
		"Delete": func() error { return e.kv.Delete(e.ctx, deep) },
		"AtomicDelete": func() error {
			_, err := e.kv.AtomicDelete(e.ctx, deep, e.get(deep))
			return err
		},
		"DeleteTree":              func() error { return e.kv.DeleteTree(e.ctx, dir) },
		"DeleteTree from the top": func() error { return e.kv.DeleteTree(e.ctx, e.dir) },
	}
	for how, remove := range remove {
		e.put(deep, "v")
		require.NoError(e, remove(), how)
		for _, d := range []string{e.dir, e.key("a"), dir, deep} {
			_, err := e.kv.List(e.ctx, d, nil)
			e.refused(err, "List", d, valkeyrie.ErrKeyNotFound)
			e.absent(e.kv, d)
			e.refused(e.kv.DeleteTree(e.ctx, d), "DeleteTree", d, valkeyrie.ErrKeyNotFound)
		}
		_, p, err := e.kv.AtomicPut(e.ctx, dir, []byte("where the directory was"), nil, nil)
		require.NoError(e, err, "create where a directory was, after %s", how)
		require.Equal(e, p, e.get(dir))
		require.NoError(e, e.kv.Delete(e.ctx, dir))
	}
}

// keysReserved makes the library keep things of its own: a hold, a waiter in
// line for it, and keys with a TTL.
func keysReserved(e *env) {
	lock := e.key("lock")
	require.NoError(e, e.kv.Put(e.ctx, e.key("mortal"), nil, &valkeyrie.WriteOptions{TTL: time.Minute, KeepAlive: true}))
	holder, err := e.kv.NewLock(e.ctx, lock, &valkeyrie.LockOptions{Value: []byte("holder")})
	require.NoError(e, err)
	_, err = holder.Lock(e.ctx)
	require.NoError(e, err)
	waiter, err := e.open(nil).NewLock(e.ctx, lock, nil)
	require.NoError(e, err)
	ctx, cancel := context.WithCancel(e.ctx)
	waited := make(chan error, 1)
	go func() {
		_, err := waiter.Lock(ctx)
		waited <- err
	}()

	want := []string{lock, e.key("mortal")}
	looked := 0
	e.eventually(patience, "several looks while a waiter is in line", func() bool {
		require.Equal(e, want, e.list(e.kv, e.dir), "own keys appear in the directory of a lock")
		require.Empty(e, e.list(e.kv, lock), "own keys appear below the lock")
		looked++
		return looked > 50
	})
	tree, err := e.kv.WatchTree(e.ctx, e.dir, nil)
	require.NoError(e, err)
	require.Equal(e, want, keysOf(receive(e, tree, "state of the directory")))
	root, err := collect(e.kv.Walk(e.ctx, "", &valkeyrie.ReadOptions{KeysOnly: true}))
	require.NoError(e, err)
	for _, key := range keysOf(root) {
		require.False(e, slices.Contains(strings.Split(key, "/"), ".valkeyrie"), "own key in the root: %q", key)
	}

	cancel()
	require.ErrorIs(e, receive(e, waited, "the cancelled waiter"), context.Canceled)
	require.NoError(e, holder.Unlock(e.ctx))
	require.Equal(e, []string{e.key("mortal")}, e.list(e.kv, e.dir), "what is left after the lock")
	e.refused(e.kv.DeleteTree(e.ctx, lock), "DeleteTree", lock, valkeyrie.ErrKeyNotFound)
	require.NoError(e, e.kv.Delete(e.ctx, e.key("mortal")))
	require.Empty(e, e.list(e.kv, e.dir))
}
