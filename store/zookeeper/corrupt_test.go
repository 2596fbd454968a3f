package zookeeper

import (
	"context"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

// nodes makes nodes with the native client, and their parents.
func nodes(t *testing.T, c *zk.Conn, data string, paths ...string) {
	t.Helper()
	for _, path := range paths {
		for i := 1; i < len(path); i++ {
			if path[i] == '/' {
				if _, err := c.Create(path[:i], nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
					require.ErrorIs(t, err, zk.ErrNodeExists)
				}
			}
		}
		_, err := c.Create(path, []byte(data), 0, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
	}
}

func TestNamesThatStandForNoKeyAreLeftOut(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{}).Endpoints
	c, s := raw(t, endpoints), open(t, endpoints, nil)
	require.NoError(t, s.Put(ctx, "names/\U0001f389", []byte("v"), nil))
	states, err := s.WatchTree(ctx, "", nil)
	require.NoError(t, err)
	require.Len(t, <-states, 1)
	nodes(t, c, "v", "/.valkeyrie%%FF", "/names/.valkeyrie%%F0%9F", "/names/.valkeyrie%", "/names/.valkeyrie%plain", "/names/.valkeyrie%%zz/below", "/last")
	pairs, err := s.List(ctx, "", nil)
	require.NoError(t, err)
	require.Len(t, pairs, 2)
	assert.Equal(t, "last", pairs[0].Key)
	assert.Equal(t, "names/\U0001f389", pairs[1].Key)
	for state := range states {
		if len(state) == 2 {
			break
		}
	}
}

// TestDamagedRecordsDoNotKeepOthersFromExpiring: a record that cannot be read is
// left alone, and those beside it do their work.
func TestDamagedRecordsDoNotKeepOthersFromExpiring(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{}).Endpoints
	c := raw(t, endpoints)
	gone, err := New(endpoints, nil, &Options{SessionTimeout: session})
	require.NoError(t, err)
	require.NoError(t, gone.Put(ctx, "precious", []byte("v"), nil))
	require.NoError(t, gone.Put(ctx, "mortal", []byte("v"), &valkeyrie.WriteOptions{TTL: time.Second}))
	const dir = "/.valkeyrie/ttl/open"
	owners, _, err := c.Children(dir)
	require.NoError(t, err)
	for _, owner := range owners {
		if owner == reaperName {
			continue
		}
		for name, data := range map[string]string{
			"empty": "", "no JSON": "{", "another type": `[]`, "no key": `{}`, "no path": `{"key":"mortal"}`, "no path either": `{"key":"/a//b"}`,
			"a name of no key": `{"key":"/zookeeper"}`, "a TTL below zero": `{"key":"/precious","ttl":-1}`, "a holder that is no path": `{"key":"/precious","holder":"x"}`,
			"too large": `{"key":"/precious","ttl":1e40}`, "the root": `{"key":"/"}`,
		} {
			nodes(t, c, data, child(child(dir, owner), name))
		}
	}
	require.NoError(t, gone.Close())
	s := open(t, endpoints, nil)
	require.Eventually(t, func() bool {
		there, err := s.Exists(ctx, "mortal", nil)
		return err == nil && !there
	}, harness(nil).CrashBound+time.Second, 10*time.Millisecond)
	p, err := s.Get(ctx, "precious", nil)
	require.NoError(t, err)
	assert.Equal(t, "v", string(p.Value))
}

// TestWhoeverElseIsInLineCountsAsWaiting: nobody gets a lock past a node in its
// line, whoever made it, and all get it when it is gone.
func TestWhoeverElseIsInLineCountsAsWaiting(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{}).Endpoints
	c, s := raw(t, endpoints), open(t, endpoints, nil)
	for _, name := range []string{"nonsense", "-", "x--5", "owner-0000000000"} {
		alien := child(lineOf("/lock"), name)
		nodes(t, c, "", alien)
		l, err := s.NewLock(ctx, "lock", nil)
		require.NoError(t, err)
		_, err = l.TryLock(ctx)
		require.ErrorIs(t, err, valkeyrie.ErrLockHeld, name)
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		_, err = l.Lock(short)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded, name)

		got := make(chan error, 1)
		go func() {
			_, err := l.Lock(ctx)
			got <- err
		}()
		require.NoError(t, c.Delete(alien, -1))
		require.NoError(t, <-got)
		require.NoError(t, l.Unlock(ctx))
	}
}
