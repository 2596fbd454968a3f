package redis

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

// latest keeps the latest state of a watch.
func latest(states <-chan *valkeyrie.KVPair) func() string {
	last := make(chan string, 1)
	last <- ""
	go func() {
		for p := range states {
			<-last
			last <- string(p.Value)
		}
	}()
	return func() string {
		v := <-last
		last <- v
		return v
	}
}

// role is the role of a server, of a replica with the state of its link. A server
// whose role changes drops its connections.
func role(addr string) string {
	c, err := redis.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	parts, err := redis.Values(c.Do("ROLE"))
	if err != nil {
		return err.Error()
	}
	is := string(parts[0].([]byte))
	if is == "slave" {
		is += " " + string(parts[3].([]byte))
	}
	return is
}

func TestSentinelFailoverUnderLoad(t *testing.T) {
	t.Parallel()
	group := testserver.StartRedisSentinel(t)
	ctx := testserver.Within(t, 3*time.Minute)
	s := open(t, group.Endpoints, nil, &Options{Sentinel: &Sentinel{MasterName: group.Master}})
	require.NoError(t, s.Put(ctx, "n", []byte("0"), nil))
	states, err := s.Watch(ctx, "n", nil)
	require.NoError(t, err)
	seen := latest(states)

	stop, load := make(chan struct{}), make(chan error, 8)
	for g := range cap(load) { // others who use the store all the time
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					load <- nil
					return
				default:
				}
				err := s.Put(ctx, fmt.Sprintf("load/%d", g), fmt.Append(nil, i), nil)
				if err != nil && !errors.Is(err, valkeyrie.ErrNotReachable) && !errors.Is(err, valkeyrie.ErrAmbiguous) {
					load <- err
					return
				}
			}
		}()
	}
	write := func(value string) time.Duration {
		began := time.Now()
		for {
			call, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := s.Put(call, "n", []byte(value), nil)
			cancel()
			if err == nil {
				return time.Since(began)
			}
			require.NoError(t, ctx.Err())
		}
	}
	require.NoError(t, group.Members[0].Kill())
	t.Logf("the first write after the primary was killed took %v", write("after the failover"))
	require.Eventually(t, func() bool { return seen() == "after the failover" }, 30*time.Second, time.Millisecond)

	// The old primary comes back, as a replica; then the roles change in order.
	require.NoError(t, group.Members[0].Restart())
	write("with the old one back")
	old := group.Members[0].Addr()
	require.Eventually(t, func() bool { return role(old) == "slave connected" }, time.Minute, 10*time.Millisecond,
		"the sentinels make it a replica")
	sentinel := raw(t, group.Endpoints[0])
	require.Eventually(t, func() bool {
		_, err := sentinel.Do("SENTINEL", "FAILOVER", group.Master)
		return err == nil
	}, time.Minute, 100*time.Millisecond)
	require.Eventually(t, func() bool { return role(old) == "master" }, time.Minute, 10*time.Millisecond)
	write("after the switch back")
	p, err := s.Get(ctx, "n", nil)
	require.NoError(t, err)
	assert.Equal(t, "after the switch back", string(p.Value))
	require.Eventually(t, func() bool { return seen() == "after the switch back" }, 30*time.Second, time.Millisecond)
	close(stop)
	for range cap(load) {
		require.NoError(t, <-load)
	}
}

func TestATokenGrowsAcrossAFailover(t *testing.T) {
	t.Parallel()
	group := testserver.StartRedisSentinel(t)
	ctx := testserver.Within(t, 3*time.Minute)
	s := open(t, group.Endpoints, nil, &Options{Sentinel: &Sentinel{MasterName: group.Master}})
	l, err := s.NewLock(ctx, "l", &valkeyrie.LockOptions{TTL: 2 * time.Second})
	require.NoError(t, err)
	lost, err := l.Lock(ctx)
	require.NoError(t, err)
	before := l.Token()
	require.NoError(t, group.Members[0].Kill())
	<-lost // the sentinels need longer than the TTL
	require.Eventually(t, func() bool {
		_, err = l.Lock(ctx)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	assert.Greater(t, l.Token(), before)
	require.NoError(t, l.Unlock(ctx))
}

func TestSentinelsThatCannotHelp(t *testing.T) {
	t.Parallel()
	group := testserver.StartRedisSentinel(t)
	ctx := testserver.Within(t, time.Minute)
	wrong := open(t, group.Endpoints, nil, &Options{Sentinel: &Sentinel{MasterName: "nosuch"}})
	err := wrong.Put(ctx, "k", nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	require.ErrorContains(t, err, "does not know a primary of that name")
	require.ErrorContains(t, err, "nosuch")
	_, err = wrong.Watch(ctx, "k", nil)
	require.ErrorContains(t, err, "nosuch")

	s := open(t, group.Endpoints, nil, &Options{Sentinel: &Sentinel{MasterName: group.Master}})
	require.NoError(t, s.Put(ctx, "k", nil, nil))
	for _, sentinel := range group.Sentinels {
		require.NoError(t, sentinel.Kill())
	}
	require.NoError(t, s.Put(ctx, "k", []byte("v"), nil), "who is connected needs no sentinel")
	late := open(t, group.Endpoints, nil, &Options{Sentinel: &Sentinel{MasterName: group.Master}})
	err = late.Put(ctx, "k", nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	for _, addr := range group.Endpoints {
		require.ErrorContains(t, err, addr, "it says whom it asked")
	}
	require.NoError(t, group.Sentinels[2].Restart())
	require.Eventually(t, func() bool { return late.Put(ctx, "k", nil, nil) == nil }, 20*time.Second, 10*time.Millisecond, "one is enough")
}
