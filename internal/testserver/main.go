package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// session is what Main sets up: everything that has to be undone at the end of
// the test binary.
type session struct {
	dir     string   // holds the directories of all servers
	spawner *spawner // starts them
	closing sync.Once

	mu      sync.Mutex
	running map[*Server]struct{}
	shared  map[string]*shared
}

// current is the session of this test binary; nil outside of Main.
var current *session

// Main runs the tests of a package that needs servers, stops the servers, checks
// that no goroutine is left, and exits. It never returns.
func Main(m *testing.M, opts ...goleak.Option) {
	os.Exit(run(m.Run, opts...))
}

// run is Main with a result.
func run(tests func() int, opts ...goleak.Option) int {
	s, err := open()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testserver:", err)
		return 1
	}
	current = s
	// Also when a test calls runtime.Goexit or panics in this goroutine. A panic
	// in another one ends the process: then the kernel kills the servers, and the
	// next run removes the directory.
	defer s.close()
	code := tests()
	s.close()
	if code != 0 {
		return code
	}
	if err := goleak.Find(opts...); err != nil {
		fmt.Fprintln(os.Stderr, "testserver: goroutines left at the end:", err)
		return 1
	}
	return 0
}

// dirPrefix begins the name of a session's directory; the process's id and
// something random follow.
const dirPrefix = "valkeyrie-test-"

// open makes a session.
func open() (*session, error) {
	sweep(os.TempDir())
	dir, err := os.MkdirTemp("", dirPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, err
	}
	return &session{
		dir:     dir,
		spawner: newSpawner(),
		running: make(map[*Server]struct{}),
		shared:  make(map[string]*shared),
	}, nil
}

// close stops all servers and removes what they left. Further calls do nothing.
func (s *session) close() { s.closing.Do(s.shut) }

// shut is the work of close.
func (s *session) shut() {
	s.mu.Lock()
	var all []*Server
	for server := range s.running {
		all = append(all, server)
	}
	s.mu.Unlock()
	for _, server := range all {
		server.close()
	}
	s.spawner.close()
	_ = os.RemoveAll(s.dir)
}

// sweep removes the directories of test binaries that were killed.
func sweep(tmp string) {
	dirs, _ := filepath.Glob(filepath.Join(tmp, dirPrefix+"*"))
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && !alive(n) {
			_ = os.RemoveAll(dir)
		}
	}
}

// shared is something that is started once for all tests of a package.
type shared struct {
	once  sync.Once
	value any
	err   error
}

// share returns what start made the first time it was called for this key.
func share[T any](t testing.TB, key string, start func() (T, error)) T {
	t.Helper()
	s := theSession(t)
	s.mu.Lock()
	sh := s.shared[key]
	if sh == nil {
		sh = new(shared)
		s.shared[key] = sh
	}
	s.mu.Unlock()
	sh.once.Do(func() {
		sh.err = errors.New("a panic ended its start")
		sh.value, sh.err = start()
	})
	if sh.err != nil {
		t.Fatalf("testserver: %s: %v", key, sh.err)
	}
	return sh.value.(T)
}

// group is one server, or several that belong together.
type group interface{ servers() []*Server }

// shareGroup returns the group that the package shares under the key, which is
// started when it is asked for first. prepare makes it, not started, of the path of
// the program that the backend needs.
func shareGroup[T group](t testing.TB, key, backend, program string, prepare func(s *session, path string) (T, error)) T {
	t.Helper()
	path, s := find(t, backend, program), theSession(t)
	return share(t, key, func() (T, error) {
		g, err := prepare(s, path)
		if err != nil {
			return g, err
		}
		return g, launch(g.servers()...)
	})
}

// startGroup starts a group for this test alone.
func startGroup[T group](t testing.TB, backend, program string, prepare func(s *session, path string) (T, error)) T {
	t.Helper()
	path := find(t, backend, program)
	g, err := prepare(theSession(t), path)
	if err != nil {
		t.Fatalf("testserver: %v", err)
	}
	own(t, g.servers()...)
	return g
}

// theSession returns the session, which there must be.
func theSession(t testing.TB) *session {
	t.Helper()
	if current == nil {
		t.Fatal("testserver: this package needs func TestMain(m *testing.M) { testserver.Main(m) }")
	}
	return current
}

// Within returns a context that ends the test's calls in time, and with the test.
func Within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
