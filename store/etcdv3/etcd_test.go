package etcdv3

import (
	"bufio"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestKeysOfOtherToolsWithALeadingSlash(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.EtcdV3(t).Endpoints
	c := raw(t, endpoints)
	_, err := c.Put(ctx, "/slash/a", "theirs")
	require.NoError(t, err)
	_, err = c.Put(ctx, "slash/b", "without")
	require.NoError(t, err)

	s := open(t, endpoints, &valkeyrie.Config{Prefix: "/"})
	p, err := s.Get(ctx, "slash/a", nil)
	require.NoError(t, err)
	assert.Equal(t, "theirs", string(p.Value))
	assert.Equal(t, "slash/a", p.Key)
	pairs, err := s.List(ctx, "slash", nil)
	require.NoError(t, err)
	require.Len(t, pairs, 1)
	assert.Equal(t, "slash/a", pairs[0].Key)
	require.NoError(t, s.Put(ctx, "slash/c", []byte("ours"), nil))
	r, err := c.Get(ctx, "/slash/c")
	require.NoError(t, err)
	require.Len(t, r.Kvs, 1)
	assert.Equal(t, "ours", string(r.Kvs[0].Value), "a value is stored as it is")
}

// docs/migrating.md says so.
func TestWhatOlderReleasesLeft(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.EtcdV3(t).Endpoints
	c := raw(t, endpoints)
	for _, key := range []string{"older/limit", "older/leader", "older/leader___lock/694d7c1b4e1b8d05"} {
		_, err := c.Put(ctx, key, "theirs")
		require.NoError(t, err)
	}
	s := open(t, endpoints, nil)
	old, err := s.Get(ctx, "older/limit", nil)
	require.NoError(t, err)
	assert.Equal(t, "theirs", string(old.Value))
	_, _, err = s.AtomicPut(ctx, "older/limit", []byte("ours"), old, nil)
	require.NoError(t, err)

	l, err := s.NewLock(ctx, "older/leader", nil)
	require.NoError(t, err)
	_, err = l.TryLock(ctx)
	require.ErrorIs(t, err, valkeyrie.ErrLockHeld, "the key that a lock left behind")
	require.NoError(t, s.Delete(ctx, "older/leader"))
	_, err = l.TryLock(ctx)
	require.NoError(t, err)
	require.NoError(t, l.Unlock(ctx))
	require.NoError(t, s.DeleteTree(ctx, "older"))
}

func TestWritesWithTTLShareLeases(t *testing.T) {
	const keys = 2500
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.EtcdV3(t).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil)
	var writers sync.WaitGroup
	errs := make(chan error, keys)
	for w := range 50 {
		writers.Go(func() {
			for i := w; i < keys; i += 50 {
				errs <- s.Put(ctx, fmt.Sprintf("leases/%d", i), nil, &valkeyrie.WriteOptions{TTL: time.Hour})
			}
		})
	}
	writers.Wait()
	for range keys {
		require.NoError(t, <-errs)
	}
	r, err := c.Get(ctx, "leases/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.Len(t, r.Kvs, keys)
	perLease := map[int64]int{}
	for _, kv := range r.Kvs {
		require.NotZero(t, kv.Lease)
		perLease[kv.Lease]++
	}
	assert.LessOrEqual(t, len(perLease), 5, "leases for %d keys", keys)
	for lease, n := range perLease {
		assert.LessOrEqual(t, n, 1000)
		left, err := c.TimeToLive(ctx, clientv3.LeaseID(lease))
		require.NoError(t, err)
		assert.GreaterOrEqual(t, left.TTL, int64(3590))
		assert.LessOrEqual(t, left.TTL, int64(3660))
	}
	require.NoError(t, s.DeleteTree(ctx, "leases"))
}

func TestAKeyKeptAliveHasALeaseForItself(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.EtcdV3(t).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil)
	require.NoError(t, s.Put(ctx, "own/a", nil, &valkeyrie.WriteOptions{TTL: 10 * time.Second}))
	require.NoError(t, s.Put(ctx, "own/b", nil, &valkeyrie.WriteOptions{TTL: 10 * time.Second, KeepAlive: true}))
	leaseOf := func(key string) int64 {
		r, err := c.Get(ctx, key)
		require.NoError(t, err)
		require.Len(t, r.Kvs, 1)
		return r.Kvs[0].Lease
	}
	own := leaseOf("own/b")
	assert.NotEqual(t, leaseOf("own/a"), own)

	// Overwritten, its lease is given back and takes nothing along.
	require.NoError(t, s.Put(ctx, "own/b", []byte("permanent"), nil))
	assert.Zero(t, leaseOf("own/b"))
	require.NoError(t, s.DeleteTree(ctx, "own"))
}

