package local

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

func TestLock(t *testing.T) {
	e := newEnv(t)
	mine := store.LockRequest{Key: "l", Value: []byte("here"), TTL: time.Hour, Owner: "me"}
	other := mine
	other.Owner = "other"

	h, err := e.TryLock(e.ctx, mine)
	require.NoError(t, err)
	p, err := e.Get(e.ctx, "l", valkeyrie.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, "here", string(p.Value))
	require.Equal(t, h.Revision(), p.LastIndex)
	_, err = e.TryLock(e.ctx, other)
	require.ErrorIs(t, err, valkeyrie.ErrLockHeld)

	again, err := e.TryLock(e.ctx, mine)
	require.NoError(t, err, "what the answer of an earlier attempt was lost for is one's own")
	require.Greater(t, again.Token(), h.Token())
	require.ErrorIs(t, h.Renew(e.ctx), valkeyrie.ErrLockNotHeld)
	require.ErrorIs(t, h.Release(e.ctx), valkeyrie.ErrLockNotHeld)

	require.NoError(t, again.Renew(e.ctx))
	p, err = e.Get(e.ctx, "l", valkeyrie.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, again.Revision(), p.LastIndex, "Renew leaves the revision alone")
	require.NoError(t, again.Release(e.ctx))
	require.False(t, e.exists("l"))
	require.ErrorIs(t, again.Release(e.ctx), valkeyrie.ErrLockNotHeld)
	require.ErrorIs(t, again.Renew(e.ctx), valkeyrie.ErrLockNotHeld)

	last, err := e.TryLock(e.ctx, other)
	require.NoError(t, err)
	require.Greater(t, last.Token(), again.Token())
}

func TestLockIsAnOrdinaryKey(t *testing.T) {
	e := newEnv(t)
	e.put("l", "data", 0)
	request := store.LockRequest{Key: "l", TTL: time.Hour, Owner: "me"}
	_, err := e.TryLock(e.ctx, request)
	require.ErrorIs(t, err, valkeyrie.ErrLockHeld, "data counts as held by somebody else")
	require.NoError(t, e.Delete(e.ctx, "l", 0))

	h, err := e.TryLock(e.ctx, request)
	require.NoError(t, err)
	e.put("l", "data", 0)
	require.ErrorIs(t, h.Renew(e.ctx), valkeyrie.ErrLockNotHeld)
	require.ErrorIs(t, h.Release(e.ctx), valkeyrie.ErrLockNotHeld)
	require.True(t, e.exists("l"), "the data of somebody else stays")
}

func TestHoldLastsByRenewal(t *testing.T) {
	e := newEnv(t)
	const ttl = 400 * time.Millisecond
	request := store.LockRequest{Key: "l", TTL: ttl, Owner: "me"}
	h, err := e.TryLock(e.ctx, request)
	require.NoError(t, err)
	commits := e.f.count()
	for begun := time.Now(); time.Since(begun) < 2*ttl; time.Sleep(5 * time.Millisecond) {
		require.NoError(t, h.Renew(e.ctx))
		require.True(t, e.exists("l"))
	}
	require.Equal(t, commits, e.f.count(), "renewals write nothing")
	request.Owner = "other"
	_, err = e.TryLock(e.ctx, request)
	require.ErrorIs(t, err, valkeyrie.ErrLockHeld)

	e.eventually("it expires", func() bool { return !e.exists("l") })
	require.ErrorIs(t, h.Renew(e.ctx), valkeyrie.ErrLockNotHeld)
	require.ErrorIs(t, h.Release(e.ctx), valkeyrie.ErrLockNotHeld)
	next, err := e.TryLock(e.ctx, request)
	require.NoError(t, err)
	require.Greater(t, next.Token(), h.Token())
}
