package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/faultproxy"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

// proxied opens a store behind a proxy that can do harm.
func proxied(t *testing.T, opts *Options) (*faultproxy.Proxy, valkeyrie.Store) {
	t.Helper()
	p, err := faultproxy.New(testserver.Redis(t).Endpoints[0])
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p, open(t, []string{p.Addr()}, nil, opts)
}

// alone makes calls until a caller who is alone has a connection of his own.
func alone(t *testing.T, p *faultproxy.Proxy, s valkeyrie.Store) {
	t.Helper()
	ctx := testserver.Within(t, time.Minute)
	require.Eventually(t, func() bool {
		_, err := s.Exists(ctx, "alone", nil)
		require.NoError(t, err)
		return p.Connections() == 2
	}, 20*time.Second, 100*time.Microsecond)
	for range 2 * lonelyEnough {
		require.NoError(t, s.Put(ctx, "alone", []byte("before"), nil))
	}
}

func TestACallerWhoIsAloneLeavesWithHisContext(t *testing.T) {
	p, s := proxied(t, nil)
	alone(t, p, s)
	p.Blackhole(faultproxy.ToClient)
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := s.Put(ctx, "alone", []byte("unknown"), nil)
	require.ErrorIs(t, err, valkeyrie.ErrAmbiguous)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, time.Since(began), time.Second)
	require.NoError(t, p.Pass())
	require.Eventually(t, func() bool {
		got, err := s.Get(testserver.Within(t, 10*time.Second), "alone", nil)
		return err == nil && string(got.Value) == "unknown"
	}, 20*time.Second, time.Millisecond)
}

// TestTheConnectionOfACallerWhoIsAloneDoesNotIdle: a write on one that the server
// or what is between has closed would be ambiguous for no reason.
func TestTheConnectionOfACallerWhoIsAloneDoesNotIdle(t *testing.T) {
	p, s := proxied(t, &Options{ReplyTimeout: 300 * time.Millisecond})
	alone(t, p, s)
	require.Eventually(t, func() bool { return p.Connections() == 1 }, 20*time.Second, time.Millisecond)
	require.NoError(t, s.Put(testserver.Within(t, time.Minute), "alone", nil, nil))
}

func TestSilenceIsNoticedWithoutAContext(t *testing.T) {
	for name, warm := range map[string]bool{"on the shared connection": false, "alone": true} {
		t.Run(name, func(t *testing.T) {
			p, s := proxied(t, &Options{ReplyTimeout: time.Second})
			require.NoError(t, s.Put(context.Background(), "silence", nil, nil))
			if warm {
				alone(t, p, s)
			}
			p.Blackhole(faultproxy.Both)
			began := time.Now()
			err := s.Put(context.Background(), "silence", nil, nil)
			require.ErrorIs(t, err, valkeyrie.ErrAmbiguous)
			assert.Less(t, time.Since(began), 5*time.Second)
			require.NoError(t, p.Pass())
			require.Eventually(t, func() bool { return s.Put(testserver.Within(t, time.Minute), "silence", nil, nil) == nil }, 20*time.Second, time.Millisecond)
		})
	}
}

func TestACallOfACallerWhoIsAloneEndsWithClose(t *testing.T) {
	p, s := proxied(t, nil)
	alone(t, p, s)
	p.Blackhole(faultproxy.ToClient)
	got := make(chan error, 1)
	go func() {
		_, err := s.Get(context.Background(), "alone", nil)
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("answered: %v", err)
	case <-time.After(100 * time.Millisecond): // it is under way
	}
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-got, valkeyrie.ErrClosed)
}

func TestWhoLeavesEarlyDisturbsNobody(t *testing.T) {
	p, s := proxied(t, nil)
	ctx := testserver.Within(t, time.Minute)
	for i := range 10 {
		require.NoError(t, s.Put(ctx, fmt.Sprintf("early/%d", i), fmt.Append(nil, i), nil))
	}
	p.Delay(faultproxy.ToClient, 5*time.Millisecond) // so that all are under way at a time
	var callers sync.WaitGroup
	for g := range 64 {
		callers.Go(func() {
			for i := range 100 {
				call, cancel := ctx, func() {}
				if (g+i)%3 == 0 {
					call, cancel = context.WithTimeout(ctx, time.Duration(i)*100*time.Microsecond)
				}
				got, err := s.Get(call, fmt.Sprintf("early/%d", i%10), nil)
				cancel()
				switch {
				case err == nil:
					assert.Equal(t, fmt.Sprint(i%10), string(got.Value), "the reply to another call")
				case call == ctx:
					assert.NoError(t, err)
				default:
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				}
			}
		})
	}
	callers.Wait()
}

func TestAWriteThatWasNotSentIsNotAmbiguous(t *testing.T) {
	p, s := proxied(t, nil)
	require.NoError(t, s.Put(testserver.Within(t, time.Minute), "unsent", nil, nil))
	p.Refuse()
	p.Cut()
	var err error
	require.Eventually(t, func() bool { // until the store has seen the cut
		err = s.Put(testserver.Within(t, time.Minute), "unsent", nil, nil)
		return err != nil && !errors.Is(err, valkeyrie.ErrAmbiguous)
	}, 20*time.Second, time.Millisecond)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	require.NoError(t, p.Pass())
	require.Eventually(t, func() bool { return s.Put(testserver.Within(t, time.Minute), "unsent", nil, nil) == nil }, 20*time.Second, time.Millisecond)
}

func TestReadsAreSentAgainWhenTheConnectionBreaks(t *testing.T) {
	p, s := proxied(t, nil)
	ctx := testserver.Within(t, time.Minute)
	require.NoError(t, s.Put(ctx, "again", []byte("v"), nil))
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for tick := time.NewTicker(300 * time.Millisecond); ; {
			select {
			case <-tick.C:
				p.Cut()
			case <-stop:
				return
			}
		}
	})
	for range 2000 {
		_, err := s.Get(ctx, "again", nil)
		require.NoError(t, err)
	}
	close(stop)
	cutting.Wait()
}

func TestScriptsAreLoadedAgain(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	c := raw(t, server.Endpoints[0])
	s := open(t, server.Endpoints, nil, nil)
	_, p, err := s.AtomicPut(ctx, "k", nil, nil, nil)
	require.NoError(t, err)
	for range 3 {
		do(t, c, "SCRIPT", "FLUSH")
		for range 3 {
			_, p, err = s.AtomicPut(ctx, "k", nil, p, nil)
			require.NoError(t, err)
		}
	}
	stats, err := redis.String(do(t, c, "INFO", "commandstats"), nil)
	require.NoError(t, err)
	assert.Contains(t, stats, "cmdstat_eval:calls=3,", "its source is sent once after each time that the server forgot it")
}

func TestAServerThatLoadsItsDataIsWaitedFor(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{Durable: true})
	s := open(t, server.Endpoints, nil, nil)
	require.NoError(t, s.Put(ctx, "k", []byte("kept"), nil))
	for range 5 {
		require.NoError(t, server.Members[0].Restart())
		var got *valkeyrie.KVPair
		require.Eventually(t, func() bool {
			var err error
			got, err = s.Get(ctx, "k", nil)
			if err != nil {
				assert.ErrorIs(t, err, valkeyrie.ErrNotReachable)
			}
			return err == nil
		}, 20*time.Second, time.Millisecond)
		assert.Equal(t, "kept", string(got.Value))
	}
}