func TestLocksLeaveNoLeaseBehind(t *testing.T) {
	ctx := testserver.Within(t, 2*time.Minute)
	endpoints := testserver.StartEtcdV3(t, testserver.EtcdOptions{}).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil)
	l, err := s.NewLock(ctx, "l", nil)
	require.NoError(t, err)
	other, err := s.NewLock(ctx, "l", nil)
	require.NoError(t, err)
	for range 100 {
		_, err = l.Lock(ctx)
		require.NoError(t, err)
		_, err = other.TryLock(ctx)
		require.ErrorIs(t, err, valkeyrie.ErrLockHeld)
		require.NoError(t, l.Unlock(ctx))
	}
	require.Eventually(t, func() bool {
		leases, err := c.Leases(ctx)
		return err == nil && len(leases.Leases) == 0
	}, 10*time.Second, 20*time.Millisecond, "leases of locks that were released")
	r, err := c.Get(ctx, "", clientv3.WithPrefix())
	require.NoError(t, err)
	assert.Empty(t, r.Kvs)
}

func TestASnapshotLargerThanAPageMissesNothing(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, testserver.EtcdV3(t).Endpoints, nil)
	const keys = firstPage + firstPage/2 // the second page is made smaller, for the size of the values
	for i := range keys {
		require.NoError(t, s.Put(ctx, fmt.Sprintf("pages/%04d", i), make([]byte, 20<<10), nil))
	}
	pairs, err := s.List(ctx, "pages", nil)
	require.NoError(t, err)
	require.Len(t, pairs, keys)
	states, err := s.WatchTree(ctx, "pages", nil)
	require.NoError(t, err)
	require.Len(t, <-states, keys)
	require.NoError(t, s.DeleteTree(ctx, "pages"))
	for pairs := <-states; len(pairs) > 0; pairs = <-states {
		require.NoError(t, ctx.Err())
	}
}

// ranges returns how many reads a server has done for its clients.
func ranges(t *testing.T, endpoint string) (n float64) {
	t.Helper()
	r, err := http.Get("http://" + endpoint + "/metrics")
	require.NoError(t, err)
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		if _, err := fmt.Sscanf(lines.Text(), "etcd_mvcc_range_total %g", &n); err == nil {
			return n
		}
	}
	require.FailNow(t, "the server has no metric etcd_mvcc_range_total")
	return 0
}

func TestAChangeCostsNoRead(t *testing.T) {
	const changes = 500
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartEtcdV3(t, testserver.EtcdOptions{}).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil)
	states, err := s.WatchTree(ctx, "quiet", nil)
	require.NoError(t, err)
	before := ranges(t, endpoints[0])
	for i := range changes {
		_, err := c.Put(ctx, fmt.Sprintf("quiet/%d", i), "v")
		require.NoError(t, err)
	}
	for pairs := <-states; len(pairs) < changes; pairs = <-states {
		require.NoError(t, ctx.Err())
	}
	assert.Less(t, ranges(t, endpoints[0])-before, float64(changes)/10, "reads for %d changes", changes)
}
