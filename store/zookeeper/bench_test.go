package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

// BenchmarkStore compares the store with the ZooKeeper client as its
// documentation shows it. Get is Sync and then Get there, as reads of the store are
// linearizable; see BenchmarkStaleGet for those that need not be.
func BenchmarkStore(b *testing.B) {
	endpoints := testserver.ZooKeeper(b).Endpoints
	h := harness(endpoints)
	h.Baseline = func(b testing.TB) testutils.Native { return native(b, endpoints) }
	testutils.Benchmark(b, h)
}

// native is the baseline. What it writes is apart from what the store writes.
func native(b testing.TB, endpoints []string) testutils.Native {
	c := raw(b, endpoints)
	n := nativeClient{c}
	return testutils.Native{
		Get: func(_ context.Context, key string) error {
			if _, err := c.Sync(n.path(key)); err != nil {
				return err
			}
			_, _, err := c.Get(n.path(key))
			return err
		},
		Put: func(_ context.Context, key string, value []byte) error {
			_, err := c.Set(n.path(key), value, -1)
			return err
		},
		CreateUpdate: n.createUpdate,
		List:         func(_ context.Context, dir string) (int, error) { return n.list(n.path(dir)) },
		DeleteTree:   func(_ context.Context, dir string) error { return n.deleteTree(n.path(dir)) },
		NewLock: func(key string) (lock, unlock func(context.Context) error) {
			l := zk.NewLock(c, n.path(key), zk.WorldACL(zk.PermAll))
			return func(context.Context) error { return l.Lock() }, func(context.Context) error { return l.Unlock() }
		},
		Fill: func(_ context.Context, keys []string) error {
			return spread(len(keys), 64, func(i int) error { return n.create(n.path(keys[i]), make([]byte, 100)) })
		},
	}
}

type nativeClient struct{ c *zk.Conn }

func (nativeClient) path(key string) string { return "/native/" + key }

// create creates a node and its parents.
func (n nativeClient) create(path string, value []byte) error {
	for {
		_, err := n.c.Create(path, value, 0, zk.WorldACL(zk.PermAll))
		if !errors.Is(err, zk.ErrNoNode) {
			return err
		}
		if err := n.create(path[:strings.LastIndexByte(path, '/')], nil); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
}

func (n nativeClient) createUpdate(_ context.Context, key string, value []byte) error {
	if err := n.create(n.path(key), value); err != nil {
		return err
	}
	_, err := n.c.Set(n.path(key), value, 0)
	return err
}

// list reads node by node.
func (n nativeClient) list(path string) (int, error) {
	names, _, err := n.c.Children(path)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, name := range names {
		_, stat, err := n.c.Get(path + "/" + name)
		if err != nil {
			return 0, err
		}
		if stat.DataLength > 0 {
			count++
		}
		if stat.NumChildren > 0 {
			below, err := n.list(path + "/" + name)
			if err != nil {
				return 0, err
			}
			count += below
		}
	}
	return count, nil
}

func (n nativeClient) deleteTree(path string) error {
	names, stat, err := n.c.Children(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := n.deleteTree(path + "/" + name); err != nil {
			return err
		}
	}
	return n.c.Delete(path, stat.Version)
}

// BenchmarkStaleGet compares reads with AllowStale with those of the client.
func BenchmarkStaleGet(b *testing.B) {
	endpoints := testserver.ZooKeeper(b).Endpoints
	s, c := open(b, endpoints, nil), raw(b, endpoints)
	keys, dir := make([]string, 1000), fmt.Sprintf("stale-%016x", rand.Uint64())
	for i := range keys {
		keys[i] = fmt.Sprintf("%s/%d", dir, i)
	}
	require.NoError(b, spread(len(keys), 64, func(i int) error { return s.Put(b.Context(), keys[i], make([]byte, 100), nil) }))
	stale := &valkeyrie.ReadOptions{AllowStale: true}
	sides := []struct {
		name string
		get  func(i int) error
	}{
		{"store", func(i int) error { _, err := s.Get(b.Context(), keys[i%len(keys)], stale); return err }},
		{"native", func(i int) error { _, _, err := c.Get("/" + keys[i%len(keys)]); return err }},
	}
	for _, goroutines := range []int{1, 64} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			for i := range 6 { // by turns
				side := sides[i%2]
				b.Run(side.name, func(b *testing.B) {
					b.ReportAllocs()
					require.NoError(b, spread(b.N, goroutines, side.get))
				})
			}
		})
	}
}

// spread calls f for 0 to n-1 by so many goroutines.
func spread(n, goroutines int, f func(i int) error) error {
	errs := make([]error, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < n && errs[g] == nil; i += goroutines {
				errs[g] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
