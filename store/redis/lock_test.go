package redis

import (
	"errors"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/store"
)

// newTestDriver makes a driver without the front.
func newTestDriver(t *testing.T, endpoints []string, opts Options) *driver {
	t.Helper()
	settings, err := store.Settings(StoreName, nil)
	require.NoError(t, err)
	d := newDriver(endpoints, settings, opts.withDefaults())
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func TestALockOfTheSameOwnerIsFree(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	for name, d := range map[string]*driver{
		"single":  newTestDriver(t, testserver.Redis(t).Endpoints, Options{}),
		"cluster": newTestDriver(t, testserver.RedisCluster(t).Endpoints, Options{Cluster: true}),
	} {
		t.Run(name, func(t *testing.T) {
			mine := store.LockRequest{Key: "own/lock", Value: []byte("v"), TTL: time.Minute, Owner: "me"}
			first, err := d.TryLock(ctx, mine)
			require.NoError(t, err)
			for _, owner := range []string{"you", "m", "mee", "mev"} {
				theirs := mine
				theirs.Owner = owner
				_, err = d.TryLock(ctx, theirs)
				require.ErrorIs(t, err, valkeyrie.ErrLockHeld, owner)
			}
			second, err := d.TryLock(ctx, mine) // as if the answer to the first had been lost
			require.NoError(t, err)
			assert.Greater(t, second.Token(), first.Token())
			require.ErrorIs(t, first.Renew(ctx), valkeyrie.ErrLockNotHeld)
			require.ErrorIs(t, first.Release(ctx), valkeyrie.ErrLockNotHeld, "a later hold of the same owner")
			require.NoError(t, second.Renew(ctx))
			p, err := d.Get(ctx, "own/lock", valkeyrie.ReadOptions{})
			require.NoError(t, err)
			assert.Equal(t, "v", string(p.Value))
			assert.Equal(t, second.Revision(), p.LastIndex)
			require.NoError(t, second.Release(ctx))
		})
	}
}

func TestATokenGrowsAlthoughTheClockWasSetBack(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.Redis(t)
	s, c := open(t, server.Endpoints, nil, nil), raw(t, server.Endpoints[0])
	l, err := s.NewLock(ctx, "back/lock", nil)
	require.NoError(t, err)
	_, err = l.Lock(ctx)
	require.NoError(t, err)
	require.NoError(t, l.Unlock(ctx))
	left, err := redis.Int64(do(t, c, "PTTL", tokenKey("back/lock", false)), nil)
	require.NoError(t, err)
	assert.InDelta(t, milliseconds(tokenKept+valkeyrie.DefaultLockTTL), left, 60_000, "it is remembered, and not for ever")

	ahead := uint64(time.Now().Add(time.Hour).UnixMicro()) // the clock said that before
	do(t, c, "SET", tokenKey("back/lock", false), ahead)
	for i := range uint64(3) {
		_, err = l.Lock(ctx)
		require.NoError(t, err)
		assert.Equal(t, ahead+1+i, l.Token())
		require.NoError(t, l.Unlock(ctx))
	}
}

// TestLocksOutliveARestartWhereTheDefaultUserIsOff: Redis before late 2025 forgets
// transactions then, and scripts that write twice.
func TestLocksOutliveARestartWhereTheDefaultUserIsOff(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{Durable: true, Args: onlyAnn})
	s := open(t, server.Endpoints, &valkeyrie.Config{Username: "ann", Password: "ann"}, nil)
	l, err := s.NewLock(ctx, "l", &valkeyrie.LockOptions{TTL: time.Minute})
	require.NoError(t, err)
	lost, err := l.Lock(ctx)
	require.NoError(t, err)
	require.NoError(t, server.Members[0].Restart())
	other, err := s.NewLock(ctx, "l", nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err = other.TryLock(ctx)
		require.Error(t, err)
		return errors.Is(err, valkeyrie.ErrLockHeld)
	}, 20*time.Second, 10*time.Millisecond)
	select {
	case <-lost:
		t.Fatal("lost over a restart shorter than its TTL")
	default:
	}
	require.NoError(t, l.Unlock(ctx))
}
