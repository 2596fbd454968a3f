package redis

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

// open opens a store that is closed at the end of the test.
func open(t testing.TB, endpoints []string, cfg *valkeyrie.Config, opts *Options) valkeyrie.Store {
	t.Helper()
	s, err := New(endpoints, cfg, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// raw opens a connection of redigo.
func raw(t testing.TB, addr string, opts ...redis.DialOption) redis.Conn {
	t.Helper()
	c, err := redis.Dial("tcp", addr, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// do sends a command that must succeed.
func do(t testing.TB, c redis.Conn, cmd string, args ...any) any {
	t.Helper()
	reply, err := c.Do(cmd, args...)
	require.NoError(t, err)
	return reply
}

// addUser adds a user to the ACL of a server.
func addUser(t testing.TB, c redis.Conn, name string, rules ...any) {
	t.Helper()
	do(t, c, "ACL", append([]any{"SETUSER", name, "reset", "on"}, rules...)...)
}

func TestTLS(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.RedisTLS(t)
	s := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.ClientConfig()}, nil)
	require.NoError(t, s.Put(ctx, "tls", []byte("v"), nil))
	states, err := s.Watch(ctx, "tls", nil)
	require.NoError(t, err)
	assert.Equal(t, "v", string((<-states).Value))

	stranger := open(t, server.Endpoints, &valkeyrie.Config{TLS: &tls.Config{}}, nil) // does not know the authority
	require.ErrorIs(t, stranger.Put(ctx, "tls", nil, nil), valkeyrie.ErrNotReachable)
	plain := open(t, server.Endpoints, &valkeyrie.Config{ConnectionTimeout: 2 * time.Second}, nil)
	require.Error(t, plain.Put(ctx, "tls", nil, nil))
}

func TestMutualTLS(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.RedisMutualTLS(t)
	s := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.MutualConfig()}, nil)
	require.NoError(t, s.Put(ctx, "mutual", []byte("v"), nil))
	nobody := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.ClientConfig()}, nil)
	err := nobody.Put(ctx, "mutual", nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	assert.NotErrorIs(t, err, valkeyrie.ErrAmbiguous, "nothing was sent")
}

func TestAUserNeedsARightToHisPrefixOnly(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	addUser(t, raw(t, server.Endpoints[0]), "ann", ">ann", "~app/*", "&__keyspace@0__:app/*", "+@all", "-@admin", "-@dangerous", "+config|get", "+config|set")
	ann := open(t, server.Endpoints, &valkeyrie.Config{Username: "ann", Password: "ann"}, nil)
	require.NoError(t, ann.Put(ctx, "app/k", []byte("v"), &valkeyrie.WriteOptions{TTL: time.Minute}))
	pairs, err := ann.List(ctx, "app", nil)
	require.NoError(t, err)
	assert.Len(t, pairs, 1)
	require.ErrorIs(t, ann.Put(ctx, "other", nil, nil), valkeyrie.ErrUnauthorized)
	_, err = ann.Get(ctx, "other", nil)
	require.ErrorIs(t, err, valkeyrie.ErrUnauthorized)

	states, err := ann.WatchTree(ctx, "app", nil)
	require.NoError(t, err)
	assert.Len(t, <-states, 1)
	require.NoError(t, ann.Put(ctx, "app/k2", nil, nil))
	assert.Len(t, <-states, 2)

	first, err := ann.NewLock(ctx, "app/lock", nil)
	require.NoError(t, err)
	_, err = first.Lock(ctx)
	require.NoError(t, err)
	second, err := ann.NewLock(ctx, "app/lock", nil)
	require.NoError(t, err)
	got := make(chan error, 1)
	go func() {
		_, err := second.Lock(ctx)
		got <- err
	}()
	require.NoError(t, first.Unlock(ctx))
	require.NoError(t, <-got)
	require.NoError(t, second.Unlock(ctx))
}

func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t, testserver.RedisOptions{Args: []string{"--requirepass", "secret"}})
	admin := raw(t, server.Endpoints[0], redis.DialPassword("secret"))
	do(t, admin, "ACL", "SETUSER", "weak", "on", ">weak", "~app/*", "+ping", "+get")
	for name, cfg := range map[string]*valkeyrie.Config{
		"wrong password of a user": {Username: "weak", Password: "not its"},
		"wrong password":           {Password: "wrong"},
		"no such user":             {Username: "nobody", Password: "x"},
		"no user":                  nil,
		"no right":                 {Username: "weak", Password: "weak"},
	} {
		t.Run(name, func(t *testing.T) {
			testutils.RequireUnauthorized(t, open(t, server.Endpoints, cfg, nil), "other")
		})
	}
	s := open(t, server.Endpoints, &valkeyrie.Config{Password: "secret"}, nil)
	require.NoError(t, s.Put(testserver.Within(t, time.Minute), "k", nil, nil), "the password alone, without a user")
}

