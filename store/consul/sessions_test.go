package consul

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

// sessionOf returns the session that a key belongs to, and its index.
func sessionOf(t *testing.T, c *api.Client, key string) (string, uint64) {
	t.Helper()
	p, _, err := c.KV().Get(key, &api.QueryOptions{RequireConsistent: true})
	require.NoError(t, err)
	require.NotNil(t, p, key)
	return p.Session, p.ModifyIndex
}

// sessions returns the ids of all sessions.
func sessions(t testing.TB, c *api.Client) map[string]*api.SessionEntry {
	t.Helper()
	list, _, err := c.Session().List(&api.QueryOptions{RequireConsistent: true})
	require.NoError(t, err)
	all := make(map[string]*api.SessionEntry)
	for _, s := range list {
		all[s.ID] = s
	}
	return all
}

func TestLocksLeaveNoSessionBehind(t *testing.T) {
	const cycles = 1000
	ctx := testserver.Within(t, 5*time.Minute)
	endpoints := testserver.StartConsul(t, testserver.ConsulOptions{}).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil, nil)
	l, err := s.NewLock(ctx, "l", nil)
	require.NoError(t, err)
	other, err := s.NewLock(ctx, "l", nil)
	require.NoError(t, err)
	token := uint64(0)
	for range cycles {
		_, err = l.Lock(ctx)
		require.NoError(t, err)
		require.Greater(t, l.Token(), token)
		token = l.Token()
		_, err = other.TryLock(ctx)
		require.ErrorIs(t, err, valkeyrie.ErrLockHeld)
		require.NoError(t, l.Unlock(ctx))
	}
	assert.Empty(t, sessions(t, c), "sessions of locks that were released")

	// Waiters who leave, and those who get the lock one after another.
	_, err = l.Lock(ctx)
	require.NoError(t, err)
	for range 20 {
		short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		_, err := other.Lock(short)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		cancel()
	}
	var waiters sync.WaitGroup
	for range 10 {
		w, err := s.NewLock(ctx, "l", nil)
		require.NoError(t, err)
		waiters.Go(func() {
			if _, err := w.Lock(ctx); assert.NoError(t, err) {
				assert.NoError(t, w.Unlock(ctx))
			}
		})
	}
	require.NoError(t, l.Unlock(ctx))
	waiters.Wait()
	require.Eventually(t, func() bool { return len(sessions(t, c)) == 0 }, 10*time.Second, 20*time.Millisecond)
	pairs, _, err := c.KV().List("", nil)
	require.NoError(t, err)
	assert.Empty(t, pairs)
}

func TestWritesWithTTLShareSessions(t *testing.T) {
	const keys = 2500
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ConsulServer(t).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil, nil)
	var writers sync.WaitGroup
	errs := make(chan error, keys)
	for w := range 50 {
		writers.Go(func() {
			for i := w; i < keys; i += 50 {
				errs <- s.Put(ctx, fmt.Sprintf("shared/%d", i), nil, &valkeyrie.WriteOptions{TTL: time.Hour})
			}
		})
	}
	writers.Wait()
	for range keys {
		require.NoError(t, <-errs)
	}
	pairs, _, err := c.KV().List("shared/", nil)
	require.NoError(t, err)
	require.Len(t, pairs, keys)
	known, used := sessions(t, c), map[string]int{}
	for _, p := range pairs {
		used[p.Session]++
	}
	assert.LessOrEqual(t, len(used), 5, "sessions for %d keys", keys)
	for id, n := range used {
		require.Contains(t, known, id)
		assert.LessOrEqual(t, n, 1000)
		assert.Equal(t, api.SessionBehaviorDelete, known[id].Behavior)
		assert.Equal(t, "3660s", known[id].TTL)
		assert.Empty(t, known[id].Checks, "no health check ends it")
	}
	require.NoError(t, s.DeleteTree(ctx, "shared"))
}

// TestAPutWithoutTTLFreesTheKey also puts through a store that has not seen that
// the key belongs to a session.
func TestAPutWithoutTTLFreesTheKey(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ConsulServer(t).Endpoints
	c := raw(t, endpoints)
	ttl := &valkeyrie.WriteOptions{TTL: time.Hour}
	same, stranger := open(t, endpoints, nil, nil), open(t, endpoints, nil, nil)
	for name, writer := range map[string]valkeyrie.Store{"by its writer": same, "by another store": stranger} {
		t.Run(name, func(t *testing.T) {
			for how, write := range map[string]func(key string) error{
				"Put":       func(key string) error { return writer.Put(ctx, key, []byte("v"), nil) },
				"Put large": func(key string) error { return writer.Put(ctx, key, make([]byte, 200<<10), nil) },
				"AtomicPut": func(key string) error {
					p, err := writer.Get(ctx, key, nil)
					if err == nil {
						_, _, err = writer.AtomicPut(ctx, key, []byte("v"), p, nil)
					}
					return err
				},
				"Delete and create": func(key string) error {
					if err := writer.Delete(ctx, key); err != nil {
						return err
					}
					_, _, err := writer.AtomicPut(ctx, key, []byte("v"), nil, nil)
					return err
				},
			} {
				key := fmt.Sprintf("freed/%s/%s", name, how)
				require.NoError(t, same.Put(ctx, key, []byte("v"), ttl))
				first, before := sessionOf(t, c, key)
				require.NotEmpty(t, first)
				require.NoError(t, write(key), how)
				now, after := sessionOf(t, c, key)
				assert.Empty(t, now, how)
				assert.Greater(t, after, before)
				// And back again, into a session of this writer.
				require.NoError(t, writer.Put(ctx, key, []byte("v"), ttl), how)
				now, _ = sessionOf(t, c, key)
				assert.NotEmpty(t, now, how)
				_, err := c.Session().Destroy(first, nil)
				require.NoError(t, err)
			}
		})
	}
	require.NoError(t, same.DeleteTree(ctx, "freed"))
}

