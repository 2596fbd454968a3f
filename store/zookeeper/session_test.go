package zookeeper

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/store"
)

// captureLog collects what is written to the standard logger.
func captureLog(t *testing.T) func() string {
	t.Helper()
	var mu sync.Mutex
	var b bytes.Buffer
	before := log.Default().Writer()
	log.SetOutput(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return b.Write(p)
	}))
	t.Cleanup(func() { log.SetOutput(before) })
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return b.String()
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestEverySessionExpires stops the server for longer than all sessions last.
func TestEverySessionExpires(t *testing.T) {
	ctx := testserver.Within(t, 3*time.Minute)
	server := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{})
	s, other := open(t, server.Endpoints, nil), open(t, server.Endpoints, nil)
	require.NoError(t, s.Put(ctx, "d/stays", []byte("1"), nil))
	require.NoError(t, s.Put(ctx, "d/goes", []byte("1"), nil))
	ttl := 90 * time.Second
	require.NoError(t, s.Put(ctx, "long", []byte("v"), &valkeyrie.WriteOptions{TTL: ttl}))
	require.NoError(t, s.Put(ctx, "alive", []byte("v"), &valkeyrie.WriteOptions{TTL: ttl, KeepAlive: true}))
	one, err := s.Watch(ctx, "d/stays", nil)
	require.NoError(t, err)
	require.Equal(t, "1", string((<-one).Value))
	tree, err := s.WatchTree(ctx, "d", nil)
	require.NoError(t, err)
	require.Len(t, <-tree, 2)
	holder, err := s.NewLock(ctx, "lock", &valkeyrie.LockOptions{TTL: 2 * time.Second})
	require.NoError(t, err)
	lost, err := holder.Lock(ctx)
	require.NoError(t, err)
	token := holder.Token()
	waiter, err := other.NewLock(ctx, "lock", &valkeyrie.LockOptions{TTL: 2 * time.Second})
	require.NoError(t, err)
	got := make(chan error, 1)
	go func() {
		_, err := waiter.Lock(ctx)
		got <- err
	}()
	c := raw(t, server.Endpoints)
	require.Eventually(t, func() bool {
		names, _, err := c.Children("/lock/.valkeyrie/lock")
		return err == nil && len(names) == 2
	}, 20*time.Second, 10*time.Millisecond, "two in line")
	before, _, err := c.Children("/.valkeyrie/ttl/open")
	require.NoError(t, err)
	require.NotEmpty(t, before)

	require.NoError(t, server.Members[0].Stop())
	stopped := time.Now()
	<-lost
	t.Logf("lost %v after the server was stopped", time.Since(stopped))
	require.Less(t, time.Since(stopped), 2*time.Second+500*time.Millisecond, "the loss is counted from the last renewal")
	time.Sleep(time.Until(stopped.Add(2*session + time.Second)))
	require.NoError(t, server.Members[0].Resume())

	require.NoError(t, <-got, "a waiter survives the end of its session")
	require.Greater(t, waiter.Token(), token)
	require.NoError(t, waiter.Unlock(ctx))
	require.ErrorIs(t, holder.Unlock(ctx), valkeyrie.ErrLockNotHeld)
	require.NoError(t, other.Put(ctx, "d/stays", []byte("2"), nil))
	require.NoError(t, other.Delete(ctx, "d/goes"))
	require.NoError(t, other.Put(ctx, "d/comes", nil, nil))
	for p := range one {
		if string(p.Value) == "2" {
			break
		}
	}
	for pairs := range tree {
		if len(pairs) == 2 && pairs[0].Key == "d/comes" && string(pairs[1].Value) == "2" {
			break
		}
	}
	for _, key := range []string{"long", "alive"} {
		p, err := s.Get(ctx, key, nil)
		require.NoError(t, err, "a key with a TTL does not go with a session")
		require.Equal(t, "v", string(p.Value))
	}
}

func TestWatchesDoNotPileUp(t *testing.T) {
	const watches = 10_000
	ctx := testserver.Within(t, 5*time.Minute)
	server := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{})
	s := open(t, server.Endpoints, nil)
	require.NoError(t, s.Put(ctx, "pile/k", []byte("v"), nil))
	around := func(n int) {
		for i := range n {
			one, cancel := context.WithCancel(ctx)
			switch i % 4 {
			case 0, 1:
				ch, err := s.Watch(one, "pile/k", nil)
				require.NoError(t, err)
				require.Equal(t, "v", string((<-ch).Value))
			case 2:
				ch, err := s.Watch(one, "pile/missing", nil)
				require.NoError(t, err)
				require.Nil(t, (<-ch).Value)
			case 3:
				ch, err := s.WatchTree(one, "pile", nil)
				require.NoError(t, err)
				require.Len(t, <-ch, 1)
			}
			cancel()
		}
	}
	measure := func() (heap uint64, goroutines, watches int) {
		require.Eventually(t, func() bool {
			goroutines = runtime.NumGoroutine()
			return goroutines < 100
		}, 10*time.Second, 10*time.Millisecond, "goroutines of watches that have ended")
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		watches, err := server.Watches(ctx, 0)
		require.NoError(t, err)
		return m.HeapAlloc, goroutines, watches
	}
	around(100)
	heap, goroutines, before := measure()
	around(watches)
	heapAfter, goroutinesAfter, after := measure()
	t.Logf("heap %d -> %d, goroutines %d -> %d, watches at the server %d -> %d", heap, heapAfter, goroutines, goroutinesAfter, before, after)
	assert.Equal(t, before, after, "watches at the server")
	assert.Less(t, heapAfter, heap+1<<20, "memory")
	assert.LessOrEqual(t, goroutinesAfter, goroutines+10)
}

