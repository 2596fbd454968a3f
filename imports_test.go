package valkeyrie_test

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

const module = "github.com/kvtools/valkeyrie"

// dependencies returns what importing each package of this module compiles, by
// the package's path below the module.
func dependencies(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps=false", "-f", `{{.ImportPath}} {{join .Deps " "}}`, "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	all := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		all[strings.TrimPrefix(strings.TrimPrefix(fields[0], module), "/")] = fields[1:]
	}
	require.Contains(t, all, "store/memory")
	return all
}

// foreign keeps what is neither Go's own nor this module's.
func foreign(deps []string) []string {
	return slices.DeleteFunc(slices.Clone(deps), func(dep string) bool {
		host, _, _ := strings.Cut(dep, "/")
		return dep == module || strings.HasPrefix(dep, module+"/") || !strings.Contains(host, ".")
	})
}

// TestLayers holds the direction of imports: root at the bottom, the front above
// it, backends above that, and nothing sideways.
func TestLayers(t *testing.T) {
	ours := func(deps []string) (own []string) {
		for _, dep := range deps {
			if dep == module || strings.HasPrefix(dep, module+"/") {
				own = append(own, strings.TrimPrefix(strings.TrimPrefix(dep, module), "/"))
			}
		}
		return own
	}
	for name, deps := range dependencies(t) {
		switch {
		case name == "":
			assert.Empty(t, ours(deps), "the root package imports nothing of this module")
		case name == "store", name == "leadership":
			assert.Equal(t, []string{""}, ours(deps), "%s imports the root alone", name)
		case name == "testutils":
			for _, dep := range ours(deps) {
				assert.False(t, strings.HasPrefix(dep, "store"), "testutils imports %s: a backend's tests would compile it", dep)
			}
		case path.Dir(name) == "store":
			allowed := []string{"", "store"}
			if name == "store/memory" || name == "store/boltdb" {
				allowed = append(allowed, "internal/local")
			}
			assert.Subset(t, allowed, ours(deps), "%s imports the root and the front, and no other backend", name)
		}
	}
}

// clients are the modules of servers' clients, by the backend that may use them.
var clients = map[string][]string{
	"store/boltdb":    {"go.etcd.io/bbolt"},
	"store/consul":    {"github.com/hashicorp/"},
	"store/dynamodb":  {"github.com/aws/"},
	"store/etcdv2":    {"go.etcd.io/etcd/client/v2"},
	"store/etcdv3":    {"go.etcd.io/etcd/client/v3", "google.golang.org/grpc"},
	"store/redis":     {"github.com/gomodule/redigo", "github.com/mna/redisc"},
	"store/zookeeper": {"github.com/go-zookeeper/"},
}

// TestTheErrorForAMissingImportKnowsEveryBackend, and so does the package documentation.
func TestTheErrorForAMissingImportKnowsEveryBackend(t *testing.T) {
	doc, err := os.ReadFile("valkeyrie.go")
	require.NoError(t, err)
	doc, _, _ = bytes.Cut(doc, []byte("\npackage "))
	for name := range dependencies(t) {
		if path.Dir(name) != "store" {
			continue
		}
		unknown := &valkeyrie.UnknownBackendError{Name: path.Base(name)}
		assert.Contains(t, unknown.Error(), `import _ "`+module+"/"+name+`"`)
		assert.Contains(t, string(doc), `"`+path.Base(name)+`"`)
	}
}

// TestABackendCompilesNoOtherClient: who imports one backend pays for its client.
func TestABackendCompilesNoOtherClient(t *testing.T) {
	all := dependencies(t)
	for _, name := range []string{"", "store", "store/memory", "internal/local", "leadership"} {
		assert.Empty(t, foreign(all[name]), "%q needs Go's own packages alone", name)
	}
	for name, deps := range all {
		if path.Dir(name) != "store" && name != "testutils" {
			continue
		}
		for owner, prefixes := range clients {
			if owner == name {
				continue
			}
			for _, prefix := range prefixes {
				assert.Empty(t, slices.DeleteFunc(slices.Clone(deps), func(dep string) bool {
					return !strings.HasPrefix(dep, prefix)
				}), "%s compiles the client of %s", name, owner)
			}
		}
	}
}
