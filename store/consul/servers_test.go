package consul

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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

func TestTLS(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.ConsulTLS(t)
	client, transport := *http.DefaultClient, http.DefaultTransport
	before := transport.(*http.Transport).TLSClientConfig
	for _, endpoint := range []string{server.Endpoints[0], "https://" + server.Endpoints[0]} {
		s := open(t, []string{endpoint}, &valkeyrie.Config{TLS: server.Certs.ClientConfig()}, nil)
		require.NoError(t, s.Put(ctx, "tls", []byte("v"), nil))
		states, err := s.Watch(ctx, "tls", nil)
		require.NoError(t, err)
		assert.Equal(t, "v", string((<-states).Value))
		l, err := s.NewLock(ctx, "tls-lock", nil)
		require.NoError(t, err)
		_, err = l.Lock(ctx)
		require.NoError(t, err)
		require.NoError(t, l.Unlock(ctx))
	}
	assert.Equal(t, client, *http.DefaultClient)
	assert.Same(t, transport, http.DefaultTransport)
	assert.Same(t, before, http.DefaultTransport.(*http.Transport).TLSClientConfig)

	stranger := open(t, server.Endpoints, &valkeyrie.Config{TLS: &tls.Config{}}, nil) // does not know the authority
	require.ErrorIs(t, stranger.Put(ctx, "tls", nil, nil), valkeyrie.ErrNotReachable)
	plain := open(t, server.Endpoints, nil, nil)
	err := plain.Put(ctx, "tls", nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	require.NotErrorIs(t, err, valkeyrie.ErrAmbiguous)

	_, err = New([]string{"http://" + server.Endpoints[0]}, &valkeyrie.Config{TLS: &tls.Config{}}, nil)
	var bad *valkeyrie.InvalidConfigError
	require.ErrorAs(t, err, &bad, "no connection without TLS where TLS was asked for")
	assert.Equal(t, "endpoints", bad.Field)
}

func TestMutualTLS(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartConsul(t, testserver.ConsulOptions{ClientCerts: true})
	s := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.MutualConfig()}, nil)
	require.NoError(t, s.Put(ctx, "mutual", []byte("v"), nil))
	nobody := open(t, server.Endpoints, &valkeyrie.Config{TLS: server.Certs.ClientConfig()}, nil)
	err := nobody.Put(ctx, "mutual", nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	require.NotErrorIs(t, err, valkeyrie.ErrAmbiguous)
}

// token makes a token with the rules; none: one without rights.
func token(t *testing.T, server *testserver.Consul, rules string) (secret, policy string) {
	t.Helper()
	c := raw(t, server.Endpoints)
	admin := &api.WriteOptions{Token: server.Token}
	made := &api.ACLToken{}
	if rules != "" {
		p, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: fmt.Sprintf("p%d", time.Now().UnixNano()), Rules: rules}, admin)
		require.NoError(t, err)
		made.Policies = []*api.ACLTokenPolicyLink{{ID: p.ID}}
		policy = p.ID
	}
	made, _, err := c.ACL().TokenCreate(made, admin)
	require.NoError(t, err)
	return made.SecretID, policy
}

func TestATokenWithoutRightsIsUnauthorizedOnEveryCall(t *testing.T) {
	server := testserver.ConsulACL(t)
	owner := open(t, server.Endpoints, &valkeyrie.Config{Token: server.Token}, nil)
	require.NoError(t, owner.Put(testserver.Within(t, time.Minute), "acl-full/k", []byte("v"), nil))
	without, _ := token(t, server, "")
	other, _ := token(t, server, `key_prefix "acl-other/" { policy = "write" } session_prefix "" { policy = "write" }`)
	for name, cfg := range map[string]*valkeyrie.Config{
		"no right":          {Token: without},
		"no right to these": {Token: other},
		"no token":          nil,
		"no such token":     {Token: "11111111-1111-4111-8111-111111111111"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, server.Endpoints, cfg, nil)
			testutils.RequireUnauthorized(t, s, "acl-full")
			testutils.RequireUnauthorized(t, s, "acl-empty")
		})
	}
	p, err := owner.Get(testserver.Within(t, time.Minute), "acl-full/k", nil)
	require.NoError(t, err)
	assert.Equal(t, "v", string(p.Value))
}

func TestATokenWithRightsToADirectory(t *testing.T) {
	server := testserver.ConsulACL(t)
	ctx := testserver.Within(t, time.Minute)
	secret, _ := token(t, server, `key_prefix "acl-app/" { policy = "write" } session_prefix "" { policy = "write" }`)
	s := open(t, server.Endpoints, &valkeyrie.Config{Token: secret}, nil)
	owner := open(t, server.Endpoints, &valkeyrie.Config{Token: server.Token}, nil)
	require.NoError(t, owner.Put(ctx, "acl-foreign/k", nil, nil))
	require.NoError(t, s.Put(ctx, "acl-app/ttl", []byte("v"), &valkeyrie.WriteOptions{TTL: time.Minute}))
	require.NoError(t, s.Put(ctx, "acl-app/k", []byte("v"), nil))
	pairs, err := s.List(ctx, "acl-app", nil)
	require.NoError(t, err)
	assert.Len(t, pairs, 2)
	_, err = s.List(ctx, "", nil)
	require.ErrorIs(t, err, valkeyrie.ErrUnauthorized, "a part of the keys must not pass for all")

	// Writers who are many at a time share transactions, and not each other's errors.
	var writers sync.WaitGroup
	errs := make([]error, 200)
	for i := range errs {
		writers.Go(func() {
			dir := []string{"acl-app", "acl-foreign"}[i%2]
			errs[i] = s.Put(ctx, fmt.Sprintf("%s/batch/%d", dir, i), nil, nil)
		})
	}
	writers.Wait()
	for i, err := range errs {
		if i%2 == 0 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, valkeyrie.ErrUnauthorized)
		}
	}
	l, err := s.NewLock(ctx, "acl-app/lock", nil)
	require.NoError(t, err)
	_, err = l.Lock(ctx)
	require.NoError(t, err)
	require.NoError(t, l.Unlock(ctx))
	require.NoError(t, s.DeleteTree(ctx, "acl-app"))
}

func TestRightsTakenAwayEndAWatch(t *testing.T) {
	server := testserver.ConsulACL(t)
	ctx := testserver.Within(t, time.Minute)
	secret, policy := token(t, server, `key_prefix "acl-gone/" { policy = "write" }`)
	s := open(t, server.Endpoints, &valkeyrie.Config{Token: secret}, &Options{WaitTime: time.Second})
	require.NoError(t, s.Put(ctx, "acl-gone/k", []byte("v"), nil))
	one, err := s.Watch(ctx, "acl-gone/k", nil)
	require.NoError(t, err)
	tree, err := s.WatchTree(ctx, "acl-gone", nil)
	require.NoError(t, err)
	<-one
	<-tree
	_, err = raw(t, server.Endpoints).ACL().PolicyDelete(policy, &api.WriteOptions{Token: server.Token})
	require.NoError(t, err)
	for range one { // until it ends
	}
	for range tree {
	}
	require.NoError(t, ctx.Err(), "the watches end by themselves")
}
