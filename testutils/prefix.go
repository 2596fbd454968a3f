package testutils

import (
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// prefixed opens a store below a directory of the check.
func (e *env) prefixed(prefix string) valkeyrie.Store {
	e.Helper()
	return e.open(&valkeyrie.Config{Prefix: e.key(prefix)})
}

// prefixInside goes through everything that returns a key.
func prefixInside(e *env) {
	s := e.prefixed("app")
	ok, p, err := s.AtomicPut(e.ctx, "a/b", []byte("1"), nil, nil)
	require.NoError(e, err)
	require.True(e, ok)
	require.Equal(e, "a/b", p.Key, "AtomicPut")
	got, err := s.Get(e.ctx, "/a//b", nil)
	require.NoError(e, err)
	require.Equal(e, p, got)
	require.Equal(e, []string{"a/b"}, e.list(s, ""), "the root")
	require.Equal(e, []string{"a/b"}, e.list(s, "a"))

	one, err := s.Watch(e.ctx, "a/b", nil)
	require.NoError(e, err)
	require.Equal(e, p, receive(e, one, "Watch"))
	for _, dir := range []string{"", "a"} {
		tree, err := s.WatchTree(e.ctx, dir, nil)
		require.NoError(e, err)
		require.Equal(e, []*pair{p}, receive(e, tree, "WatchTree"))
		ev, err := firstEvent(s.Events(e.ctx, dir, &valkeyrie.WatchOptions{Tree: true}))
		require.NoError(e, err)
		require.Equal(e, valkeyrie.Event{Type: valkeyrie.Put, Pair: p}, ev)
	}
	missing, err := s.Watch(e.ctx, "missing", nil)
	require.NoError(e, err)
	require.Equal(e, "missing", receive(e, missing, "Watch of nothing").Key)

	l, err := s.NewLock(e.ctx, "lock", &valkeyrie.LockOptions{Value: []byte("mine")})
	require.NoError(e, err)
	_, err = l.TryLock(e.ctx)
	require.NoError(e, err)
	require.Equal(e, "mine", string(e.get(e.key("app/lock")).Value), "locks are below the prefix too")
	require.Equal(e, []string{"a/b", "lock"}, e.list(s, ""))
	require.NoError(e, l.Unlock(e.ctx))

	_, err = s.Get(e.ctx, "no/such", nil)
	e.refused(err, "Get", "no/such", valkeyrie.ErrKeyNotFound)
	require.NotContains(e, err.Error(), e.key("app"), "errors name the key as the caller gave it")
	_, err = s.AtomicDelete(e.ctx, "a/b", p)
	require.NoError(e, err)
}

func prefixOutside(e *env) {
	s := e.prefixed("app")
	require.NoError(e, s.Put(e.ctx, "a/b", []byte("1"), nil))
	p := e.get(e.key("app/a/b"))
	require.Equal(e, "1", string(p.Value))
	inside, err := s.Get(e.ctx, "a/b", nil)
	require.NoError(e, err)
	require.Equal(e, inside.LastIndex, p.LastIndex, "one key has one revision")
	require.Equal(e, []string{e.key("app/a/b")}, e.list(e.kv, e.dir))

	e.put(e.key("app/c"), "2")
	require.Equal(e, []string{"a/b", "c"}, e.list(s, ""))
	require.NoError(e, s.DeleteTree(e.ctx, "a"))
	require.Equal(e, []string{e.key("app/c")}, e.list(e.kv, e.dir))

	// The whole key cannot leave the prefix.
	for _, key := range []string{"../c", "..", "a/../../x"} {
		e.refused(s.Put(e.ctx, key, nil, nil), "Put", key, valkeyrie.ErrInvalidKey)
	}
	require.NoError(e, e.kv.DeleteTree(e.ctx, e.key("app")))
	_, err = s.List(e.ctx, "", nil)
	e.refused(err, "List", "", valkeyrie.ErrKeyNotFound)
}

func prefixApart(e *env) {
	// "a" must not see "ab", nor the key "a" itself, which is no part of it.
	prefixes := []string{"a", "ab", "b", "a b", "a*", "A"}
	for _, prefix := range prefixes {
		s := e.prefixed(prefix)
		require.Empty(e, e.list(s, ""), "prefix %q", prefix)
		require.NoError(e, s.Put(e.ctx, "key", []byte(prefix), nil))
	}
	if !e.h.NoChildrenOfValues {
		e.put(e.key("a"), "the key that is called like the prefix")
	}
	for _, prefix := range prefixes {
		s := e.prefixed(prefix)
		require.Equal(e, []string{"key"}, e.list(s, ""), "prefix %q", prefix)
		p, err := s.Get(e.ctx, "key", nil)
		require.NoError(e, err)
		require.Equal(e, prefix, string(p.Value))
		tree, err := s.WatchTree(e.ctx, "", nil)
		require.NoError(e, err)
		require.Equal(e, []*pair{p}, receive(e, tree, "WatchTree of the prefix"))
		require.NoError(e, s.Delete(e.ctx, "key"))
		require.Empty(e, e.list(s, ""), "prefix %q", prefix)
		e.absent(e.kv, e.key(prefix+"/key"))
		e.absent(s, "b/key")
	}
}

func prefixRoot(e *env) {
	s := e.prefixed("app")
	for _, root := range []string{"", "/"} {
		_, err := s.List(e.ctx, root, nil)
		e.refused(err, "List", root, valkeyrie.ErrKeyNotFound)
		walked, err := collect(s.Walk(e.ctx, root, nil))
		require.NoError(e, err)
		require.Empty(e, walked)
		e.refused(s.DeleteTree(e.ctx, root), "DeleteTree", root, valkeyrie.ErrInvalidKey)
		tree, err := s.WatchTree(e.ctx, root, nil)
		require.NoError(e, err)
		state := receive(e, tree, "state of the root")
		require.NotNil(e, state)
		require.Empty(e, state)
	}
	require.NoError(e, s.Put(e.ctx, "k", nil, nil))
	require.Equal(e, []string{"k"}, e.list(s, ""))
	e.refused(s.DeleteTree(e.ctx, ""), "DeleteTree", "", valkeyrie.ErrInvalidKey)
	require.Equal(e, []string{"k"}, e.list(s, ""), "DeleteTree of the root changed nothing")
}

func prefixSlashes(e *env) {
	require.NoError(e, e.prefixed("x/y").Put(e.ctx, "k", []byte("v"), nil))
	for _, prefix := range []string{"x/y/", "x//y", "/x/y//"} {
		s := e.prefixed(prefix)
		require.Equal(e, []string{"k"}, e.list(s, ""), "prefix %q", prefix)
		p, err := s.Get(e.ctx, "k", nil)
		require.NoError(e, err)
		require.Equal(e, "k", p.Key)
	}
}
