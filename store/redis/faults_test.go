package redis

import (
	"strings"
	"testing"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/store"
	"github.com/kvtools/valkeyrie/testutils"
)

// TestFaults runs as a user of the ACL: each new connection must authenticate, and
// see TestLocksOutliveARestartWhereTheDefaultUserIsOff.
func TestFaults(t *testing.T) { testutils.RunFaults(t, withFaults()) }

func TestSoak(t *testing.T) { testutils.RunSoak(t, withFaults()) }

// withFaults describes servers of a test's own to the suite.
func withFaults() testutils.Harness {
	h := harness(nil, nil)
	h.Faults = &testutils.Faults{
		Start: func(t testing.TB) *testutils.FaultServer {
			t.Helper()
			one := testserver.StartRedis(t, testserver.RedisOptions{Durable: true, Args: onlyAnn}).Members[0]
			return &testutils.FaultServer{Addr: one.Addr(), Kill: one.Kill, Restart: one.Restart}
		},
		Leftovers: leftovers,
		Open: func(t testing.TB, addr string, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			own := *cfg
			own.Username, own.Password = "ann", "ann"
			s, err := New([]string{addr}, &own, nil)
			require.NoError(t, err)
			return s
		},
	}
	return h
}

// onlyAnn are arguments of a server that ann alone may use.
var onlyAnn = []string{"--user", "ann", "on", ">ann", "~*", "&*", "+@all", "--user", "default", "off"}

// leftovers are keys, but for those that remember the token of a lock for a day, and
// the connections of others than the one that asks.
func leftovers(t testing.TB, addr string) (left []string) {
	t.Helper()
	c := raw(t, addr, redis.DialUsername("ann"), redis.DialPassword("ann"))
	defer c.Close()
	keys, err := redis.Strings(do(t, c, "KEYS", "*"), nil)
	require.NoError(t, err)
	for _, key := range keys {
		if !strings.HasSuffix(key, "/"+store.Reserved+"/token") {
			left = append(left, "key "+key)
			continue
		}
		if ttl, err := redis.Int64(do(t, c, "PTTL", key), nil); err != nil || ttl <= 0 {
			left = append(left, "token that stays for ever: "+key)
		}
	}
	clients, err := redis.String(do(t, c, "CLIENT", "LIST"), nil)
	require.NoError(t, err)
	if n := strings.Count(clients, "\n"); n != 1 {
		left = append(left, clients)
	}
	return left
}
