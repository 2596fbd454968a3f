package boltdb_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/boltdb"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		os.Exit(child(role))
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) { testutils.Run(t, harness(t)) }

func TestSoak(t *testing.T) { testutils.RunSoak(t, harness(t)) }

// harness describes a database of the test's own to the suite.
func harness(t testing.TB) testutils.Harness {
	path := filepath.Join(t.TempDir(), "meta.db")
	return testutils.Harness{
		Backend: boltdb.StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			s, err := boltdb.New([]string{path}, cfg, nil)
			require.NoError(t, err)
			return s
		},
	}
}

// open opens a store that is closed at the end of the test at the latest.
func open(t testing.TB, path string, opts *boltdb.Options) valkeyrie.Store {
	t.Helper()
	s, err := boltdb.New([]string{path}, nil, opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() }) // most tests close it themselves
	return s
}

// testContext bounds a test that hangs.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestReopen(t *testing.T) {
	ctx, path := testContext(t), filepath.Join(t.TempDir(), "meta.db")
	s := open(t, path, nil)
	require.NoError(t, s.Put(ctx, "stays", []byte("1"), nil))
	require.NoError(t, s.Put(ctx, "goes", []byte("2"), nil))
	require.NoError(t, s.Put(ctx, "short", []byte("3"), &valkeyrie.WriteOptions{TTL: 50 * time.Millisecond}))
	const long = 1500 * time.Millisecond
	begun := time.Now()
	require.NoError(t, s.Put(ctx, "long", []byte("4"), &valkeyrie.WriteOptions{TTL: long}))
	stays, err := s.Get(ctx, "stays", nil)
	require.NoError(t, err)
	goes, err := s.Get(ctx, "goes", nil)
	require.NoError(t, err)
	require.NoError(t, s.Delete(ctx, "goes"))
	require.NoError(t, s.Close())

	wait := time.NewTimer(60 * time.Millisecond) // the TTL must pass while nobody has the file
	<-wait.C
	s = open(t, path, nil)
	again, err := s.Get(ctx, "stays", nil)
	require.NoError(t, err)
	require.Equal(t, stays, again, "a pair survives with its revision")
	_, err = s.Get(ctx, "short", nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound, "what expired meanwhile is gone")
	list, err := s.List(ctx, "", nil)
	require.NoError(t, err)
	require.Len(t, list, 2)

	_, recreated, err := s.AtomicPut(ctx, "goes", []byte("2"), nil, nil)
	require.NoError(t, err)
	require.NotEqual(t, goes.LastIndex, recreated.LastIndex, "a revision does not come twice")
	require.Greater(t, recreated.LastIndex, goes.LastIndex)

	w, err := s.Watch(ctx, "long", nil)
	require.NoError(t, err)
	require.Equal(t, "4", string((<-w).Value))
	require.Nil(t, (<-w).Value, "a TTL goes on after the file was opened again")
	require.GreaterOrEqual(t, time.Since(begun), long)
	require.Less(t, time.Since(begun), long+time.Second)
}

func TestLockEndsWithItsProcess(t *testing.T) {
	ctx, path := testContext(t), filepath.Join(t.TempDir(), "meta.db")
	first := startChild(t, "lock", path)
	token := first.line(t)
	first.kill(t)

	s := open(t, path, nil)
	ok, err := s.Exists(ctx, "lock", nil)
	require.NoError(t, err)
	require.False(t, ok)
	l, err := s.NewLock(ctx, "lock", nil)
	require.NoError(t, err)
	_, err = l.TryLock(ctx)
	require.NoError(t, err, "the TTL of the dead holder was an hour")
	require.Greater(t, l.Token(), parseToken(t, token))
	require.NoError(t, l.Unlock(ctx))
}

func TestStoresShareAFile(t *testing.T) {
	ctx, dir := testContext(t), t.TempDir()
	path := filepath.Join(dir, "meta.db")
	link, hard := filepath.Join(dir, "link.db"), filepath.Join(dir, "hard.db")
	a := open(t, path, nil)
	require.NoError(t, os.Symlink(path, link))
	require.NoError(t, os.Link(path, hard))

	w, err := a.Watch(ctx, "k", nil)
	require.NoError(t, err)
	require.Nil(t, (<-w).Value)
	relative, err := filepath.Rel(mustGetwd(t), path)
	require.NoError(t, err)
	for _, other := range []string{path, link, hard, relative} {
		b := open(t, other, nil)
		require.NoError(t, b.Put(ctx, "k", []byte(other), nil))
		require.Equal(t, other, string((<-w).Value))
		require.NoError(t, b.Close())
	}

	c := open(t, path, &boltdb.Options{Bucket: "other"})
	_, err = c.Get(ctx, "k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound, "buckets are apart")
	require.NoError(t, c.Put(ctx, "k", nil, nil))

	require.NoError(t, a.Close())
	_, err = a.Get(ctx, "k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrClosed)
	require.NoError(t, c.Put(ctx, "k", []byte("on"), nil), "closing one leaves the others alone")
	require.NoError(t, c.Close())
	require.NoError(t, open(t, path, nil).Close(), "the last one has closed the file")
}

func TestOpenAtTheSameTime(t *testing.T) {
	ctx, path := testContext(t), filepath.Join(t.TempDir(), "meta.db")
	const n = 16
	for range 5 { // closing and opening meet
		errs := make(chan error, n)
		for range n {
			go func() {
				s, err := boltdb.New([]string{path}, nil, nil)
				if err == nil {
					err = s.Put(ctx, "k", nil, nil)
					if e := s.Close(); err == nil {
						err = e
					}
				}
				errs <- err
			}()
		}
		for range n {
			require.NoError(t, <-errs)
		}
	}
}

func mustGetwd(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	return dir
}

// docs/migrating.md says so.
func TestWhatOlderReleasesWroteIsLeftAlone(t *testing.T) {
	ctx, path := testContext(t), filepath.Join(t.TempDir(), "meta.db")
	require.NoError(t, writeOld(path, "shared", "config/limit", "100").Close())

	s := open(t, path, &boltdb.Options{Bucket: "shared"})
	_, err := s.Get(ctx, "config/limit", nil)
	require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
	_, _, err = s.AtomicPut(ctx, "config/limit", nil, nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
	own := open(t, path, &boltdb.Options{Bucket: "own"})
	require.NoError(t, own.Put(ctx, "config/limit", []byte("200"), nil), "a bucket of its own in the same file")
	require.NoError(t, s.Put(ctx, "config/limit", []byte("100"), nil))
	p, err := s.Get(ctx, "config/limit", nil)
	require.NoError(t, err)
	require.Equal(t, "100", string(p.Value))
}
