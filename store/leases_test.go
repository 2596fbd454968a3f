package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// leased makes Leases in whole seconds whose n-th lease is n.
func leased(group *Group, granted func(n int) error) *Leases[int] {
	n := 0
	return &Leases[int]{
		Group: group,
		Round: func(least time.Duration) time.Duration { return (least + time.Second - 1).Truncate(time.Second) },
		Grant: func(ttl time.Duration) (int, time.Duration, error) {
			n++
			mine := n
			time.Sleep(time.Millisecond) // the way to the server and back
			return mine, ttl, granted(mine)
		},
	}
}

func TestKeysOfTheSameTTLShareALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group Group
		l := leased(&group, func(int) error { return nil })
		counts := make(map[int]int)
		var mu sync.Mutex
		var writers sync.WaitGroup
		for range 2 * keysPerLease {
			writers.Go(func() {
				lease, err := l.Get(t.Context(), 10*time.Second)
				if !assert.NoError(t, err) {
					return
				}
				assert.GreaterOrEqual(t, time.Until(lease.until), 10*time.Second)
				mu.Lock()
				defer mu.Unlock()
				counts[lease.ID]++
			})
		}
		writers.Wait()
		assert.Equal(t, map[int]int{1: keysPerLease, 2: keysPerLease}, counts)

		third, err := l.Get(t.Context(), 10*time.Second)
		require.NoError(t, err)
		assert.Equal(t, 3, third.ID, "a lease takes a bounded number of keys")
		other, err := l.Get(t.Context(), 20*time.Second)
		require.NoError(t, err)
		assert.Equal(t, 4, other.ID, "another TTL has another lease")
		time.Sleep(LeaseWindow(10*time.Second) + time.Second)
		late, err := l.Get(t.Context(), 10*time.Second)
		require.NoError(t, err)
		assert.Equal(t, 5, late.ID, "a lease that would end before the key is not used")
		l.Forget(late)
		next, err := l.Get(t.Context(), 10*time.Second)
		require.NoError(t, err)
		assert.Equal(t, 6, next.ID)
	})
}

func TestALeaseThatIsNotGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group Group
		refused := errors.New("refused")
		l := leased(&group, func(n int) error {
			if n == 1 {
				return refused
			}
			return nil
		})
		_, err := l.Get(t.Context(), time.Second)
		require.ErrorIs(t, err, refused)
		lease, err := l.Get(t.Context(), time.Second)
		require.NoError(t, err, "the next one asks again")
		assert.Equal(t, 2, lease.ID)

		l.Forget(lease)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = l.Get(ctx, time.Second)
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		lease, err = l.Get(t.Context(), time.Second)
		require.NoError(t, err)
		assert.Equal(t, 3, lease.ID, "that its caller left does not end the request for a lease")

		group.Stop()
		l.Forget(lease)
		_, err = l.Get(t.Context(), time.Second)
		require.ErrorIs(t, err, valkeyrie.ErrClosed)
	})
}

func TestLeaseWindow(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		time.Millisecond: time.Second, 20 * time.Second: time.Second, time.Minute: 3 * time.Second,
		20 * time.Minute: time.Minute, 24 * time.Hour: time.Minute,
	} {
		assert.Equal(t, want, LeaseWindow(ttl), ttl)
	}
}
