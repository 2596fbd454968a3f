package testutils

import (
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// keyChecks are the sentences about keys; directories.go, oddkeys.go and prefix.go
// hold the functions of the later ones.
var keyChecks = []check{
	{"leading, trailing and doubled slashes mean nothing, for every read and write", keysNormaliseCalls},
	{"leading, trailing and doubled slashes mean nothing, for directories", keysNormaliseDirectories},
	{"leading, trailing and doubled slashes mean nothing, for watches and locks", keysNormaliseLasting},
	{"an invalid key is refused by every call, before any change", keysInvalid},
	{"the empty key is refused by every call", keysEmpty},
	{"the empty directory is the root", keysRoot},
	{"a key of 1,024 bytes is legal, one of 1,025 is not", keysLongest},
	{"odd characters come back as they went in, from keys", keysOdd},
	{"odd characters come back as they went in, from directories", keysOddDirectories},
	{"odd characters come back as they went in, from watches and locks", keysOddLasting},
	{"glob characters match nothing but themselves", keysGlob},
	{"keys that differ in case or in normal form of Unicode are different keys", keysExact},
	{"a directory ends at a slash: siblings that begin alike are not below it", keysSiblings},
	{"a key may hold a value and have keys below it", keysParents},
	{"a directory that was never put is not a key", keysImplied},
	{"a directory is gone with its last key", keysImpliedGone},
	{"the library's own keys never appear", keysReserved},
	{"a prefix is never seen from inside", prefixInside},
	{"a prefix is a directory from outside", prefixOutside},
	{"prefixes do not see each other", prefixApart},
	{"the root below a prefix is empty until something is put there", prefixRoot},
	{"a prefix may be written with any slashes", prefixSlashes},
}

// forms are other ways to write the key d/a/b.
func forms(d string) []string {
	return []string{"/" + d + "/a/b", d + "/a/b/", "//" + d + "//a///b//", d + "/a//b", "///" + d + "/a/b///"}
}

func keysNormaliseCalls(e *env) {
	key := e.key("a/b")
	for _, form := range forms(e.dir) {
		e.absent(e.kv, form)
		e.put(form, "1")
		p := e.get(key)
		require.Equal(e, key, p.Key)
		require.Equal(e, "1", string(p.Value))
		require.Equal(e, p, e.get(form), "Get %q", form)
		there, err := e.kv.Exists(e.ctx, form, nil)
		require.NoError(e, err)
		require.True(e, there, "Exists %q", form)

		_, _, err = e.kv.AtomicPut(e.ctx, form, []byte("x"), nil, nil)
		e.refused(err, "AtomicPut", form, valkeyrie.ErrKeyExists)
		_, p, err = e.kv.AtomicPut(e.ctx, form, []byte("2"), p, nil)
		require.NoError(e, err)
		require.Equal(e, key, p.Key, "AtomicPut %q", form)
		require.Equal(e, p, e.get(key))

		_, err = e.kv.AtomicDelete(e.ctx, form, p)
		require.NoError(e, err)
		e.absent(e.kv, key)
		e.put(key, "3")
		require.NoError(e, e.kv.Delete(e.ctx, form))
		e.absent(e.kv, key)
		e.refused(e.kv.Delete(e.ctx, form), "Delete", form, valkeyrie.ErrKeyNotFound)
	}
}

func keysNormaliseDirectories(e *env) {
	for _, form := range forms(e.dir) {
		want := []string{e.key("a/b/1"), e.key("a/b/2/3")}
		e.put(want[0], "")
		e.put(form+"/2//3", "")
		require.Equal(e, want, e.list(e.kv, form), "%q", form)
		require.NoError(e, e.kv.DeleteTree(e.ctx, form))
		require.Empty(e, e.list(e.kv, form))
		e.refused(e.kv.DeleteTree(e.ctx, form), "DeleteTree", form, valkeyrie.ErrKeyNotFound)
	}
}

func keysNormaliseLasting(e *env) {
	key := e.key("a/b")
	e.put(key, "1")
	for _, form := range forms(e.dir) {
		ch, err := e.kv.Watch(e.ctx, form, nil)
		require.NoError(e, err)
		require.Equal(e, e.get(key), receive(e, ch, "state of "+form))
		first, err := firstEvent(e.kv.Events(e.ctx, form, nil))
		require.NoError(e, err)
		require.Equal(e, valkeyrie.Event{Type: valkeyrie.Put, Pair: e.get(key)}, first)
		tree, err := e.kv.WatchTree(e.ctx, "//"+e.dir+"//a/", nil)
		require.NoError(e, err)
		require.Equal(e, []string{key}, keysOf(receive(e, tree, "state of the tree")))

		l, err := e.kv.NewLock(e.ctx, "//"+e.dir+"//lock///l//", &valkeyrie.LockOptions{Value: []byte("mine")})
		require.NoError(e, err)
		other, err := e.kv.NewLock(e.ctx, e.key("lock/l"), nil)
		require.NoError(e, err)
		_, err = l.TryLock(e.ctx)
		require.NoError(e, err)
		_, err = other.TryLock(e.ctx)
		require.ErrorIs(e, err, valkeyrie.ErrLockHeld, "it is the same lock")
		require.Equal(e, "mine", string(e.get(e.key("lock/l")).Value))
		require.NoError(e, l.Unlock(e.ctx))
	}
}

// invalidKeys are keys that no call takes, below d where they can be.
func invalidKeys(d string) []string {
	keys := []string{".", "..", "./a", "../a", ".valkeyrie", "/.valkeyrie/", ".valkeyrie/a"}
	for _, segment := range []string{
		".", "..", ".valkeyrie", // segments with a meaning
		"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80", // not UTF-8
		"\x00", "a\x00b", "\t", "a\nb", "\r", "\x1b", "\x1f", "\x7f", "\u0080", "\u0085", "\u009f", // control characters
	} {
		keys = append(keys, d+"/"+segment, d+"/"+segment+"/b", "//"+d+"//"+segment+"//")
	}
	return append(keys, longKey(d, 1025), d+"/"+strings.Repeat("é", 512), "/"+longKey(d, 2000)+"/")
}

func keysInvalid(e *env) {
	e.put(e.key("a"), "a")
	e.put(e.key("b"), "b") // what d/x/../b would become if somebody resolved it
	before, err := e.kv.List(e.ctx, e.dir, nil)
	require.NoError(e, err)
	for _, key := range invalidKeys(e.dir) {
		for _, c := range storeCalls() {
			got, err := c.run(e.ctx, e.kv, key, e.get(e.key("b")))
			e.refused(err, c.op, key, valkeyrie.ErrInvalidKey)
			require.Zero(e, got, "%s %q returned something along with its error", c, key)
		}
	}
	after, err := e.kv.List(e.ctx, e.dir, nil)
	require.NoError(e, err)
	require.Equal(e, before, after, "a refused key changed something")
}

func keysEmpty(e *env) {
	e.put(e.key("a"), "a")
	for _, key := range []string{"", "/", "///"} {
		for _, c := range storeCalls() {
			if c.root {
				continue
			}
			got, err := c.run(e.ctx, e.kv, key, e.get(e.key("a")))
			e.refused(err, c.op, key, valkeyrie.ErrInvalidKey)
			require.Zero(e, got, "%s %q returned something along with its error", c, key)
		}
	}
	require.Equal(e, []string{e.key("a")}, e.list(e.kv, e.dir))
}

// keysRoot may meet keys of other checks in the root, so it looks for its own.
func keysRoot(e *env) {
	key := e.dir
	e.put(key, "at the top")
	for _, root := range []string{"", "/", "///"} {
		listed, err := e.kv.List(e.ctx, root, nil)
		require.NoError(e, err)
		require.Contains(e, keysOf(listed), key, "List %q", root)
		require.True(e, slices.IsSorted(keysOf(listed)), "List %q is not sorted", root)
		walked, err := collect(e.kv.Walk(e.ctx, root, nil))
		require.NoError(e, err)
		require.Contains(e, keysOf(walked), key, "Walk %q", root)
		tree, err := e.kv.WatchTree(e.ctx, root, nil)
		require.NoError(e, err)
		require.Contains(e, keysOf(receive(e, tree, "state of the root")), key, "WatchTree %q", root)
		found := false
		for ev, err := range e.kv.Events(e.ctx, root, &valkeyrie.WatchOptions{Tree: true}) {
			require.NoError(e, err)
			if ev.Type == valkeyrie.Synced {
				break
			}
			found = found || ev.Pair.Key == key
		}
		require.True(e, found, "Events %q", root)
	}
	require.NoError(e, e.kv.Delete(e.ctx, key)) // a shared root is left as it was
}

// longKey returns a key of n bytes below d, in segments short enough for any server.
func longKey(d string, n int) string {
	return (d + strings.Repeat("/segment", n))[:n-1] + "z" // never ends in a slash
}

func keysLongest(e *env) {
	key := longKey(e.dir, 1024)
	require.Len(e, key, 1024)
	written := strings.ReplaceAll("/"+key+"/", "/", "//") // counted in its normal form
	e.put(written, "v")
	p := e.get(key)
	require.Equal(e, key, p.Key)
	require.Equal(e, []string{key}, e.list(e.kv, e.dir))
	_, p, err := e.kv.AtomicPut(e.ctx, key, []byte("w"), p, nil)
	require.NoError(e, err)
	ch, err := e.kv.Watch(e.ctx, key, nil)
	require.NoError(e, err)
	require.Equal(e, p, receive(e, ch, "state of the long key"))

	// As a directory it is legal as well, although nothing can be below it.
	require.Empty(e, e.list(e.kv, key))
	tree, err := e.kv.WatchTree(e.ctx, key, nil)
	require.NoError(e, err)
	require.Empty(e, receive(e, tree, "state of the long directory"))
	e.refused(e.kv.DeleteTree(e.ctx, key), "DeleteTree", key, valkeyrie.ErrKeyNotFound)
	_, err = e.kv.AtomicDelete(e.ctx, key, p)
	require.NoError(e, err)
	e.absent(e.kv, key)

	tooLong := longKey(e.dir, 1025)
	e.refused(e.kv.Put(e.ctx, tooLong, nil, nil), "Put", tooLong, valkeyrie.ErrInvalidKey)
	l, err := e.kv.NewLock(e.ctx, key, nil)
	require.NoError(e, err)
	_, err = l.TryLock(e.ctx)
	require.NoError(e, err, "the longest key can be locked like any other")
	require.NoError(e, l.Unlock(e.ctx))
}
