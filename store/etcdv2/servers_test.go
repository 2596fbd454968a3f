package etcdv2

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	client "go.etcd.io/etcd/client/v2"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

// open opens a store that is closed at the end of the test.
func open(t *testing.T, endpoints []string, cfg *valkeyrie.Config, opts *Options) valkeyrie.Store {
	t.Helper()
	s, err := New(endpoints, cfg, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// raw opens etcd's own client.
func raw(t testing.TB, endpoints ...string) client.KeysAPI {
	t.Helper()
	return client.NewKeysAPI(rawClient(t, client.Config{}, endpoints...))
}

// transport makes an http.Transport of what client.Config wants.
type transport struct{ *http.Transport }

func (transport) CancelRequest(*http.Request) {}

func rawClient(t testing.TB, cfg client.Config, endpoints ...string) client.Client {
	t.Helper()
	tr := transport{&http.Transport{DialContext: new(net.Dialer).DialContext, MaxIdleConnsPerHost: idleConnections}}
	t.Cleanup(tr.CloseIdleConnections)
	cfg.Transport = tr
	for _, e := range endpoints {
		cfg.Endpoints = append(cfg.Endpoints, "http://"+e)
	}
	c, err := client.New(cfg)
	require.NoError(t, err)
	return c
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartEtcdV2(t, testserver.EtcdOptions{ClientCerts: true})
	s := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.MutualConfig()}, nil)
	require.NoError(t, s.Put(ctx, "tls", []byte("v"), nil))
	p, err := s.Get(ctx, "tls", nil)
	require.NoError(t, err)
	assert.Equal(t, "v", string(p.Value))

	for name, cfg := range map[string]*valkeyrie.Config{
		"does not know the authority": {TLS: &tls.Config{}},
		"has no certificate":          {TLS: server.Certs.ClientConfig()},
		"no TLS":                      nil,
	} {
		require.Error(t, open(t, server.Endpoints, cfg, nil).Put(ctx, "tls", nil, nil), name)
	}
	_, err = New([]string{"http://" + server.Endpoints[0]}, &valkeyrie.Config{TLS: &tls.Config{}}, nil)
	var bad *valkeyrie.InvalidConfigError
	require.ErrorAs(t, err, &bad, "no connection without TLS where TLS was asked for")
	assert.Equal(t, "endpoints", bad.Field)
}

// withUsers starts a server with users root (password "root") and ann ("ann"),
// who may do everything below app; nobody else may do anything.
func withUsers(t *testing.T) []string {
	t.Helper()
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartEtcdV2(t, testserver.EtcdOptions{}).Endpoints
	c := rawClient(t, client.Config{Username: "root", Password: "root"}, endpoints...)
	users, roles := client.NewAuthUserAPI(c), client.NewAuthRoleAPI(c)
	must := func(_ any, err error) { t.Helper(); require.NoError(t, err) }
	require.NoError(t, users.AddUser(ctx, "root", "root"))
	require.NoError(t, users.AddUser(ctx, "ann", "ann"))
	require.NoError(t, roles.AddRole(ctx, "app"))
	must(roles.GrantRoleKV(ctx, "app", []string{"/app*"}, client.ReadWritePermission))
	must(users.GrantUser(ctx, "ann", []string{"app"}))
	require.NoError(t, client.NewAuthAPI(c).Enable(ctx))
	must(roles.RevokeRoleKV(ctx, "guest", []string{"/*"}, client.ReadWritePermission))
	return endpoints
}

func TestUsers(t *testing.T) {
	t.Parallel()
	endpoints := withUsers(t)
	t.Run("with rights", func(t *testing.T) {
		ctx := testserver.Within(t, time.Minute)
		ann := open(t, endpoints, &valkeyrie.Config{Username: "ann", Password: "ann"}, nil)
		require.NoError(t, ann.Put(ctx, "app/k", []byte("v"), &valkeyrie.WriteOptions{TTL: time.Minute, KeepAlive: true}))
		pairs, err := ann.List(ctx, "app", nil)
		require.NoError(t, err)
		assert.Len(t, pairs, 1)
		l, err := ann.NewLock(ctx, "app/lock", nil)
		require.NoError(t, err)
		_, err = l.Lock(ctx)
		require.NoError(t, err)
		require.NoError(t, l.Unlock(ctx))
		states, err := ann.Watch(ctx, "app/k", nil)
		require.NoError(t, err)
		assert.Equal(t, "v", string((<-states).Value))
		require.NoError(t, ann.DeleteTree(ctx, "app"))
	})
	for name, cfg := range map[string]*valkeyrie.Config{
		"wrong password": {Username: "ann", Password: "not hers"},
		"no such user":   {Username: "nobody", Password: "x"},
		"no user":        nil,
		"no right":       {Username: "ann", Password: "ann"},
	} {
		t.Run(name, func(t *testing.T) {
			testutils.RequireUnauthorized(t, open(t, endpoints, cfg, nil), "other")
		})
	}
}

