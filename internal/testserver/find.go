package testserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// find returns the path of a program that a backend's tests need. Without it the
// test is skipped, or fails if VALKEYRIE_TEST_REQUIRE names the backend.
func find(t testing.TB, backend, program string) string {
	t.Helper()
	if testing.Short() {
		missing(t, backend, "go test -short starts no servers")
	}
	path, err := lookup(program)
	if err != nil {
		missing(t, backend, err.Error())
	}
	return path
}

// lookup finds a program: where script/servers puts it, then in PATH.
func lookup(program string) (string, error) {
	dir, err := binDir()
	if err == nil {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return path, nil
		}
	}
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%s is neither in %s nor in PATH: run script/servers install", program, dir)
}

// binDir is where script/servers puts programs.
func binDir() (string, error) {
	dir := os.Getenv("VALKEYRIE_SERVERS")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(cache, "valkeyrie", "servers")
	}
	return filepath.Join(dir, "bin"), nil
}

// missing skips the test, or fails it if the backend is required.
func missing(t testing.TB, backend, reason string) {
	t.Helper()
	if required(backend) {
		t.Fatalf("%s is required by VALKEYRIE_TEST_REQUIRE: %s", backend, reason)
	}
	t.Skipf("no server for %s: %s", backend, reason)
}

// required tells whether VALKEYRIE_TEST_REQUIRE names the backend.
func required(backend string) bool {
	names := list(os.Getenv("VALKEYRIE_TEST_REQUIRE"))
	return slices.Contains(names, "all") || slices.Contains(names, backend)
}

// external returns the addresses of a running server that the environment
// names for a backend; usually none.
func external(backend string) []string {
	return list(os.Getenv("VALKEYRIE_TEST_" + strings.ToUpper(backend)))
}

// list splits a list at its commas.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}
