package testutils_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/memory"
	"github.com/kvtools/valkeyrie/testutils"
)

// soakDefects are stores that a soak has to see through, and what it says then.
var soakDefects = []struct {
	name string
	says string
	wrap func(s valkeyrie.Store) valkeyrie.Store
}{
	{"a Put in ten is lost", `after the beginning: load \d`, func(s kvstore) kvstore { return &losing{kvstore: s} }},
	{"a revision that is old is taken", "want key has been modified|not linearizable", func(s kvstore) kvstore { return blind{s} }},
	{"a watch falls silent", "the last state did not arrive",
		onStates(func(_ *valkeyrie.KVPair, n int) bool { return n < 5 })},
	{"a watch goes back", "goes back", func(s kvstore) kvstore { return watching{kvstore: s, goBack: true} }},
	{"a lock excludes only within its store", "two holders at a time", apart},
	{"tokens repeat", "was given out after token", onLockers(func(l valkeyrie.Locker, _ lockInfo) valkeyrie.Locker {
		return &repeating{l}
	})},
	{"a watch outlives its context", "has not ended", func(s kvstore) kvstore { return watching{kvstore: s, outlive: true} }},
	{"a key stays for ever", "no key is left", func(s kvstore) kvstore { return &littering{kvstore: s} }},
	{"a goroutine outlives Close", "found unexpected goroutines", func(s kvstore) kvstore { return leaking{s} }},
}

// losing forgets writes.
type losing struct {
	kvstore
	n atomic.Int64
}

func (s *losing) Put(ctx context.Context, key string, value []byte, opts *valkeyrie.WriteOptions) error {
	if strings.Contains(key, "/load/") && s.n.Add(1)%10 == 0 {
		return nil
	}
	return s.kvstore.Put(ctx, key, value, opts)
}

// blind writes whatever the revision.
type blind struct{ kvstore }

func (s blind) AtomicPut(ctx context.Context, key string, value []byte, previous *valkeyrie.KVPair, opts *valkeyrie.WriteOptions) (bool, *valkeyrie.KVPair, error) {
	if previous != nil {
		now, err := s.Get(ctx, key, nil)
		if err != nil {
			return false, nil, err
		}
		previous = now
	}
	return s.kvstore.AtomicPut(ctx, key, value, previous, opts)
}

// littering writes a key of its own beside a lock.
type littering struct {
	kvstore
	once atomic.Bool
}

func (s *littering) NewLock(ctx context.Context, key string, opts *valkeyrie.LockOptions) (valkeyrie.Locker, error) {
	if s.once.CompareAndSwap(false, true) {
		if err := s.Put(ctx, "litter", nil, nil); err != nil {
			return nil, err
		}
	}
	return s.kvstore.NewLock(ctx, key, opts)
}

// leaking leaves a goroutine behind when it is closed.
type leaking struct{ kvstore }

func (s leaking) Close() error {
	go func() { select {} }()
	return s.kvstore.Close()
}

// TestSoak is the soak in a child process of TestSoakOfBroken.
func TestSoak(t *testing.T) {
	name := os.Getenv(variable)
	if name == "" {
		t.Skip("runs in a child process of TestSoakOfBroken; each backend's own tests have a soak")
	}
	wrap := func(s valkeyrie.Store) valkeyrie.Store { return s }
	for _, d := range soakDefects {
		if d.name == name {
			wrap = d.wrap
			testutils.HurryUp()
		}
	}
	testutils.RunSoak(t, testutils.Harness{
		Backend: memory.StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			s, err := memory.New([]string{"shared"}, cfg, nil)
			require.NoError(t, err)
			return wrap(s)
		},
	})
}

// TestSoakOfBroken has short soaks of broken stores, and of one that is sound.
func TestSoakOfBroken(t *testing.T) {
	soak := func(t *testing.T, name string) (string, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.timeout=90s", "-test.run=^TestSoak$")
		cmd.Env = append(os.Environ(), variable+"="+name, "VALKEYRIE_SOAK_SECONDS=4")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Run("a sound store passes", func(t *testing.T) {
		t.Parallel()
		out, err := soak(t, sound)
		require.NoError(t, err, out)
		for _, what := range []string{"all calls of the load", "keys of histories, all linearizable", "acquisitions of locks"} {
			require.Contains(t, out, what)
		}
	})
	for _, d := range soakDefects {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			out, err := soak(t, d.name)
			require.Error(t, err, "the soak did not notice:\n%s", out)
			require.IsType(t, &exec.ExitError{}, err)
			require.Regexp(t, d.says, out, "something else failed")
			require.NotContains(t, out, "panic:", out)
		})
	}
}