func TestAKeyKeptAliveHasASessionForItself(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ConsulServer(t).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil, nil)
	alive := &valkeyrie.WriteOptions{TTL: 10 * time.Second, KeepAlive: true}
	require.NoError(t, s.Put(ctx, "own/a", nil, &valkeyrie.WriteOptions{TTL: 10 * time.Second}))
	for _, end := range []func() error{
		func() error { return s.Put(ctx, "own/b", []byte("permanent"), nil) },
		func() error { return s.Put(ctx, "own/b", nil, alive) },
		func() error { return s.Delete(ctx, "own/b") },
	} {
		require.NoError(t, s.Put(ctx, "own/b", nil, alive))
		own, _ := sessionOf(t, c, "own/b")
		shared, _ := sessionOf(t, c, "own/a")
		assert.NotEqual(t, shared, own)
		require.NoError(t, end())
		// Its session ends, and takes nothing along.
		require.Eventually(t, func() bool { return sessions(t, c)[own] == nil }, 5*time.Second, 10*time.Millisecond)
	}
	require.NoError(t, s.Put(ctx, "own/b", nil, alive))
	require.NoError(t, s.Put(ctx, "own/b", []byte("permanent"), nil))
	p, err := s.Get(ctx, "own/b", nil)
	require.NoError(t, err)
	assert.Equal(t, "permanent", string(p.Value))
	require.NoError(t, s.DeleteTree(ctx, "own"))
}

func TestATTLThatNoSessionCanBack(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ConsulServer(t).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil, nil)
	require.NoError(t, s.Put(ctx, "long/day", nil, &valkeyrie.WriteOptions{TTL: 23 * time.Hour}))
	session, _ := sessionOf(t, c, "long/day")
	assert.NotEmpty(t, session)
	require.NoError(t, s.Put(ctx, "long/week", nil, &valkeyrie.WriteOptions{TTL: 7 * 24 * time.Hour}))
	session, _ = sessionOf(t, c, "long/week")
	assert.Empty(t, session, "a session of a day would take it along too early")
	require.NoError(t, s.DeleteTree(ctx, "long"))
}

// TestWritersAtOnceShareTransactions also has keys among them that belong to
// sessions, which a shared transaction does not know beforehand.
func TestWritersAtOnceShareTransactions(t *testing.T) {
	const keys = 200
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ConsulServer(t).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil, nil)
	putAll := func(each int, opts func(i int) *valkeyrie.WriteOptions) {
		t.Helper()
		var writers sync.WaitGroup
		begin := make(chan struct{})
		for i := range keys {
			for n := range each {
				writers.Go(func() {
					<-begin
					assert.NoError(t, s.Put(ctx, fmt.Sprintf("at-once/%d", i), fmt.Append(nil, i, n), opts(i)))
				})
			}
		}
		close(begin)
		writers.Wait()
	}
	check := func(session func(i int) bool) (indexes map[uint64]bool) {
		t.Helper()
		indexes = make(map[uint64]bool)
		for i := range keys {
			p, _, err := c.KV().Get(fmt.Sprintf("at-once/%d", i), nil)
			require.NoError(t, err)
			require.NotNil(t, p)
			assert.Contains(t, []string{fmt.Sprint(i, 0), fmt.Sprint(i, 1)}, string(p.Value))
			assert.Equal(t, session(i), p.Session != "", p.Key)
			indexes[p.ModifyIndex] = true
		}
		return indexes
	}
	putAll(1, func(int) *valkeyrie.WriteOptions { return nil })
	assert.Less(t, len(check(func(int) bool { return false })), keys/2, "transactions for %d keys", keys)
	putAll(1, func(i int) *valkeyrie.WriteOptions {
		if i%4 == 0 {
			return &valkeyrie.WriteOptions{TTL: time.Hour}
		}
		return nil
	})
	check(func(i int) bool { return i%4 == 0 })
	putAll(2, func(int) *valkeyrie.WriteOptions { return nil }) // two of each: those of one key are not shared
	check(func(int) bool { return false })
	require.NoError(t, s.DeleteTree(ctx, "at-once"))
}
