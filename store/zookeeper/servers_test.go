package zookeeper

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/faultproxy"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestTLS(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.ZooKeeperTLS(t)
	s := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.ClientConfig()})
	require.NoError(t, s.Put(ctx, "tls", []byte("v"), nil))

	for name, cfg := range map[string]*valkeyrie.Config{
		"the authority is not known": {TLS: &tls.Config{MinVersion: tls.VersionTLS12}},
		"no TLS":                     nil,
	} {
		t.Run(name, func(t *testing.T) {
			short, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			require.ErrorIs(t, open(t, server.Endpoints, cfg).Put(short, "tls", nil, nil), valkeyrie.ErrNotReachable)
		})
	}
}

func TestMutualTLS(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.ZooKeeperMutualTLS(t)
	s := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.MutualConfig()})
	require.NoError(t, s.Put(ctx, "mutual", []byte("v"), nil))

	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	nobody := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.ClientConfig()})
	require.ErrorIs(t, nobody.Put(short, "mutual", nil, nil), valkeyrie.ErrNotReachable)
}

func TestTheDataOfTwoUsersIsClosedToEachOther(t *testing.T) {
	ctx := testserver.Within(t, 2*time.Minute)
	server := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{})
	p, err := faultproxy.New(server.Endpoints[0])
	require.NoError(t, err)
	t.Cleanup(p.Close)
	ann := open(t, []string{p.Addr()}, &valkeyrie.Config{Username: "ann", Password: "a"})
	bob := open(t, server.Endpoints, &valkeyrie.Config{Username: "bob", Password: "b"})
	nobody := open(t, server.Endpoints, nil)
	everything := func() {
		require.NoError(t, ann.Put(ctx, "ann/k", []byte("hers"), &valkeyrie.WriteOptions{TTL: time.Minute}))
		require.NoError(t, bob.Put(ctx, "bob/d/k", []byte("his"), &valkeyrie.WriteOptions{TTL: time.Minute}))
		for _, stranger := range []valkeyrie.Store{bob, nobody, open(t, server.Endpoints, &valkeyrie.Config{Username: "ann", Password: "wrong"})} {
			testutils.RequireUnauthorized(t, stranger, "ann")
		}
		testutils.RequireUnauthorized(t, ann, "bob/d")
		for dir, s := range map[string]valkeyrie.Store{"ann": ann, "bob": bob} {
			pairs, err := s.List(ctx, dir, nil)
			require.NoError(t, err)
			assert.Len(t, pairs, 1)
			l, err := s.NewLock(ctx, dir+"/lock", nil)
			require.NoError(t, err)
			_, err = l.Lock(ctx)
			require.NoError(t, err)
			require.NoError(t, l.Unlock(ctx))
		}
	}
	everything()
	p.Cut() // on each connection she has to say again who she is
	require.Eventually(t, func() bool { return ann.Put(ctx, "ann/k", nil, nil) == nil }, 20*time.Second, 10*time.Millisecond)
	everything()

	// What one of them creates nobody else may use, up to the last node.
	c := raw(t, server.Endpoints)
	require.NoError(t, c.AddAuth("digest", []byte("bob:b")))
	shared := 0
	var look func(path string)
	look = func(path string) {
		acl, _, err := c.GetACL(path)
		if err == nil && path != "/" && !strings.HasPrefix(path, "/zookeeper") && !strings.HasPrefix(path, "/.valkeyrie/ttl/open") {
			for _, a := range acl {
				if a.Scheme == "world" {
					shared++
					assert.EqualValues(t, zk.PermRead|zk.PermCreate, a.Perms, path)
				}
			}
		}
		names, _, err := c.Children(path)
		if err != nil {
			require.ErrorIs(t, err, zk.ErrNoAuth, path)
		}
		for _, name := range names {
			look(child(path, name))
		}
	}
	look("/")
	assert.Equal(t, 2, shared, "only /.valkeyrie and /.valkeyrie/ttl, in which each user has a node of his own, are for all")
}

func TestAnACLOfOnesOwn(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{}).Endpoints
	acl := append(zk.AuthACL(zk.PermAll), zk.WorldACL(zk.PermRead)...)
	s, err := New(endpoints, &valkeyrie.Config{Username: "ann", Password: "a"}, &Options{ACL: acl})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.Put(ctx, "public/k", []byte("v"), nil))
	reader := open(t, endpoints, nil)
	pairs, err := reader.List(ctx, "public", nil)
	require.NoError(t, err)
	assert.Len(t, pairs, 1)
	require.ErrorIs(t, reader.Put(ctx, "public/k", nil, nil), valkeyrie.ErrUnauthorized)
}

func TestBadConfig(t *testing.T) {
	var bad *valkeyrie.InvalidConfigError
	for _, endpoints := range [][]string{{""}, {"a:2181/chroot"}, {"a:2181,b:2181"}, {"a", " "}} {
		_, err := New(endpoints, nil, nil)
		require.ErrorAs(t, err, &bad, "%q", endpoints)
		assert.Equal(t, "endpoints", bad.Field)
	}
	for _, opts := range []*Options{{SessionTimeout: -1}, {MaxValue: -1}} {
		_, err := New(nil, nil, opts)
		require.ErrorAs(t, err, &bad)
	}
	_, err := valkeyrie.NewStore(StoreName, nil, &valkeyrie.Config{Backend: Options{}})
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "Config.Backend", bad.Field)
}

func TestNewDoesNotWaitForTheServer(t *testing.T) {
	for name, cfg := range map[string]*valkeyrie.Config{
		"without user": nil,
		"with user":    {Username: "ann", Password: "ann"},
	} {
		t.Run(name, func(t *testing.T) {
			testutils.RequireUnreachable(t, func() valkeyrie.Store {
				return open(t, []string{"127.0.0.1:1", "no.such.host.invalid:2181"}, cfg)
			})
		})
	}
}

func TestAServerThatIsSilentDoesNotHideTheOthers(t *testing.T) {
	server := testserver.ZooKeeper(t)
	dead, err := faultproxy.New(server.Endpoints[0])
	require.NoError(t, err)
	t.Cleanup(dead.Close)
	dead.Blackhole(faultproxy.Both)
	ctx := testserver.Within(t, 20*time.Second)
	for range 4 { // the client begins with either
		s := open(t, []string{dead.Addr(), server.Endpoints[0], "127.0.0.1:1"}, nil)
		require.NoError(t, s.Put(ctx, "silent", nil, nil))
	}
}

func TestTheClientPrintsNothing(t *testing.T) {
	// testserver.Main would not notice: the standard logger is what is looked at.
	s := open(t, []string{"127.0.0.1:1"}, nil)
	out := captureLog(t)
	require.Error(t, s.Put(testserver.Within(t, 20*time.Second), "k", nil, nil))
	assert.Empty(t, out())
}
