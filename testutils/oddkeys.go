package testutils

import (
	"fmt"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// oddSegments are legal segments that a server, a client or a URL could take
// for something else.
func oddSegments() []string {
	return []string{
		// white space, and characters that are not control characters but look like none
		" ", "  ", " lead", "trail ", "a b", "a  b", "\u00a0", "\u200b", "\u2028", "\ufeff",
		// URLs and forms
		"%", "%2F", "%2f", "a%2Fb", "%00", "%25", "%%", "%zz", "?", "?a=b", "a?b", "#", "a#b", "&", "a&b", "=", "a=b", ";", "+", "a+b", "http:",
		// patterns, for servers that match by them
		"*", "a*", "**", "[", "]", "[a]", "[^a]", "[a-z]", "^", "$", "{x}", "{", "}", "{}", "(", ")", "|",
		// quotes and escapes
		"\\", "\\\\", "a\\b", "\\x00", "\\u0000", "'", "\"", "`", "~", "~0", "~1", "<", ">", "<a>", "!", "@", ",", ":", "a:b", "::",
		// segments that begin like special ones, or are such to other tools
		"...", "....", "..a", "a..", "a.", ".a", ".hidden", ".valkeyriex", "x.valkeyrie", ".Valkeyrie", "valkeyrie", "_", "_x", "__x__", "-", "--x", "0", "00", "-1", "nil", "true", "zookeeper",
		// more than ASCII
		"é", "ä ö", "鍵", "ключ", "שלום", "🎉", "👩‍👩‍👧", "\ufffd", "\ue000", "\uffff", "\U0010ffff",
	}
}

// fewOdd are those that most often go wrong, for the dearer checks.
func fewOdd() []string {
	return []string{" ", "a b", "%2F", "%", "?", "#", "*", "a*", "[a]", "\\", "+", "&=;", ":", "{x}", "'\"", "~", "...", "鍵", "🎉", "\ufffd"}
}

// below returns the keys of segments in a directory.
func (e *env) below(dir string, segments []string) []string {
	keys := make([]string, 0, len(segments))
	for _, s := range segments {
		keys = append(keys, e.key(dir+"/"+s))
	}
	return keys
}

func keysOdd(e *env) {
	keys := e.below("odd", oddSegments())
	e.putAll(keys, nil)
	listed, err := e.kv.List(e.ctx, e.key("odd"), nil)
	require.NoError(e, err)
	require.Equal(e, sorted(keys), keysOf(listed))
	for _, p := range listed {
		require.Equal(e, p.Key, string(p.Value), "the values of two keys were mixed up")
		require.Equal(e, p, e.get(p.Key))
	}
	require.Equal(e, sorted(keys), e.list(e.kv, e.key("odd")))
	e.each(keys, func(key string) error {
		there, err := e.kv.Exists(e.ctx, key, nil)
		if err != nil || !there {
			return fmt.Errorf("exists: %v, %w", there, err)
		}
		p, err := e.kv.Get(e.ctx, key, nil)
		if err != nil {
			return err
		}
		ok, q, err := e.kv.AtomicPut(e.ctx, key, []byte("2"), p, nil)
		if err != nil || !ok || q.Key != key {
			return fmt.Errorf("AtomicPut: %v %v %w", ok, q, err)
		}
		return nil
	})
	for i, key := range keys { // one by one: each must take itself away and nothing else
		if i%2 == 0 {
			require.NoError(e, e.kv.Delete(e.ctx, key), "%q", key)
		} else {
			_, err := e.kv.AtomicDelete(e.ctx, key, e.get(key))
			require.NoError(e, err, "%q", key)
		}
		e.absent(e.kv, key)
		_, _, err := e.kv.AtomicPut(e.ctx, key, nil, &pair{LastIndex: 1}, nil)
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyNotFound)
	}
	require.Empty(e, e.list(e.kv, e.key("odd")))
}

func keysOddDirectories(e *env) {
	dirs := e.below("dirs", oddSegments())
	left := make([]string, 0, len(dirs))
	for _, dir := range dirs {
		left = append(left, dir+"/child")
	}
	e.putAll(left, nil)
	slices.Sort(left)
	require.Equal(e, left, e.list(e.kv, e.key("dirs")))
	for _, dir := range dirs {
		child := dir + "/child"
		require.Equal(e, []string{child}, e.list(e.kv, dir), "%q", dir)
		require.NoError(e, e.kv.DeleteTree(e.ctx, dir), "%q", dir)
		left = slices.DeleteFunc(left, func(key string) bool { return key == child })
		walked, err := collect(e.kv.Walk(e.ctx, e.key("dirs"), nil))
		require.NoError(e, err)
		require.Equal(e, left, sorted(keysOf(walked)), "after DeleteTree of %q", dir)
		e.absent(e.kv, child)
	}
}

