package testserver

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

// redisSlots is how many slots the keys of a cluster are spread over.
const redisSlots = 16384

// RedisCluster returns the cluster of three primaries that the package shares.
func RedisCluster(t testing.TB) *RedisServers {
	t.Helper()
	path, s := find(t, redisName, redisProgram), theSession(t)
	return share(t, "redis cluster", func() (*RedisServers, error) {
		r, err := s.newRedisCluster(path, 3)
		if err != nil {
			return nil, err
		}
		if err = launch(r.Members...); err == nil {
			err = r.form()
		}
		return r, err
	})
}

// StartRedisCluster starts a cluster of so many primaries for this test alone.
func StartRedisCluster(t testing.TB, primaries int) *RedisServers {
	t.Helper()
	r, err := theSession(t).newRedisCluster(find(t, redisName, redisProgram), primaries)
	if err != nil {
		t.Fatalf("testserver: %v", err)
	}
	own(t, r.Members...)
	if err := r.form(); err != nil {
		t.Fatalf("testserver: redis cluster: %v", err)
	}
	return r
}

// newRedisCluster prepares the servers of a cluster.
func (s *session) newRedisCluster(path string, primaries int) (*RedisServers, error) {
	r := new(RedisServers)
	for range primaries {
		err := s.addRedis(r, path, []string{"--cluster-enabled", "yes", "--cluster-node-timeout", "2000"}, 2)
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// form makes one cluster of the servers, as redis-cli --cluster create does, and
// waits until all agree on it.
func (r *RedisServers) form() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for i, m := range r.Members {
		first, last := i*redisSlots/len(r.Members), (i+1)*redisSlots/len(r.Members)-1
		if err := redisDo(ctx, m.Addr(), "CLUSTER", "ADDSLOTSRANGE", first, last); err != nil {
			return err
		}
		if err := redisDo(ctx, m.Addr(), "CLUSTER", "SET-CONFIG-EPOCH", i+1); err != nil {
			return err
		}
	}
	for _, m := range r.Members[1:] {
		to := r.Members[0].cmd.ports
		if err := redisDo(ctx, m.Addr(), "CLUSTER", "MEET", "127.0.0.1", to[0].Number(), to[1].Number()); err != nil {
			return err
		}
	}
	known := fmt.Sprintf("cluster_known_nodes:%d\r", len(r.Members))
	for _, m := range r.Members {
		for {
			err := redisClusterInfo(ctx, m.Addr(), "cluster_state:ok", known)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// redisDo sends one command to a server.
func redisDo(ctx context.Context, addr, cmd string, args ...any) error {
	c, err := dialRedis(ctx, addr, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err = c.Do(cmd, args...); err != nil {
		return fmt.Errorf("%s: %s %v: %w", addr, cmd, args, err)
	}
	return nil
}

// redisClusterInfo is nil when CLUSTER INFO has all of the texts.
func redisClusterInfo(ctx context.Context, addr string, texts ...string) error {
	c, err := dialRedis(ctx, addr, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	info, err := redis.String(c.Do("CLUSTER", "INFO"))
	if err != nil {
		return err
	}
	for _, text := range texts {
		if !strings.Contains(info, text) {
			return fmt.Errorf("%s: no %q in %q", addr, text, info)
		}
	}
	return nil
}
