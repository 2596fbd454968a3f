package store

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// untimed is a server that knows no TTL: it keeps revisions, and notes deletes.
type untimed struct {
	mu        sync.Mutex
	revisions map[string]uint64
	last      uint64
	calls     []string // deletes and renewals that were tried, with the second they came in
	began     time.Time
	away      bool
}

func (u *untimed) driver() *scripted {
	u.revisions, u.began = make(map[string]uint64), time.Now()
	return &scripted{
		write: func(_ context.Context, w Write) (Written, error) {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.last++
			u.revisions[w.Key] = u.last
			return Written{Revision: u.last, FrontExpires: true}, nil
		},
		del: func(_ context.Context, key string, ifRevision uint64) error {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.note("delete", key)
			if err := u.check(key, ifRevision); err != nil {
				return err
			}
			delete(u.revisions, key)
			return nil
		},
		renew: func(_ context.Context, key string, revision uint64, _ time.Duration) (Written, error) {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.note("renew", key)
			return Written{Revision: revision, FrontExpires: true}, u.check(key, revision)
		},
	}
}

func (u *untimed) note(what, key string) {
	u.calls = append(u.calls, fmt.Sprintf("%s %s %v", what, key, time.Since(u.began).Round(time.Second)))
}

func (u *untimed) check(key string, revision uint64) error {
	switch at := u.revisions[key]; {
	case u.away:
		return valkeyrie.ErrNotReachable
	case at == 0:
		return valkeyrie.ErrKeyNotFound
	case at != revision:
		return valkeyrie.ErrKeyModified
	}
	return nil
}

func (u *untimed) setAway(away bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.away = away
}

func (u *untimed) seen() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.calls...)
}

func ttl(d time.Duration) *valkeyrie.WriteOptions { return &valkeyrie.WriteOptions{TTL: d} }

func TestTheFrontExpiresWhatTheServerCannot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &untimed{}
		s := open(t, u.driver(), nil)
		require.NoError(t, s.Put(t.Context(), "b", nil, ttl(20*time.Second)))
		require.NoError(t, s.Put(t.Context(), "a", nil, ttl(10*time.Second)))
		require.NoError(t, s.Put(t.Context(), "forever", nil, nil))
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, []string{"delete a 10s", "delete b 20s"}, u.seen())
		assert.Empty(t, s.ttl.byKey)
		assert.Zero(t, s.ttl.duties.Load())
	})
}

func TestALaterWriteSupersedesATTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &untimed{}
		s := open(t, u.driver(), nil)
		for range 1000 {
			require.NoError(t, s.Put(t.Context(), "hot", nil, ttl(10*time.Second)))
		}
		assert.Len(t, s.ttl.queue, 1, "one duty a key, however often it was written")
		require.NoError(t, s.Put(t.Context(), "hot", nil, nil))
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Empty(t, u.seen())

		// Somebody else's write shows by its revision.
		require.NoError(t, s.Put(t.Context(), "theirs", nil, ttl(time.Second)))
		u.mu.Lock()
		u.revisions["theirs"] = 1 << 40
		u.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Len(t, u.seen(), 1)
		assert.NotZero(t, u.revisions["theirs"])
	})
}

func TestExpiryIsTriedUntilTheServerIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &untimed{}
		s := open(t, u.driver(), nil)
		require.NoError(t, s.Put(t.Context(), "a", nil, ttl(3*time.Second)))
		u.setAway(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		u.setAway(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Empty(t, u.revisions)
		assert.Less(t, len(u.seen()), 200, "with pauses")
	})
}

func TestKeepAliveRenewsUntilTheKeyIsNotItsAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &untimed{}
		s := open(t, u.driver(), nil)
		alive := &valkeyrie.WriteOptions{TTL: 9 * time.Second, KeepAlive: true}
		require.NoError(t, s.Put(t.Context(), "a", nil, alive))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"renew a 3s", "renew a 6s", "renew a 9s"}, u.seen())
		u.setAway(true) // an outage shorter than the TTL costs nothing
		time.Sleep(5 * time.Second)
		u.setAway(false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		assert.Contains(t, u.revisions, "a")

		require.NoError(t, s.d.Delete(t.Context(), "a", u.revisions["a"])) // as another process would
		time.Sleep(4 * time.Second)
		before := len(u.seen())
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Len(t, u.seen(), before, "deleted: nobody renews")
		assert.Zero(t, s.ttl.duties.Load())
	})
}

func TestDutiesEndWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &untimed{}
		s := open(t, u.driver(), nil)
		for i := range 100 {
			require.NoError(t, s.Put(t.Context(), fmt.Sprint(i), nil, ttl(time.Second)))
		}
		require.NoError(t, s.Close())
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Empty(t, u.seen())
	})
}

func TestOptionsThatCannotBeMeantAreRefused(t *testing.T) {
	s := open(t, &scripted{}, nil)
	for _, o := range []*valkeyrie.WriteOptions{ttl(-1), {KeepAlive: true}} {
		require.ErrorIs(t, s.Put(t.Context(), "a", nil, o), valkeyrie.ErrInvalidOption)
		_, _, err := s.AtomicPut(t.Context(), "a", nil, nil, o)
		require.ErrorIs(t, err, valkeyrie.ErrInvalidOption)
	}
	_, err := s.NewLock(t.Context(), "a", &valkeyrie.LockOptions{TTL: -1})
	require.ErrorIs(t, err, valkeyrie.ErrInvalidOption)
}
