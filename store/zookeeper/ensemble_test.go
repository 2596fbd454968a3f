package zookeeper

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
	"github.com/kvtools/valkeyrie/store"
)

func TestReadsSeeWhatWasWrittenThroughAnotherMember(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	ensemble := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{Members: 3})
	var stores []valkeyrie.Store
	for _, e := range ensemble.Endpoints {
		stores = append(stores, open(t, []string{e}, nil))
	}
	require.NoError(t, stores[0].Put(ctx, "m/k", []byte("0"), nil))
	for i := range 100 {
		want := fmt.Sprint(i)
		require.NoError(t, stores[i%3].Put(ctx, "m/k", []byte(want), nil))
		for _, s := range stores {
			p, err := s.Get(ctx, "m/k", nil)
			require.NoError(t, err)
			require.Equal(t, want, string(p.Value))
			pairs, err := s.List(ctx, "m", nil)
			require.NoError(t, err)
			require.Equal(t, want, string(pairs[0].Value))
			_, _, err = s.AtomicPut(ctx, "m/k", nil, nil, nil)
			require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
		}
		require.NoError(t, stores[(i+1)%3].Delete(ctx, "m/k"))
		for _, s := range stores {
			there, err := s.Exists(ctx, "m/k", nil)
			require.NoError(t, err)
			require.False(t, there)
			require.ErrorIs(t, s.Delete(ctx, "m/k"), valkeyrie.ErrKeyNotFound)
		}
	}
}

// TestManyCallsAtOnceSeeWhatWasWritten has so many that they are spread over
// sessions with all members.
func TestManyCallsAtOnceSeeWhatWasWritten(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	ensemble := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{Members: 3})
	settings, err := store.Settings(StoreName, nil)
	require.NoError(t, err)
	d, err := newDriver(ensemble.Endpoints, settings, (&Options{SessionTimeout: session}).withDefaults(""))
	require.NoError(t, err)
	s, err := store.New(d, &settings)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	errs := make([]error, 4*crowd)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() { errs[w] = putGetDelete(ctx, s, fmt.Sprintf("many/%d", w), 25) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	for _, c := range d.more {
		assert.True(t, c.gate.Load().open, "a further connection was used")
	}
}

// putGetDelete makes calls each of which must see what the one before wrote.
func putGetDelete(ctx context.Context, s valkeyrie.Store, key string, rounds int) error {
	for i := range rounds {
		value := fmt.Sprint(i)
		if err := s.Put(ctx, key, []byte(value), nil); err != nil {
			return err
		}
		p, err := s.Get(ctx, key, nil)
		if err != nil {
			return err
		}
		if string(p.Value) != value {
			return fmt.Errorf("%s is %q after a put of %q", key, p.Value, value)
		}
		if _, p, err = s.AtomicPut(ctx, key, nil, p, nil); err != nil {
			return err
		}
		if _, err := s.AtomicDelete(ctx, key, p); err != nil {
			return err
		}
		if _, _, err := s.AtomicPut(ctx, key, nil, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

func TestAnEnsembleGoesOnWithoutItsLeader(t *testing.T) {
	ctx := testserver.Within(t, 5*time.Minute)
	ensemble := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{Members: 3})
	s, err := New(ensemble.Endpoints, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	const writers = 8
	counts := make([]int, writers)
	for w := range writers {
		require.NoError(t, s.Put(ctx, fmt.Sprintf("e/n%d", w), []byte("0"), nil))
	}
	states, err := s.WatchTree(ctx, "e", nil)
	require.NoError(t, err)
	l, err := s.NewLock(ctx, "e-lock", &valkeyrie.LockOptions{TTL: 40 * time.Second})
	require.NoError(t, err)
	lost, err := l.Lock(ctx)
	require.NoError(t, err)

	load, stop := context.WithCancel(ctx)
	ended := make(chan error, writers)
	for w := range writers {
		go func() { ended <- count(load, s, fmt.Sprintf("e/n%d", w), &counts[w]) }()
	}
	for range 2 {
		time.Sleep(time.Second) // of load
		leader, err := ensemble.Leader(ctx)
		require.NoError(t, err)
		require.NoError(t, ensemble.Members[leader].Kill())
		killed := time.Now()
		require.Eventually(t, func() bool {
			call, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return s.Put(call, "after", nil, nil) == nil
		}, time.Minute, 10*time.Millisecond)
		t.Logf("the first write after the leader was killed took %v", time.Since(killed))
		require.NoError(t, ensemble.Members[leader].Restart())
	}
	stop()
	for range writers {
		require.NoError(t, <-ended)
	}
	want := make(map[string]string)
	for w, n := range counts {
		key := fmt.Sprintf("e/n%d", w)
		p, err := s.Get(ctx, key, nil)
		require.NoError(t, err)
		want[key] = string(p.Value)
		var got int
		_, err = fmt.Sscan(string(p.Value), &got)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, got, n, "a write that was confirmed is gone")
	}
	for last := map[string]string{}; !assert.ObjectsAreEqual(want, last); {
		pairs, open := <-states
		require.True(t, open)
		last = make(map[string]string)
		for _, p := range pairs {
			last[p.Key] = string(p.Value)
		}
	}
	select {
	case <-lost:
		t.Fatal("a lock with a TTL of 40 s was lost although two of three members were always there")
	default:
	}
	require.NoError(t, l.Unlock(ctx))
}

// count writes growing numbers, each on the condition that the one before is
// there, until ctx is done.
func count(ctx context.Context, s valkeyrie.Store, key string, confirmed *int) error {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		p, err := s.Get(call, key, nil)
		if err == nil {
			var n int
			if _, err := fmt.Sscan(string(p.Value), &n); err != nil {
				cancel()
				return err
			}
			if n < *confirmed {
				cancel()
				return fmt.Errorf("%s is %d after %d was confirmed", key, n, *confirmed)
			}
			if _, _, err = s.AtomicPut(call, key, fmt.Append(nil, n+1), p, nil); err == nil {
				*confirmed = n + 1
			}
		}
		cancel()
	}
	return nil
}
