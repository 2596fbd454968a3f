package store

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

func TestNormalKey(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "",
		"/":                                   "",
		"///":                                 "",
		"a":                                   "a",
		"/a":                                  "a",
		"a/":                                  "a",
		"//a///b//":                           "a/b",
		"a b/%2F/?#*[\\:+&":                   "a b/%2F/?#*[\\:+&",
		"...":                                 "...",
		".a/b.":                               ".a/b.",
		".valkeyries":                         ".valkeyries",
		"ключ/鍵":                              "ключ/鍵",
		strings.Repeat("a", 1024):             strings.Repeat("a", 1024),
		"/" + strings.Repeat("a", 1024) + "/": strings.Repeat("a", 1024),
	} {
		got, err := normalKey(in)
		require.NoError(t, err, "%q", in)
		assert.Equal(t, want, got)
	}
	for _, in := range []string{
		".", "..", "a/.", "./a", "a/../b", "//..//", ".valkeyrie", "a/.valkeyrie", "a//.valkeyrie/b",
		"a\x00", "\n", "a/\x7f", "\u0085", "é\u009f", "\xff", "a/\xc3\x28", strings.Repeat("a", 1025),
		"/\xff", strings.Repeat("/a", 513) + "/",
	} {
		_, err := normalKey(in)
		assert.ErrorIs(t, err, valkeyrie.ErrInvalidKey, "%q", in)
	}
}

func TestNormalKeyOfANormalKeyDoesNotAllocate(t *testing.T) {
	assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = normalKey("services/web/10.0.0.1:80") }))
}

func FuzzNormalKey(f *testing.F) {
	for _, seed := range []string{"", "/", "a//b", "..", "a/.valkeyrie", "\xff", "\u0085", "ключ"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		key, err := normalKey(in)
		if err != nil {
			require.ErrorIs(t, err, valkeyrie.ErrInvalidKey)
			return
		}
		again, err := normalKey(key)
		require.NoError(t, err)
		require.Equal(t, key, again, "the normal form is its own normal form")
		require.LessOrEqual(t, len(key), maxKey)
		require.True(t, utf8.ValidString(key))
		require.Negative(t, strings.IndexFunc(key, unicode.IsControl))
		if key == "" {
			require.Empty(t, strings.Trim(in, "/"))
			return
		}
		for _, segment := range strings.Split(key, "/") {
			require.NotContains(t, []string{"", ".", "..", Reserved}, segment)
		}
	})
}

func TestPrefix(t *testing.T) {
	for _, c := range []struct {
		prefix string
		slash  bool
		want   string
	}{
		{"", true, ""}, {"a", true, "a/"}, {"a/b/", true, "a/b/"}, {"/", true, "/"}, {"/", false, ""},
		{"/a", true, "/a/"}, {"/a", false, "a/"}, {"//a//b", true, "/a/b/"},
	} {
		assert.Equal(t, c.want, wirePrefix(c.prefix, c.slash), "%q %v", c.prefix, c.slash)
	}
	s := open(t, &scripted{info: Info{LeadingSlash: true}}, &valkeyrie.Config{Prefix: "/app"})
	for wire, want := range map[string]string{
		"/app/a": "a", "/app/a/b": "a/b",
		"/app": "", "/app/": "", "/appa": "", "app/a": "", "/app//a": "", "/app/a/": "", "/app/.valkeyrie/q": "",
		"/app/a/.valkeyrie/q": "",
	} {
		key, ok := s.userKey(wire)
		assert.Equal(t, want != "", ok, wire)
		if ok {
			assert.Equal(t, want, key)
		}
	}
}

