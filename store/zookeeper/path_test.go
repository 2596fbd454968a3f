package zookeeper

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keyOf is the reverse of pathOf.
func keyOf(path string) (string, bool) {
	segments := strings.Split(path[1:], "/")
	for i, name := range segments {
		segment, ok := unescape(name, i == 0)
		if !ok {
			return "", false
		}
		segments[i] = segment
	}
	return strings.Join(segments, "/"), true
}

func TestPathsAreThoseOfTheKeysWhereZooKeeperPermitsIt(t *testing.T) {
	for _, key := range []string{"a", "a/b", "a%2Fb/%", "ä ö/鍵", "zookeeper2", "a/zookeeper", ".valkeyriex", "...", "\u00a0", "\uf900", "\uffef"} {
		assert.Equal(t, "/"+key, pathOf(key))
	}
}

func TestPathsThatZooKeeperRefusesAreWrittenInAnotherWay(t *testing.T) {
	for key, path := range map[string]string{
		"zookeeper":            "/.valkeyrie%zookeeper",
		"zookeeper/a":          "/.valkeyrie%zookeeper/a",
		"a/\U0001f389 50%":     "/a/.valkeyrie%%F0%9F%8E%89 50%25",
		"\ufffd/b":             "/.valkeyrie%%EF%BF%BD/b",
		"a/.valkeyrie%41":      "/a/.valkeyrie%.valkeyrie%2541",
		"x/\ue000/y/\uffff":    "/x/.valkeyrie%%EE%80%80/y/.valkeyrie%%EF%BF%BF",
		"p/\U0010ffff\uf8ff/q": "/p/.valkeyrie%%F4%8F%BF%BF%EF%A3%BF/q",
	} {
		assert.Equal(t, path, pathOf(key), "%q", key)
		back, ok := keyOf(path)
		assert.True(t, ok)
		assert.Equal(t, key, back)
	}
}

func TestNamesThatAreNoSegmentOfAKey(t *testing.T) {
	for _, path := range []string{"/zookeeper", "/zookeeper/quota", "/a/.valkeyrie", "/a/.valkeyrie/lock", "/.valkeyrie%plain",
		"/.valkeyrie%", "/.valkeyrie%%4", "/.valkeyrie%%FF", "/a/.valkeyrie%%F0%9F", "/.valkeyrie%%zz", "/.valkeyrie%%f0%9f%8e%89", "/a/.valkeyrie%zookeeper"} {
		_, ok := keyOf(path)
		assert.False(t, ok, path)
	}
}

func TestParentsAndChildren(t *testing.T) {
	assert.Equal(t, "/", parent("/a"))
	assert.Equal(t, "/a", parent("/a/b"))
	assert.Equal(t, "/a", child("/", "a"))
	assert.Equal(t, "/a/b", child("/a", "b"))
	assert.Equal(t, "/", dirOf(""))
	assert.Equal(t, "/a/b", dirOf("a/b/"))
}

func FuzzPaths(f *testing.F) {
	for _, key := range []string{"a/b", "zookeeper", "\U0001f389", ".valkeyrie%", "%", "\uffff%", ".valkeyrie%%FF", ".valkeyrie%%F0%9F"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		// Anything may be on a server: each key has one path.
		if found, ok := keyOf("/" + key); ok && strings.IndexFunc(key, refused) < 0 {
			require.Equal(t, "/"+key, pathOf(found))
		}
		if !utf8.ValidString(key) || key == "" || strings.Contains("/"+key+"/", "/.valkeyrie/") {
			t.Skip()
		}
		path := pathOf(key)
		back, ok := keyOf(path)
		require.True(t, ok, "%q is written as %q", key, path)
		require.Equal(t, key, back)
		for _, r := range path {
			require.False(t, refused(r), "%q is written as %q", key, path)
		}
	})
}