func keysOddLasting(e *env) {
	dirs := e.below("odd", fewOdd())
	tree, err := e.kv.WatchTree(e.ctx, e.key("odd"), nil)
	require.NoError(e, err)
	require.Empty(e, receive(e, tree, "the empty directory"))
	for i, dir := range dirs {
		key := dir + "/" + fewOdd()[len(dirs)-1-i]
		one, err := e.kv.Watch(e.ctx, key, nil)
		require.NoError(e, err)
		require.Nil(e, receive(e, one, "state before").Value)
		below, err := e.kv.WatchTree(e.ctx, dir, nil)
		require.NoError(e, err)
		require.Empty(e, receive(e, below, "state before"))

		e.put(key, "v")
		require.Equal(e, e.get(key), receive(e, one, "Watch of "+key))
		require.Equal(e, []string{key}, keysOf(receive(e, below, "WatchTree of "+dir)))
		require.NoError(e, e.kv.Delete(e.ctx, key))
		p := receive(e, one, "Watch of deleted "+key)
		require.Nil(e, p.Value)
		require.Equal(e, key, p.Key)
		require.Empty(e, receive(e, below, "WatchTree of emptied "+dir))

		l, err := e.kv.NewLock(e.ctx, key, &valkeyrie.LockOptions{Value: []byte(key)})
		require.NoError(e, err)
		_, err = l.TryLock(e.ctx)
		require.NoError(e, err, "TryLock of %q", key)
		require.Equal(e, key, string(e.get(key).Value))
		require.NoError(e, l.Unlock(e.ctx))
		e.absent(e.kv, key)
		e.put(key, "stays")
	}
	e.eventually(patience, "the state of all odd keys", func() bool {
		return len(receive(e, tree, "the directory of odd keys")) == len(dirs)
	})
}

func keysGlob(e *env) {
	for pattern, match := range map[string]string{
		"a*": "ab", "?": "x", "[bc]": "b", "[^b]": "c", "q\\*": "q*", "d.*": "dd", "%": "y", "_": "z", "e%": "ef", "{g,h}": "g", "**": "i",
	} {
		pattern, match := e.key(pattern), e.key(match)
		e.put(match+"/child", "v")
		if !e.h.NoChildrenOfValues {
			e.put(match, "v")
		}
		before := e.list(e.kv, e.dir)
		require.Empty(e, e.list(e.kv, pattern), "%q lists what it matches", pattern)
		e.absent(e.kv, pattern)
		e.refused(e.kv.DeleteTree(e.ctx, pattern), "DeleteTree", pattern, valkeyrie.ErrKeyNotFound)
		e.refused(e.kv.Delete(e.ctx, pattern), "Delete", pattern, valkeyrie.ErrKeyNotFound)

		e.put(pattern+"/child", "v")
		require.Equal(e, []string{pattern + "/child"}, e.list(e.kv, pattern))
		require.NoError(e, e.kv.DeleteTree(e.ctx, pattern))
		require.Equal(e, before, e.list(e.kv, e.dir), "DeleteTree of %q took what it matches", pattern)
	}
}

func keysExact(e *env) {
	segments := []string{
		"key", "Key", "KEY", "ß", "ss", "SS", "ı", "i", "I", "İ",
		"\u00e9", "e\u0301", // composed and decomposed
		"\u212b", "\u00c5", "A\u030a", // Ångström, Å, A with a ring
		"\ufb01", "fi", // ligature
		"a", "a ", " a", "a\u00a0", "a\u200b",
		"1", "01", "1.0",
	}
	keys := e.below("exact", segments)
	e.putAll(keys, nil)
	require.Equal(e, sorted(keys), e.list(e.kv, e.key("exact")))
	for _, key := range keys {
		require.Equal(e, key, string(e.get(key).Value), "%q", key)
		require.NoError(e, e.kv.Delete(e.ctx, key))
		e.absent(e.kv, key)
	}
	e.put(e.key("Dir/a"), "")
	e.absent(e.kv, e.key("dir/a"))
	require.Empty(e, e.list(e.kv, e.key("dir")))
	e.refused(e.kv.DeleteTree(e.ctx, e.key("dir")), "DeleteTree", e.key("dir"), valkeyrie.ErrKeyNotFound)
}