// FuzzPrefix: a key goes to the wire and comes back as it was, and nothing else
// that is on the wire comes back as it.
func FuzzPrefix(f *testing.F) {
	for _, prefix := range []string{"", "/", "app", "/app/", "//a//b//", "a/../b", "\xff", "app/.valkeyrie"} {
		f.Add(prefix, "a/b", "app/a/b", true)
		f.Add(prefix, "/app/", "/app/.valkeyrie/lock", false)
		f.Add(prefix, "", "appa", true)
	}
	f.Fuzz(func(t *testing.T, prefix, key, wire string, slash bool) {
		c, err := Settings("x", &valkeyrie.Config{Prefix: prefix})
		var bad *valkeyrie.InvalidConfigError
		if err != nil {
			require.ErrorAs(t, err, &bad)
			require.Equal(t, "Config.Prefix", bad.Field)
			require.ErrorIs(t, err, valkeyrie.ErrInvalidKey)
			return
		}
		s := &front{prefix: wirePrefix(c.Prefix, slash)}
		require.True(t, s.prefix == "" || strings.HasSuffix(s.prefix, "/"))
		require.True(t, slash || !strings.HasPrefix(s.prefix, "/"), "the server does not tell it from one without a slash")
		require.Equal(t, s.prefix, wirePrefix(s.prefix, slash), "the prefix of the wire means itself")

		if back, ours := s.userKey(wire); ours {
			there, normal, err := s.wireKey(back)
			require.NoError(t, err, "what lists show can be named")
			require.Equal(t, wire, there, "no two keys of the wire are the same key")
			require.Equal(t, back, normal)
		}
		there, normal, err := s.wireKey(key)
		if err != nil {
			require.ErrorIs(t, err, valkeyrie.ErrInvalidKey)
			return
		}
		back, ours := s.userKey(there)
		require.True(t, ours)
		require.Equal(t, normal, back)
		dir, _, err := s.wireDir(key)
		require.NoError(t, err)
		require.Equal(t, there+"/", dir, "a directory is what begins with its key and a slash")
		root, _, err := s.wireDir("")
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(there, root), "all is below the root")
	})
}

func TestSettings(t *testing.T) {
	c, err := Settings("x", nil)
	require.NoError(t, err)
	assert.Equal(t, valkeyrie.DefaultConnectionTimeout, c.ConnectionTimeout)
	require.NotNil(t, c.Logger)

	var bad *valkeyrie.InvalidConfigError
	_, err = Settings("x", &valkeyrie.Config{Prefix: "a/../b"})
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "Config.Prefix", bad.Field)
	_, err = Settings("x", &valkeyrie.Config{ConnectionTimeout: -1})
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "Config.ConnectionTimeout", bad.Field)

	type options struct{}
	opts, err := backendOptions[options]("x", &valkeyrie.Config{Backend: &options{}})
	require.NoError(t, err)
	assert.NotNil(t, opts)
	opts, err = backendOptions[options]("x", nil)
	require.NoError(t, err)
	assert.Nil(t, opts)
	_, err = backendOptions[options]("x", &valkeyrie.Config{Backend: options{}})
	require.ErrorAs(t, err, &bad)
	assert.Contains(t, err.Error(), "*store.options", "it names the type that is wanted")
}

func TestOptions(t *testing.T) {
	type options struct {
		Wait time.Duration
		Max  int
		Name string
	}
	filled, err := checkedOptions[options]("x", nil)
	require.NoError(t, err)
	assert.Zero(t, filled)
	given := &options{Wait: 1, Max: 2, Name: "n"}
	filled, err = checkedOptions("x", given)
	require.NoError(t, err)
	assert.Equal(t, *given, filled)
	for field, bad := range map[string]*options{"Options.Wait": {Wait: -time.Second}, "Options.Max": {Max: -1}} {
		_, err := checkedOptions("x", bad)
		var invalid *valkeyrie.InvalidConfigError
		require.ErrorAs(t, err, &invalid)
		assert.Equal(t, field, invalid.Field)
	}
}

func TestRoundUp(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		1: time.Second, time.Second: time.Second, time.Second + 1: 2 * time.Second, 90 * time.Second: 90 * time.Second,
	} {
		assert.Equal(t, want, RoundUp(ttl, time.Second))
	}
	assert.Equal(t, time.Millisecond, RoundUp(time.Nanosecond, time.Millisecond))
	assert.Positive(t, RoundUp(math.MaxInt64, time.Second))
}
