package consul

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestASessionThatSomebodyEndedIsReplaced(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ConsulServer(t).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil, nil)
	ttl := &valkeyrie.WriteOptions{TTL: 7 * time.Minute} // nobody else's session
	require.NoError(t, s.Put(ctx, "ended/a", nil, ttl))
	first, _ := sessionOf(t, c, "ended/a")
	_, err := c.Session().Destroy(first, nil)
	require.NoError(t, err)
	require.NoError(t, s.Put(ctx, "ended/a", []byte("again"), ttl))
	second, _ := sessionOf(t, c, "ended/a")
	assert.NotEqual(t, first, second)
	require.NoError(t, s.DeleteTree(ctx, "ended"))
}

// delayed leaves a key under the lock-delay of another tool's session.
func delayed(t *testing.T, c *api.Client, key string, delay time.Duration) {
	t.Helper()
	id, _, err := c.Session().CreateNoChecks(&api.SessionEntry{TTL: "10s", Behavior: api.SessionBehaviorDelete, LockDelay: delay}, nil)
	require.NoError(t, err)
	ok, _, err := c.KV().Acquire(&api.KVPair{Key: key, Session: id}, nil)
	require.NoError(t, err)
	require.True(t, ok)
	_, err = c.Session().Destroy(id, nil)
	require.NoError(t, err)
}

func TestTheLockDelayOfAnotherTool(t *testing.T) {
	const delay = time.Second
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ConsulServer(t).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil, nil)

	delayed(t, c, "delay/lock", delay)
	began := time.Now()
	l, err := s.NewLock(ctx, "delay/lock", nil)
	require.NoError(t, err)
	_, err = l.TryLock(ctx)
	require.ErrorIs(t, err, valkeyrie.ErrLockHeld)
	_, err = l.Lock(ctx) // nothing changes when the delay ends
	require.NoError(t, err)
	assert.Greater(t, time.Since(began), delay/2)
	require.NoError(t, l.Unlock(ctx))

	delayed(t, c, "delay/key", time.Minute)
	began = time.Now()
	require.NoError(t, s.Put(ctx, "delay/key", []byte("v"), &valkeyrie.WriteOptions{TTL: 2 * time.Second}))
	assert.Less(t, time.Since(began), time.Second, "a TTL does not wait for it")
	require.Eventually(t, func() bool {
		there, err := s.Exists(ctx, "delay/key", nil)
		return err == nil && !there
	}, 5*time.Second, 20*time.Millisecond)
}

// TestDataThatAnotherToolPutIsNotTakenAlong: consul kv put leaves a key in the
// session that it belongs to.
func TestDataThatAnotherToolPutIsNotTakenAlong(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ConsulServer(t).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil, nil)
	l, err := s.NewLock(ctx, "theirs/lock", nil)
	require.NoError(t, err)
	lost, err := l.Lock(ctx)
	require.NoError(t, err)
	session, _ := sessionOf(t, c, "theirs/lock")
	_, err = c.KV().Put(&api.KVPair{Key: "theirs/lock", Value: []byte("theirs")}, nil)
	require.NoError(t, err)
	select {
	case <-lost:
	case <-ctx.Done():
		t.Fatal("the hold goes on although the key is another's")
	}
	require.Eventually(t, func() bool { return sessions(t, c)[session] == nil }, 10*time.Second, 10*time.Millisecond)
	p, err := s.Get(ctx, "theirs/lock", nil)
	require.NoError(t, err)
	assert.Equal(t, "theirs", string(p.Value))
	require.NoError(t, s.DeleteTree(ctx, "theirs"))
}
