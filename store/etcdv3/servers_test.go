package etcdv3

import (
	"context"
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

// open opens a store that is closed at the end of the test.
func open(t *testing.T, endpoints []string, cfg *valkeyrie.Config) valkeyrie.Store {
	t.Helper()
	s, err := New(endpoints, cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// raw opens etcd's own client.
func raw(t testing.TB, endpoints []string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestTLS(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.EtcdV3TLS(t)
	s := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.ClientConfig()})
	require.NoError(t, s.Put(ctx, "tls", []byte("v"), nil))

	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stranger := open(t, server.Endpoints, &valkeyrie.Config{TLS: &tls.Config{}}) // does not know the authority
	require.Error(t, stranger.Put(short, "tls", nil, nil))
	plain := open(t, server.Endpoints, nil)
	require.Error(t, plain.Put(short, "tls", nil, nil))

	_, err := New([]string{"http://" + server.Endpoints[0]}, &valkeyrie.Config{TLS: &tls.Config{}}, nil)
	var bad *valkeyrie.InvalidConfigError
	require.ErrorAs(t, err, &bad, "no connection without TLS where TLS was asked for")
	assert.Equal(t, "endpoints", bad.Field)
}

func TestMutualTLS(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.EtcdV3MutualTLS(t)
	s := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.MutualConfig()})
	require.NoError(t, s.Put(ctx, "mutual", []byte("v"), nil))

	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	nobody := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.ClientConfig()})
	require.Error(t, nobody.Put(short, "mutual", nil, nil))
}

// withUsers starts a server with users root (password "root") and ann ("ann"),
// who may do everything below app/.
func withUsers(t *testing.T) []string {
	t.Helper()
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartEtcdV3(t, testserver.EtcdOptions{}).Endpoints
	c := raw(t, endpoints)
	must := func(_ any, err error) { t.Helper(); require.NoError(t, err) }
	must(c.UserAdd(ctx, "root", "root"))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.UserAdd(ctx, "ann", "ann"))
	must(c.RoleAdd(ctx, "app"))
	must(c.RoleGrantPermission(ctx, "app", "app/", clientv3.GetPrefixRangeEnd("app/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	must(c.UserGrantRole(ctx, "ann", "app"))
	must(c.AuthEnable(ctx))
	return endpoints
}

func TestUsers(t *testing.T) {
	endpoints := withUsers(t)
	ctx := testserver.Within(t, time.Minute)
	ann := open(t, endpoints, &valkeyrie.Config{Username: "ann", Password: "ann"})
	require.NoError(t, ann.Put(ctx, "app/k", []byte("v"), &valkeyrie.WriteOptions{TTL: time.Minute}))
	pairs, err := ann.List(ctx, "app", nil)
	require.NoError(t, err)
	assert.Len(t, pairs, 1)
	require.ErrorIs(t, ann.Put(ctx, "other", nil, nil), valkeyrie.ErrUnauthorized)
	_, err = ann.List(ctx, "", nil)
	require.ErrorIs(t, err, valkeyrie.ErrUnauthorized)

	// A right to a prefix is enough for the locks below it, waiting included.
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

	states, err := ann.Watch(ctx, "app/k", nil)
	require.NoError(t, err)
	assert.Equal(t, "v", string((<-states).Value))
}

func TestWrongCredentials(t *testing.T) {
	endpoints := withUsers(t)
	for name, cfg := range map[string]*valkeyrie.Config{
		"wrong password": {Username: "ann", Password: "not hers"},
		"no such user":   {Username: "nobody", Password: "x"},
		"no user":        nil,
		"no right":       {Username: "ann", Password: "ann"},
	} {
		t.Run(name, func(t *testing.T) {
			testutils.RequireUnauthorized(t, open(t, endpoints, cfg), "other")
		})
	}
}

func TestRightsTakenAwayEndAWatch(t *testing.T) {
	endpoints := withUsers(t)
	ctx := testserver.Within(t, time.Minute)
	ann := open(t, endpoints, &valkeyrie.Config{Username: "ann", Password: "ann"})
	root, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Username: "root", Password: "root", Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	require.NoError(t, ann.Put(ctx, "app/k", []byte("v"), nil))
	_, err = root.UserRevokeRole(ctx, "ann", "app")
	require.NoError(t, err)
	_, err = ann.Get(ctx, "app/k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrUnauthorized)
}

func TestAClusterGoesOnWithoutAnyOfItsMembers(t *testing.T) {
	cluster := testserver.StartEtcdV3(t, testserver.EtcdOptions{Members: 3})
	ctx := testserver.Within(t, 3*time.Minute)
	s := open(t, cluster.Endpoints, nil)
	require.NoError(t, s.Put(ctx, "c/n", []byte("0"), nil))
	states, err := s.WatchTree(ctx, "c", nil)
	require.NoError(t, err)
	seen := make(chan string, 1) // the latest state of c/n that the watch showed
	go func() {
		defer close(seen)
		for pairs := range states {
			for _, p := range pairs {
				if p.Key == "c/n" {
					select {
					case <-seen:
					default:
					}
					seen <- string(p.Value)
				}
			}
		}
	}()
	l, err := s.NewLock(ctx, "c-lock", &valkeyrie.LockOptions{TTL: 30 * time.Second})
	require.NoError(t, err)
	lost, err := l.Lock(ctx)
	require.NoError(t, err)

	written, gap := 0, time.Duration(0)
	for _, member := range cluster.Members { // one of them is the leader
		require.NoError(t, member.Kill())
		killed := time.Now()
		for range 20 {
			written++
			for { // a value may be written twice: it is the same one
				call, cancel := context.WithTimeout(ctx, 5*time.Second)
				err := s.Put(call, "c/n", fmt.Append(nil, written), nil)
				cancel()
				if err == nil {
					break
				}
				require.NoError(t, ctx.Err())
			}
			if written%20 == 1 {
				gap = max(gap, time.Since(killed))
			}
		}
		require.NoError(t, member.Restart())
	}
	t.Logf("the first write after a member was killed took at most %v", gap)
	require.Eventually(t, func() bool {
		select {
		case v := <-seen:
			return v == fmt.Sprint(written)
		default:
			return false
		}
	}, 30*time.Second, 10*time.Millisecond, "the watch shows the last state")
	select {
	case <-lost:
		t.Fatal("a lock with a TTL of 30 s was lost although two of three members were always there")
	default:
	}
	require.NoError(t, l.Unlock(ctx))
}

func TestBadConfig(t *testing.T) {
	for _, endpoints := range [][]string{{""}, {"/"}, {"127.0.0.1:2379", " "}} {
		_, err := New(endpoints, nil, nil)
		var bad *valkeyrie.InvalidConfigError
		require.ErrorAs(t, err, &bad, "%q", endpoints)
	}
	_, err := valkeyrie.NewStore(StoreName, nil, &valkeyrie.Config{Backend: Options{}})
	var bad *valkeyrie.InvalidConfigError
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "Config.Backend", bad.Field)
}

func TestNewDoesNotWaitForTheServer(t *testing.T) {
	for name, cfg := range map[string]*valkeyrie.Config{
		"without user": nil,
		"with user":    {Username: "ann", Password: "ann", ConnectionTimeout: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			testutils.RequireUnreachable(t, func() valkeyrie.Store { return open(t, []string{"127.0.0.1:1"}, cfg) })
		})
	}
}