func TestTheServersWorkForAChangeDoesNotGrowWithTheTree(t *testing.T) {
	ctx := testserver.Within(t, 2*time.Minute)
	server := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{})
	s := open(t, server.Endpoints, nil)
	for i := range 2000 {
		require.NoError(t, s.Put(ctx, fmt.Sprintf("big/%d/%d", i%20, i), nil, nil))
	}
	watcher := open(t, server.Endpoints, nil)
	tree, err := watcher.WatchTree(ctx, "big", nil)
	require.NoError(t, err)
	require.Len(t, <-tree, 2000)
	before, err := server.Requests(ctx, 0)
	require.NoError(t, err)
	for i := range 50 {
		require.NoError(t, s.Put(ctx, "big/3/3", fmt.Append(nil, i), nil))
		for {
			pairs := <-tree
			if string(pairs[at(pairs, "big/3/3")].Value) == fmt.Sprint(i) {
				break
			}
		}
	}
	after, err := server.Requests(ctx, 0)
	require.NoError(t, err)
	assert.Less(t, after-before, 50*10, "requests for 50 changes")
}

func at(pairs []*valkeyrie.KVPair, key string) int {
	for i, p := range pairs {
		if p.Key == key {
			return i
		}
	}
	return 0
}

func TestALockOfAProcessThatDiedIsFreeAlthoughNobodyWaits(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{}).Endpoints
	c, s := raw(t, endpoints), open(t, endpoints, nil)
	_, err := s.Exists(ctx, "k", nil)
	require.NoError(t, err)

	settings, err := store.Settings(StoreName, nil)
	require.NoError(t, err)
	dying, err := newDriver(endpoints, settings, (&Options{SessionTimeout: session}).withDefaults(""))
	require.NoError(t, err)
	_, err = dying.TryLock(ctx, store.LockRequest{Key: "died", Value: []byte("v"), TTL: 2 * time.Second, Owner: "dead"})
	require.NoError(t, err)
	died := time.Now()
	require.NoError(t, dying.Close()) // without Release
	p, err := s.Get(ctx, "died", nil)
	require.NoError(t, err)
	require.Equal(t, "v", string(p.Value))
	require.Eventually(t, func() bool {
		there, err := s.Exists(ctx, "died", nil)
		return err == nil && !there
	}, harness(nil).CrashBound+2*time.Second, 10*time.Millisecond)
	t.Logf("gone after %v", time.Since(died))
	vanishes(t, c, "/died")
}

func TestACancelledWaiterLeavesNoNodeBehind(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ZooKeeper(t).Endpoints
	c, s := raw(t, endpoints), open(t, endpoints, nil)
	const line = "/cancelled/.valkeyrie/lock"
	holder, err := s.NewLock(ctx, "cancelled", nil)
	require.NoError(t, err)
	_, err = holder.Lock(ctx)
	require.NoError(t, err)
	for i := range 20 {
		waiter, err := s.NewLock(ctx, "cancelled", nil)
		require.NoError(t, err)
		short, cancel := context.WithTimeout(ctx, time.Duration(i)*2*time.Millisecond)
		_, err = waiter.Lock(short)
		cancel()
		require.Error(t, err)
	}
	require.Eventually(t, func() bool {
		names, _, err := c.Children(line)
		return err == nil && len(names) == 1
	}, 5*time.Second, 5*time.Millisecond, "only the holder is in line")
	require.NoError(t, holder.Unlock(ctx))
	vanishes(t, c, "/cancelled")
}

func TestManyTTLsOfLocksShareSessions(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		time.Second: 1500 * time.Millisecond, 20 * time.Second: 30 * time.Second, 31 * time.Second: 47 * time.Second,
		time.Millisecond: 100 * time.Millisecond, 1001 * time.Millisecond: 1600 * time.Millisecond, 4 * time.Minute: 360 * time.Second, time.Hour: 90 * time.Minute,
	} {
		assert.Equal(t, want, sessionOf(ttl), "%v", ttl)
	}
}
