package consul

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

// leader returns the server that leads, by asking any that answers.
func leader(t *testing.T, cluster *testserver.Consul) *testserver.Server {
	t.Helper()
	for i, endpoint := range cluster.Endpoints {
		var self struct {
			Stats struct {
				Consul struct{ Leader string }
			}
		}
		_, err := raw(t, []string{endpoint}).Raw().Query("/v1/agent/self", &self, nil)
		if err == nil && self.Stats.Consul.Leader == "true" {
			return cluster.Members[i]
		}
	}
	return nil
}

func TestAClusterGoesOnWithoutItsLeader(t *testing.T) {
	cluster := testserver.StartConsul(t, testserver.ConsulOptions{Servers: 3})
	ctx := testserver.Within(t, 3*time.Minute)
	s := open(t, cluster.Endpoints, &valkeyrie.Config{ConnectionTimeout: 6 * time.Second}, nil)
	states, err := s.WatchTree(ctx, "c", nil)
	require.NoError(t, err)
	var mu sync.Mutex
	seen := map[string]string{}
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		for pairs := range states {
			mu.Lock()
			for _, p := range pairs {
				seen[p.Key] = string(p.Value)
			}
			mu.Unlock()
		}
	}()
	l, err := s.NewLock(ctx, "c-lock", &valkeyrie.LockOptions{TTL: time.Minute})
	require.NoError(t, err)
	lost, err := l.Lock(ctx)
	require.NoError(t, err)

	load, stop := context.WithCancel(ctx)
	var writers sync.WaitGroup
	written := make([]int, 8)
	var gap time.Duration
	for w := range written {
		writers.Go(func() {
			last := time.Now()
			for load.Err() == nil {
				call, cancel := context.WithTimeout(ctx, 10*time.Second)
				err := s.Put(call, fmt.Sprintf("c/%d", w), fmt.Append(nil, written[w]+1), nil)
				cancel()
				if err != nil {
					// Refused or ambiguous; writing the same value again is right in both cases.
					assert.True(t, errors.Is(err, valkeyrie.ErrNotReachable) || errors.Is(err, valkeyrie.ErrAmbiguous) ||
						errors.Is(err, context.DeadlineExceeded), "%v", err)
					continue
				}
				written[w]++
				mu.Lock()
				gap = max(gap, time.Since(last))
				mu.Unlock()
				last = time.Now()
			}
		})
	}
	for range 2 {
		first := leader(t, cluster)
		require.NotNil(t, first)
		require.NoError(t, first.Kill())
		require.Eventually(t, func() bool { now := leader(t, cluster); return now != nil && now != first }, time.Minute, 50*time.Millisecond)
		require.NoError(t, s.Put(ctx, "c/after", []byte("v"), nil))
		require.NoError(t, first.Restart())
	}
	stop()
	writers.Wait()
	t.Logf("the longest time without a write was %v", gap)
	for w, n := range written {
		require.NotZero(t, n)
		key := fmt.Sprintf("c/%d", w)
		p, err := s.Get(ctx, key, nil)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(n), string(p.Value), "what was confirmed is there")
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return seen[key] == fmt.Sprint(n)
		}, 30*time.Second, 10*time.Millisecond, "the watch shows the last state")
	}
	select {
	case <-lost:
		t.Fatal("a lock with a TTL of a minute was lost although two of three servers were always there")
	default:
	}
	require.NoError(t, l.Unlock(ctx))
}
