package store

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

func TestHostPorts(t *testing.T) {
	for in, want := range map[string]string{
		"a": "a:2181", "a:1": "a:1", "127.0.0.1": "127.0.0.1:2181", "b.example:65535": "b.example:65535",
		"::1": "[::1]:2181", "[::1]": "[::1]:2181", "[::1]:5": "[::1]:5", "[fe80::1%eth0]:5": "[fe80::1%eth0]:5",
	} {
		got, err := HostPorts("x", []string{"first", in}, 2181)
		require.NoError(t, err, in)
		assert.Equal(t, []string{"first:2181", want}, got)
	}
	got, err := HostPorts("x", nil, 2181)
	require.NoError(t, err)
	assert.Equal(t, []string{"127.0.0.1:2181"}, got)
	for _, in := range []string{
		"", " ", "/", ":2181", "a:", "a:b", "a:0", "a:99999", "a:-1", "a b", "a b:1", "a:1,b:2", "a:2181/chroot", "a/b:1", "u@a:1",
		"redis://a:1", "http://a:1", "[a", "a]", "[::1", "::1:x:y", "a\n", "a\x00:1",
	} {
		_, err := HostPorts("x", []string{"first", in}, 2181)
		requireBadEndpoint(t, err, in)
	}
}

// requireBadEndpoint checks the error of an endpoint that was refused.
func requireBadEndpoint(t *testing.T, err error, endpoint string) {
	t.Helper()
	var bad *valkeyrie.InvalidConfigError
	require.ErrorAs(t, err, &bad, "%q", endpoint)
	assert.Equal(t, "endpoints", bad.Field)
	assert.Equal(t, "x", bad.Backend)
}

func TestURLs(t *testing.T) {
	for in, want := range map[string]string{
		"h":                       "http://h:8500",
		"127.0.0.1:8501":          "http://127.0.0.1:8501",
		"[::1]:8500":              "http://[::1]:8500",
		"http://h":                "http://h",
		"http://h:80/":            "http://h:80",
		"https://h:80/":           "https://h:80",
		"https://h/behind/proxy/": "https://h/behind/proxy",
	} {
		got, err := URLs("x", []string{in}, HTTP{Port: 8500, Path: true})
		require.NoError(t, err, in)
		require.Len(t, got, 1)
		assert.Equal(t, want, got[0].String())
	}
	for secure, want := range map[bool]string{true: "https://127.0.0.1:8500", false: "http://127.0.0.1:8500"} {
		for _, in := range [][]string{nil, {"127.0.0.1"}} {
			got, err := URLs("x", in, HTTP{Port: 8500, TLS: secure})
			require.NoError(t, err)
			require.Len(t, got, 1)
			assert.Equal(t, want, got[0].String())
		}
	}
	for _, in := range []string{
		"", " ", "/", "h:port", "h:1/path", "ftp://h:1", "unix:///var/run/x.sock", "http://", "http:// ", "http://h:port", "http://a b:1",
		"http://u:p@h:1", "u:p@h:1", "http://h:1?q", "h:1?q", "http://h#f", "http://h:1/path", "http://h:99999", "http://h:0",
	} {
		_, err := URLs("x", []string{"h", in}, HTTP{Port: 8500})
		requireBadEndpoint(t, err, in)
	}
	_, err := URLs("x", []string{"http://h"}, HTTP{Port: 8500, TLS: true})
	requireBadEndpoint(t, err, "no connection without TLS where TLS was asked for")
	assert.ErrorContains(t, err, "Config.TLS")
}
