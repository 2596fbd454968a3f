package etcdv2

import (
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWirePaths(t *testing.T) {
	for key, path := range map[string]string{
		"a":         "/a",
		"a/b":       "/a/b",
		"a/b/":      "/a/b",
		"":          "/",
		"_a/b":      "/~_a/b",
		"a/_b":      "/a/~_b",
		"~_a":       "/~~_a",
		"~~_/a_b/~": "/~~~_/a_b/~",
		"a_b":       "/a_b",
		"~a":        "/~a",
	} {
		assert.Equal(t, path, wirePath(key), "%q", key)
	}
	key, ours := keyOf("/a/b/.valkeyrie")
	assert.True(t, ours)
	assert.Equal(t, "a/b", key)
	for _, path := range []string{"/_a", "/a/_b/c", "/_a/.valkeyrie"} {
		_, ours := keyOf(path)
		assert.False(t, ours, "%q is hidden in lists, so it must be in watches", path)
	}
}

func FuzzKeys(f *testing.F) {
	for _, seed := range []string{"a/b", "_a", "~_a/~~_b", "a_/~b_", "~", "__", "a/.valkeyriex"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		// Anything may be on a server: a key is at one path, or where its value is if
		// that is a directory.
		if found, ours := keyOf("/" + key); ours && path.Clean("/"+key) == "/"+key { // as etcd makes all paths
			require.Contains(t, []string{wirePath(found), wirePath(found) + ownValue}, "/"+key)
		}
		for _, s := range strings.Split(key, "/") {
			if s == "" || s == ".valkeyrie" {
				t.Skip("no key")
			}
		}
		stored := wirePath(key)
		require.NotContains(t, stored, "/_", "etcd hides it")
		back, ours := keyOf(stored)
		require.True(t, ours)
		require.Equal(t, key, back)
		back, ours = keyOf(stored + ownValue)
		require.True(t, ours)
		require.Equal(t, key, back)
	})
}

func TestStoredValues(t *testing.T) {
	assert.Equal(t, "text ünd 鍵\x00", content{value: []byte("text ünd 鍵\x00")}.encode(), "text is stored as it is")
	assert.Equal(t, "", content{}.encode())
	assert.Equal(t, "!valkeyrie:::b:_w", content{value: []byte{0xff}}.encode())
	assert.Equal(t, "!valkeyrie:::t:!valkeyrie:x", content{value: []byte("!valkeyrie:x")}.encode())
	assert.Equal(t, "!valkeyrie:8000000000000001:me:t:v", content{value: []byte("v"), revision: ownRevision | 1, owner: "me"}.encode())
	for _, others := range []string{
		"!valkeyrie:", "!valkeyrie:::", "!valkeyrie:::t", "!valkeyrie:::x:v", "!valkeyrie:::b:=", "!valkeyrie:1::t:v",
		"!valkeyrie:nonsense::t:v", "!valkeyrie:80000000000000011::t:v", "!valkeyrie:08000000000000001::t:v",
		"!valkeyrie:800000000000000A::t:v", "!valkeyrie:::b:_x", "!valkeyrie:::b:_\nw", "!valkeyrie:::b:dGV4dA", "!valkeyrie:::t:text",
	} {
		assert.Equal(t, content{value: []byte(others)}, decode(others), "what another tool wrote is read as it is")
	}
}

func FuzzValues(f *testing.F) {
	for _, seed := range []string{"", "text", "\xff", "!valkeyrie:", "!valkeyrie:8000000000000001:o:t:v", "!valkeyrie:::b:_w"} {
		f.Add([]byte(seed), uint64(0), false)
		f.Add([]byte(seed), uint64(7), true)
	}
	f.Fuzz(func(t *testing.T, value []byte, revision uint64, locked bool) {
		// Anything may be on a server: what is not as encode writes it is a value of
		// another tool, all of it.
		if foreign := decode(string(value)); string(foreign.value) != string(value) || foreign.revision != 0 || foreign.owner != "" {
			require.Equal(t, string(value), foreign.encode())
		}
		c := content{value: value}
		if revision != 0 {
			c.revision = revision | ownRevision
		}
		if locked {
			c.owner = "OWNER"
		}
		stored := c.encode()
		require.True(t, utf8.ValidString(stored), "JSON takes nothing else")
		got := decode(stored)
		require.NotNil(t, got.value)
		require.Equal(t, string(value), string(got.value))
		require.Equal(t, c.revision, got.revision)
		require.Equal(t, c.owner, got.owner)
	})
}
