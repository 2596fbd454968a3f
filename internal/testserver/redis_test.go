package testserver

import (
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/require"
)

// askRedis sends one command to a server that must answer.
func askRedis(t *testing.T, addr, cmd string, args ...any) any {
	t.Helper()
	c, err := dialRedis(t.Context(), addr, nil)
	require.NoError(t, err)
	defer c.Close()
	reply, err := c.Do(cmd, args...)
	require.NoError(t, err)
	return reply
}

func TestRedisKeepsItsDataOverKillAndRestart(t *testing.T) {
	r := StartRedis(t, RedisOptions{Durable: true})
	askRedis(t, r.Endpoints[0], "SET", "k", "before")
	require.NoError(t, r.Members[0].Kill())
	require.NoError(t, r.Members[0].Restart())
	require.Equal(t, []byte("before"), askRedis(t, r.Endpoints[0], "GET", "k"))
}

func TestRedisIsShared(t *testing.T) {
	t.Setenv("VALKEYRIE_TEST_REDIS", "")
	require.Same(t, Redis(t), Redis(t))
}

func TestRedisWithTLS(t *testing.T) {
	r := RedisTLS(t)
	require.NoError(t, redisAnswers(t.Context(), r.Endpoints[0], r.Certs.ClientConfig()))
	require.Error(t, redisAnswers(t.Context(), r.Endpoints[0], nil))
}

func TestRedisWithMutualTLS(t *testing.T) {
	r := RedisMutualTLS(t)
	require.NoError(t, redisAnswers(t.Context(), r.Endpoints[0], r.Certs.MutualConfig()))
	require.Error(t, redisAnswers(t.Context(), r.Endpoints[0], r.Certs.ClientConfig()), "it wants a certificate")
}

func TestSentinelsReplaceADeadPrimary(t *testing.T) {
	r := StartRedisSentinel(t)
	primary := func() string {
		addr, err := redis.Strings(askRedis(t, r.Endpoints[0], "SENTINEL", "get-master-addr-by-name", r.Master), nil)
		require.NoError(t, err)
		return addr[0] + ":" + addr[1]
	}
	require.Equal(t, r.Members[0].Addr(), primary())
	require.NoError(t, r.Members[0].Kill())
	require.Eventually(t, func() bool { return primary() == r.Members[1].Addr() }, time.Minute, 20*time.Millisecond)
}

func TestARedisClusterServesAllSlots(t *testing.T) {
	r := RedisCluster(t)
	require.Len(t, r.Endpoints, 3)
	slots, err := redis.Values(askRedis(t, r.Endpoints[0], "CLUSTER", "SLOTS"), nil)
	require.NoError(t, err)
	require.Len(t, slots, 3)
}
