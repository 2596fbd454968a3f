package testserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	redisName    = "redis" // the backend's name
	redisProgram = "redis-server"
)

// RedisServers are one Redis server, or those of a Sentinel group or a cluster.
type RedisServers struct {
	Endpoints []string  // host:port of each server; of a Sentinel group, the sentinels'
	Members   []*Server // none if the environment named a running server
	Sentinels []*Server // of a Sentinel group; its Members are the primary and the replica
	Master    string    // of a Sentinel group, the primary's name
	Certs     *Certs    // nil without TLS
}

// RedisOptions say what a Redis server of a test's own is like. Users are made by
// a client, on a server of the test's own.
type RedisOptions struct {
	TLS         bool     // clients must use TLS
	ClientCerts bool     // and show a certificate; implies TLS
	Durable     bool     // what was answered outlives a SIGKILL
	Args        []string // further arguments
}

// Redis returns the single server that the package shares.
func Redis(t testing.TB) *RedisServers {
	t.Helper()
	if addrs := external(redisName); len(addrs) > 0 {
		return &RedisServers{Endpoints: addrs}
	}
	return shareRedis(t, "redis", RedisOptions{})
}

// RedisTLS returns the server with TLS that the package shares.
func RedisTLS(t testing.TB) *RedisServers {
	t.Helper()
	return shareRedis(t, "redis with TLS", RedisOptions{TLS: true})
}

// RedisMutualTLS returns the server that the package shares and that asks for
// client certificates.
func RedisMutualTLS(t testing.TB) *RedisServers {
	t.Helper()
	return shareRedis(t, "redis with mutual TLS", RedisOptions{ClientCerts: true})
}

// StartRedis starts a server for this test alone.
func StartRedis(t testing.TB, o RedisOptions) *RedisServers {
	t.Helper()
	return startGroup(t, redisName, redisProgram, o.prepare)
}

func shareRedis(t testing.TB, key string, o RedisOptions) *RedisServers {
	t.Helper()
	return shareGroup(t, key, redisName, redisProgram, o.prepare)
}

// servers implements group.
func (r *RedisServers) servers() []*Server { return slices.Concat(r.Members, r.Sentinels) }

// prepare prepares a single server.
func (o RedisOptions) prepare(s *session, path string) (*RedisServers, error) {
	certs, err := s.certs(o.TLS || o.ClientCerts)
	if err != nil {
		return nil, err
	}
	r, args := &RedisServers{Certs: certs}, o.Args
	if certs != nil {
		clients := "no"
		if o.ClientCerts {
			clients = "yes"
		}
		args = append([]string{"--tls-cert-file", r.Certs.ServerCert, "--tls-key-file", r.Certs.ServerKey,
			"--tls-ca-cert-file", r.Certs.CA, "--tls-auth-clients", clients}, args...)
	}
	if o.Durable {
		args = append([]string{"--appendonly", "yes", "--appendfsync", "always"}, args...)
	}
	return r, s.addRedis(r, path, args, 1)
}

// addRedis adds one server with so many ports, the first of which is for clients.
func (s *session) addRedis(r *RedisServers, path string, args []string, ports int) error {
	reserved, err := reserve(ports)
	if err != nil {
		return err
	}
	dir, err := s.mkdir(redisName)
	if err != nil {
		release(reserved)
		return err
	}
	addr, port, tlsPort := reserved[0].Addr(), strconv.Itoa(reserved[0].Number()), "0"
	var cfg *tls.Config
	if r.Certs != nil {
		cfg, port, tlsPort = r.Certs.MutualConfig(), tlsPort, port
	}
	base := []string{"--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--daemonize", "no"}
	if cfg != nil {
		base = append(base, "--tls-port", tlsPort)
	}
	if ports > 1 {
		base = append(base, "--cluster-port", strconv.Itoa(reserved[1].Number()))
	}
	r.Endpoints = append(r.Endpoints, addr)
	r.Members = append(r.Members, s.newServer(command{
		name: "redis " + addr, path: path, args: append(base, args...), dir: dir, ports: reserved,
		check: func(ctx context.Context) error { return redisAnswers(ctx, addr, cfg) },
	}, addr))
	return nil
}

// dialRedis opens a connection for a single question.
func dialRedis(ctx context.Context, addr string, cfg *tls.Config) (redis.Conn, error) {
	return redis.DialContext(ctx, "tcp", addr, redis.DialUseTLS(cfg != nil), redis.DialTLSConfig(cfg),
		redis.DialReadTimeout(2*time.Second), redis.DialWriteTimeout(2*time.Second))
}

// redisAnswers is nil when the server answers and has loaded its data. That it
// asks for a password is an answer.
func redisAnswers(ctx context.Context, addr string, cfg *tls.Config) error {
	c, err := dialRedis(ctx, addr, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err = c.Do("PING"); err != nil && strings.HasPrefix(err.Error(), "NOAUTH") {
		return nil
	}
	return err
}

// StartRedisSentinel starts a primary, a replica and three sentinels that watch
// them, for this test alone. A primary that is dead for a second is replaced.
func StartRedisSentinel(t testing.TB) *RedisServers {
	t.Helper()
	return startGroup(t, redisName, redisProgram, newSentinel)
}

// newSentinel prepares a Sentinel group.
func newSentinel(s *session, path string) (*RedisServers, error) {
	data := new(RedisServers)
	if err := s.addRedis(data, path, []string{"--repl-diskless-sync-delay", "0"}, 1); err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(data.Endpoints[0], ":")
	if err := s.addRedis(data, path, []string{"--replicaof", host, port}, 1); err != nil {
		return nil, err
	}
	r := &RedisServers{Members: data.Members, Master: "main"}
	replica := r.Members[1]
	answers := replica.cmd.check
	replica.cmd.check = func(ctx context.Context) error {
		if err := answers(ctx); err != nil {
			return err
		}
		return redisInfo(ctx, replica.Addr(), "replication", "master_link_status:up", "role:master")
	}
	for range 3 {
		if err := s.addSentinel(r, path, host, port); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// addSentinel adds one sentinel of a group.
func (s *session) addSentinel(r *RedisServers, path, host, port string) error {
	ports, err := reserve(1)
	if err != nil {
		return err
	}
	dir, err := s.mkdir("sentinel")
	if err != nil {
		release(ports)
		return err
	}
	conf := filepath.Join(dir, "sentinel.conf") // it writes into its own configuration
	text := fmt.Sprintf(`bind 127.0.0.1
port %d
dir %s
sentinel monitor %[3]s %s %s 2
sentinel down-after-milliseconds %[3]s 1000
sentinel failover-timeout %[3]s 5000
`, ports[0].Number(), dir, r.Master, host, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		release(ports)
		return err
	}
	addr := ports[0].Addr()
	r.Endpoints = append(r.Endpoints, addr)
	r.Sentinels = append(r.Sentinels, s.newServer(command{
		name: "sentinel " + addr, path: path, args: []string{conf, "--sentinel"}, dir: dir, ports: ports,
		check: func(ctx context.Context) error {
			return redisInfo(ctx, addr, "sentinel", "status=ok,address="+host+":"+port+",slaves=1,sentinels=3")
		},
	}, addr))
	return nil
}

// redisInfo is nil when a section of INFO has one of the texts.
func redisInfo(ctx context.Context, addr, section string, texts ...string) error {
	c, err := dialRedis(ctx, addr, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	info, err := redis.String(c.Do("INFO", section))
	if err != nil {
		return err
	}
	for _, text := range texts {
		if strings.Contains(info, text) {
			return nil
		}
	}
	return fmt.Errorf("%s: none of %q in %q", addr, texts, info)
}
