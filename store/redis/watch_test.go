package redis

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestMissingFlags(t *testing.T) {
	for set, want := range map[string]string{
		"": "Kg$xe", "K": "g$xe", "AE": "K", "AK": "", "KEA": "", "gxE$": "Ke", "lK": "g$xe", "Kg$xe": "",
	} {
		assert.Equal(t, want, missingFlags(set), "%q", set)
	}
}

// setting reads the flags of a server.
func setting(t *testing.T, c redis.Conn) string {
	t.Helper()
	set, err := redis.StringMap(do(t, c, "CONFIG", "GET", "notify-keyspace-events"), nil)
	require.NoError(t, err)
	return set["notify-keyspace-events"]
}

func TestNotificationsAreAddedWhenAWatchStarts(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{Args: []string{"--notify-keyspace-events", "Elh"}})
	c := raw(t, server.Endpoints[0])
	s := open(t, server.Endpoints, nil, nil)
	before := setting(t, c)
	require.NoError(t, s.Put(ctx, "k", nil, nil))
	_, err := s.List(ctx, "", nil)
	require.NoError(t, err)
	assert.Equal(t, before, setting(t, c), "no call but a watch changes the server")

	_, err = s.Watch(ctx, "k", nil)
	require.NoError(t, err)
	after := setting(t, c)
	for _, flag := range before + neededFlags {
		assert.Contains(t, after, string(flag))
	}
	assert.Len(t, after, len(before)+len(neededFlags), "and nothing else")
}

func TestKeepNotificationsChangesNothing(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	c := raw(t, server.Endpoints[0])
	s := open(t, server.Endpoints, nil, &Options{Notifications: KeepNotifications, PollInterval: 50 * time.Millisecond, ResyncInterval: time.Hour})
	states, err := s.Watch(ctx, "k", nil)
	require.NoError(t, err)
	assert.Nil(t, (<-states).Value)
	require.NoError(t, s.Put(ctx, "k", []byte("polled"), nil))
	assert.Equal(t, "polled", string((<-states).Value))
	assert.Empty(t, setting(t, c))
}

func TestNotificationsThatAreOnNeedNoPolling(t *testing.T) {
	for name, mode := range map[string]Notifications{"keep": KeepNotifications, "trust": TrustNotifications} {
		t.Run(name, func(t *testing.T) {
			ctx := testserver.Within(t, time.Minute)
			server := testserver.StartRedis(t, testserver.RedisOptions{Args: []string{"--notify-keyspace-events", "KA"}})
			s := open(t, server.Endpoints, nil, &Options{Notifications: mode, PollInterval: time.Hour, ResyncInterval: time.Hour})
			states, err := s.WatchTree(ctx, "d", nil)
			require.NoError(t, err)
			assert.Empty(t, <-states)
			require.NoError(t, s.Put(ctx, "d/k", []byte("told"), nil))
			assert.Len(t, <-states, 1)
		})
	}
}

func TestAllWatchesShareOneConnection(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	c := raw(t, server.Endpoints[0])
	s := open(t, server.Endpoints, nil, nil)
	var last <-chan []*valkeyrie.KVPair
	for i := range 50 {
		_, err := s.Watch(ctx, fmt.Sprintf("w/%d", i), nil)
		require.NoError(t, err)
		last, err = s.WatchTree(ctx, fmt.Sprintf("w/%d", i), nil)
		require.NoError(t, err)
	}
	assert.Empty(t, <-last)
	_, err := s.Get(ctx, "w/49/k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	clients, err := redis.String(do(t, c, "CLIENT", "LIST"), nil)
	require.NoError(t, err)
	var n int
	for _, b := range clients {
		if b == '\n' {
			n++
		}
	}
	assert.LessOrEqual(t, n, 1+4, "this test's, two for calls, one for lists, one for notifications:\n%s", clients)
}

func TestSubscriptionsEndWithTheirWatches(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	c := raw(t, server.Endpoints[0])
	s := open(t, server.Endpoints, nil, nil)
	subscribed := func() int {
		channels, err := redis.Values(do(t, c, "PUBSUB", "CHANNELS"), nil)
		require.NoError(t, err)
		patterns, err := redis.Int(do(t, c, "PUBSUB", "NUMPAT"), nil)
		require.NoError(t, err)
		return len(channels) + patterns
	}
	for range 20 {
		watch, cancel := context.WithCancel(ctx)
		_, err := s.Watch(watch, "k", nil)
		require.NoError(t, err)
		_, err = s.WatchTree(watch, "k", nil)
		require.NoError(t, err)
		assert.Equal(t, 2, subscribed())
		cancel()
		require.Eventually(t, func() bool { return subscribed() == 0 }, 10*time.Second, time.Millisecond)
	}
}

func TestANotificationThatIsLostIsMadeUpFor(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	c := raw(t, server.Endpoints[0])
	s := open(t, server.Endpoints, nil, &Options{ResyncInterval: 200 * time.Millisecond})
	states, err := s.WatchTree(ctx, "d", nil)
	require.NoError(t, err)
	assert.Empty(t, <-states)
	do(t, c, "CONFIG", "SET", "notify-keyspace-events", "") // somebody switches them off
	require.NoError(t, s.Put(ctx, "d/k", nil, nil))
	assert.Len(t, <-states, 1)
}

func TestAWatchBeginsAgainWhenItsConnectionIsKilled(t *testing.T) {
	t.Parallel()
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	c := raw(t, server.Endpoints[0])
	s := open(t, server.Endpoints, nil, &Options{ResyncInterval: time.Hour})
	states, err := s.Watch(ctx, "k", nil)
	require.NoError(t, err)
	assert.Nil(t, (<-states).Value)
	for i := range 3 { // the pauses between attempts grow
		n, err := redis.Int(do(t, c, "CLIENT", "KILL", "TYPE", "pubsub"), nil)
		require.NoError(t, err)
		assert.LessOrEqual(t, n, 1)
		value := fmt.Sprint(i)
		require.NoError(t, s.Put(ctx, "k", []byte(value), nil)) // while there is no subscription
		for p := range states {
			if string(p.Value) == value {
				break
			}
		}
	}
}

func TestAnExpiryIsToldThoughTheServerDoesNotTell(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{Args: []string{"--enable-debug-command", "yes"}})
	c := raw(t, server.Endpoints[0])
	do(t, c, "DEBUG", "SET-ACTIVE-EXPIRE", 0) // the server deletes only what is asked for
	s := open(t, server.Endpoints, nil, &Options{ResyncInterval: time.Hour})
	require.NoError(t, s.Put(ctx, "d/old", []byte("v"), &valkeyrie.WriteOptions{TTL: 300 * time.Millisecond}))
	states, err := s.WatchTree(ctx, "d", nil)
	require.NoError(t, err)
	assert.Len(t, <-states, 1)
	assert.Empty(t, <-states, "a key that was there at the start")
	began := time.Now()
	require.NoError(t, s.Put(ctx, "d/new", []byte("v"), &valkeyrie.WriteOptions{TTL: 300 * time.Millisecond}))
	assert.Len(t, <-states, 1)
	assert.Empty(t, <-states, "a key that came later")
	assert.Less(t, time.Since(began), 1300*time.Millisecond)
}
