package redis

import (
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestMain(m *testing.M) { testserver.Main(m) }

// harness describes a server to the suite.
func harness(endpoints []string, opts *Options) testutils.Harness {
	return testutils.Harness{
		Backend: StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			s, err := New(endpoints, cfg, opts)
			require.NoError(t, err)
			return s
		},
	}
}

// with makes every store of a harness one with these settings.
func with(h testutils.Harness, set func(cfg *valkeyrie.Config)) testutils.Harness {
	open := h.New
	h.New = func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
		t.Helper()
		own := *cfg
		set(&own)
		return open(t, &own)
	}
	return h
}

// TestConformance is that of a single server, with all that can be between it and
// the store: TLS with a certificate of the client, a user with few rights.
func TestConformance(t *testing.T) {
	if server := testserver.Redis(t); server.Members == nil { // one that the environment names
		testutils.Run(t, harness(server.Endpoints, nil))
		return
	}
	server := testserver.RedisMutualTLS(t)
	opts := []redis.DialOption{redis.DialUseTLS(true), redis.DialTLSConfig(server.Certs.MutualConfig())}
	addUser(t, raw(t, server.Endpoints[0], opts...), "ann", ">ann", "~*", "&*", "+@all", "-@dangerous", "+config|get", "+config|set")
	testutils.Run(t, with(harness(server.Endpoints, nil), func(cfg *valkeyrie.Config) {
		cfg.TLS, cfg.Username, cfg.Password = server.Certs.MutualConfig(), "ann", "ann"
	}))
}

func TestConformanceOfACluster(t *testing.T) {
	testutils.Run(t, harness(testserver.RedisCluster(t).Endpoints, &Options{Cluster: true}))
}

// TestConformanceOfASentinelGroup is also that of watches that poll: the user has
// neither the right to CONFIG nor to the channels of notifications.
func TestConformanceOfASentinelGroup(t *testing.T) {
	group := testserver.StartRedisSentinel(t)
	for _, m := range group.Members {
		addUser(t, raw(t, m.Addr()), "bob", ">bob", "~*", "+@all", "-config", "-@admin")
	}
	opts := Options{Sentinel: &Sentinel{MasterName: group.Master}, PollInterval: 200 * time.Millisecond}
	h := with(harness(group.Endpoints, &opts), func(cfg *valkeyrie.Config) { cfg.Username, cfg.Password = "bob", "bob" })
	h.HandOver = 2 * time.Second // a poll, and what the suite's other directories do to it
	testutils.Run(t, h)
}