func TestRightsTakenAwayEndAWatch(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	addUser(t, raw(t, server.Endpoints[0]), "ann", ">ann", "~app/*", "&*", "+@all")
	ctx := testserver.Within(t, time.Minute)
	ann := open(t, server.Endpoints, &valkeyrie.Config{Username: "ann", Password: "ann"}, &Options{ResyncInterval: 100 * time.Millisecond})
	states, err := ann.Watch(ctx, "app/k", nil)
	require.NoError(t, err)
	assert.Nil(t, (<-states).Value)
	addUser(t, raw(t, server.Endpoints[0]), "ann", ">ann", "~other/*", "&*", "+@all")
	for range states { // until it is closed
	}
	require.NoError(t, ctx.Err())
}

func TestEachConnectionSelectsTheDatabase(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{Durable: true})
	seven := open(t, server.Endpoints, nil, &Options{DB: 7})
	zero := open(t, server.Endpoints, nil, nil)
	states, err := seven.Watch(ctx, "k", nil)
	require.NoError(t, err)
	assert.Nil(t, (<-states).Value)
	require.NoError(t, zero.Put(ctx, "k", []byte("in 0"), nil))
	require.NoError(t, seven.Put(ctx, "k", []byte("in 7"), nil))
	assert.Equal(t, "in 7", string((<-states).Value))
	_, err = seven.List(ctx, "", nil)
	require.NoError(t, err)

	require.NoError(t, server.Members[0].Restart())
	var p *valkeyrie.KVPair
	require.Eventually(t, func() bool {
		p, err = seven.Get(ctx, "k", nil)
		return err == nil
	}, 20*time.Second, 10*time.Millisecond)
	assert.Equal(t, "in 7", string(p.Value))
	require.Eventually(t, func() bool { return seven.Put(ctx, "k", []byte("again"), nil) == nil }, 20*time.Second, 10*time.Millisecond)
	for p := range states {
		if string(p.Value) == "again" {
			break
		}
		assert.NotEqual(t, "in 0", string(p.Value))
	}
	n, err := redis.Int(raw(t, server.Endpoints[0], redis.DialDatabase(7)).Do("DBSIZE"))
	require.NoError(t, err)
	assert.Equal(t, 1, n)
}

func TestBadConfig(t *testing.T) {
	one := []string{"127.0.0.1:6379"}
	for field, bad := range map[string]struct {
		endpoints []string
		opts      *Options
	}{
		"endpoints":                   {[]string{"127.0.0.1:1", "127.0.0.1:2"}, nil},
		"endpoints ":                  {[]string{"redis://127.0.0.1:6379"}, nil},
		"endpoints  ":                 {[]string{""}, nil},
		"Options.DB":                  {one, &Options{DB: -1}},
		"Options.DB ":                 {one, &Options{DB: 1, Cluster: true}},
		"Options.Sentinel":            {one, &Options{Sentinel: &Sentinel{MasterName: "m"}, Cluster: true}},
		"Options.Sentinel.MasterName": {one, &Options{Sentinel: &Sentinel{}}},
		"Options.Notifications":       {one, &Options{Notifications: 7}},
		"Options.PollInterval":        {one, &Options{PollInterval: -1}},
	} {
		_, err := New(bad.endpoints, nil, bad.opts)
		var invalid *valkeyrie.InvalidConfigError
		require.ErrorAs(t, err, &invalid, field)
		assert.Equal(t, strings.TrimSpace(field), invalid.Field)
	}
	_, err := valkeyrie.NewStore(StoreName, nil, &valkeyrie.Config{Backend: Options{}})
	var invalid *valkeyrie.InvalidConfigError
	require.ErrorAs(t, err, &invalid)
	assert.Equal(t, "Config.Backend", invalid.Field)
}

func TestNewDoesNotWaitForTheServer(t *testing.T) {
	for name, opts := range map[string]*Options{
		"single":   nil,
		"sentinel": {Sentinel: &Sentinel{MasterName: "main"}},
		"cluster":  {Cluster: true},
	} {
		t.Run(name, func(t *testing.T) {
			testutils.RequireUnreachable(t, func() valkeyrie.Store { return open(t, []string{"127.0.0.1:1"}, nil, opts) })
		})
	}
}

func TestAnErrorSaysThatThereIsNoConnection(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and answers nothing
	require.NoError(t, err)
	defer silent.Close()
	s := open(t, []string{silent.Addr().String()}, &valkeyrie.Config{ConnectionTimeout: 300 * time.Millisecond}, nil)
	ctx := testserver.Within(t, 100*time.Millisecond)
	_, err = s.Get(ctx, "k", nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "no connection yet")
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		defer cancel()
		_, err = s.Get(ctx, "k", nil)
		return strings.Contains(err.Error(), "the last attempt ended with: no connection within 300ms")
	}, 10*time.Second, time.Millisecond)
}

func TestAServerThatTakesNoMoreClients(t *testing.T) {
	server := testserver.StartRedis(t, testserver.RedisOptions{Args: []string{"--maxclients", "1"}})
	require.Eventually(t, func() bool { // the one who looked whether it is up may still be there
		_, err := raw(t, server.Endpoints[0]).Do("PING")
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	s := open(t, server.Endpoints, nil, nil)
	err := s.Put(testserver.Within(t, time.Minute), "k", nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	require.ErrorContains(t, err, "max number of clients")
}