func TestRightsTakenAwayEndAWatch(t *testing.T) {
	t.Parallel()
	endpoints := withUsers(t)
	ctx := testserver.Within(t, time.Minute)
	ann := open(t, endpoints, &valkeyrie.Config{Username: "ann", Password: "ann"}, &Options{PollInterval: 100 * time.Millisecond})
	states, err := ann.Watch(ctx, "app/k", nil)
	require.NoError(t, err)
	assert.Nil(t, (<-states).Value)
	root := rawClient(t, client.Config{Username: "root", Password: "root"}, endpoints...)
	_, err = client.NewAuthUserAPI(root).RevokeUser(ctx, "ann", []string{"app"})
	require.NoError(t, err)
	select {
	case _, more := <-states:
		require.False(t, more)
	case <-ctx.Done():
		t.Fatal("the watch goes on")
	}
}

func TestWithoutV2API(t *testing.T) {
	t.Parallel()
	ctx := testserver.Within(t, time.Minute)
	s := open(t, testserver.StartEtcdV2(t, testserver.EtcdOptions{Args: []string{"--enable-v2=false"}}).Endpoints, nil, nil)
	_, err := s.Get(ctx, "k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrCallNotSupported)
	require.ErrorIs(t, err, errNoAPI)
	require.ErrorIs(t, s.Put(ctx, "k", nil, nil), errNoAPI)
	_, err = s.Watch(ctx, "k", nil)
	require.ErrorIs(t, err, errNoAPI)
}

// latest keeps the last value of a key that a watch has shown.
func latest(states <-chan *valkeyrie.KVPair) <-chan string {
	seen := make(chan string, 1)
	go func() {
		defer close(seen)
		for p := range states {
			select {
			case <-seen:
			default:
			}
			seen <- string(p.Value)
		}
	}()
	return seen
}

// putUntilDone puts a value until that succeeds: twice does no harm.
func putUntilDone(ctx context.Context, t *testing.T, s valkeyrie.Store, key, value string) {
	t.Helper()
	for {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := s.Put(call, key, []byte(value), nil)
		cancel()
		if err == nil {
			return
		}
		require.NoError(t, ctx.Err(), "%v", err)
	}
}

func TestAClusterGoesOnWithoutAnyOfItsMembers(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]struct {
		leave, back func(*testserver.Server) error
	}{
		"killed": {(*testserver.Server).Kill, (*testserver.Server).Restart},
		"silent": {(*testserver.Server).Stop, (*testserver.Server).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := testserver.Within(t, 2*time.Minute)
			cluster := testserver.StartEtcdV2(t, testserver.EtcdOptions{Members: 3})
			s := open(t, cluster.Endpoints, &valkeyrie.Config{ConnectionTimeout: 2 * time.Second}, &Options{PollInterval: time.Second})
			states, err := s.Watch(ctx, "n", nil)
			require.NoError(t, err)
			seen := latest(states)
			l, err := s.NewLock(ctx, "lock", &valkeyrie.LockOptions{TTL: 30 * time.Second})
			require.NoError(t, err)
			lost, err := l.Lock(ctx)
			require.NoError(t, err)
			written := 0
			for _, member := range cluster.Members { // one of them is the leader
				require.NoError(t, away.leave(member))
				gone := time.Now()
				for range 20 {
					written++
					putUntilDone(ctx, t, s, "n", fmt.Sprint(written))
					if written%20 == 1 {
						t.Logf("the first write after a member was %s took %v", name, time.Since(gone))
					}
				}
				require.Eventually(t, func() bool {
					select {
					case v := <-seen:
						return v == fmt.Sprint(written)
					default:
						return false
					}
				}, 30*time.Second, 10*time.Millisecond, "the watch shows the last state")
				require.NoError(t, away.back(member))
			}
			select {
			case <-lost:
				t.Fatal("a lock with a TTL of 30 s was lost although two of three members were always there")
			default:
			}
			require.NoError(t, l.Unlock(ctx))
		})
	}
}

func TestNewDoesNotWaitForTheServer(t *testing.T) {
	testutils.RequireUnreachable(t, func() valkeyrie.Store { return open(t, []string{"127.0.0.1:1"}, nil, nil) })
}

func TestBadConfig(t *testing.T) {
	for _, endpoint := range []string{"", " ", "http://127.0.0.1:2379/v2/keys"} {
		_, err := New([]string{"127.0.0.1:2379", endpoint}, nil, nil)
		var bad *valkeyrie.InvalidConfigError
		require.ErrorAs(t, err, &bad, "%q", endpoint)
		assert.Equal(t, "endpoints", bad.Field)
	}
	_, err := valkeyrie.NewStore(StoreName, nil, &valkeyrie.Config{Backend: &Options{PollInterval: -1}})
	var bad *valkeyrie.InvalidConfigError
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "Options.PollInterval", bad.Field)
	for _, endpoint := range []string{"127.0.0.1:2379", "http://127.0.0.1:2379/", "https://127.0.0.1:2379", "[::1]:2379"} {
		open(t, []string{endpoint}, nil, nil)
	}
}
