package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvtools/valkeyrie/internal/loopback"
)

// zookeeper is the backend's name, and that of its server's program.
const zookeeper = "zookeeper"

// ZooKeeperTick is the tickTime of the servers: sessions last at least two
// ticks, and their end is noticed at most one tick late.
const ZooKeeperTick = 500 * time.Millisecond

// ZooKeepers is one ZooKeeper server or an ensemble of them.
type ZooKeepers struct {
	Endpoints []string  // host:port of every member, for clients
	Members   []*Server // none if the environment named a running server
	Certs     *Certs    // nil without TLS

	admin []string // host:port of every member for the four-letter words
}

// ZooKeeperOptions say what a ZooKeeper server of a test's own is like.
type ZooKeeperOptions struct {
	Members     int  // default 1
	TLS         bool // Endpoints are for TLS
	ClientCerts bool // and clients must show a certificate; implies TLS
	Settings    []string

	brief bool // it is started often and lives shortly
}

// ZooKeeper returns the single server that the package shares.
func ZooKeeper(t testing.TB) *ZooKeepers {
	t.Helper()
	if addrs := external(zookeeper); len(addrs) > 0 {
		return &ZooKeepers{Endpoints: addrs, admin: addrs}
	}
	return shareZooKeeper(t, "zookeeper", ZooKeeperOptions{})
}

// ZooKeeperTLS returns the server with TLS that the package shares.
func ZooKeeperTLS(t testing.TB) *ZooKeepers {
	t.Helper()
	return shareZooKeeper(t, "zookeeper with TLS", ZooKeeperOptions{TLS: true})
}

// ZooKeeperMutualTLS returns the server that the package shares and that asks
// for client certificates.
func ZooKeeperMutualTLS(t testing.TB) *ZooKeepers {
	t.Helper()
	return shareZooKeeper(t, "zookeeper with mutual TLS", ZooKeeperOptions{ClientCerts: true})
}

// StartZooKeeper starts a server or an ensemble for this test alone.
func StartZooKeeper(t testing.TB, o ZooKeeperOptions) *ZooKeepers {
	t.Helper()
	o.brief = true
	return startGroup(t, zookeeper, zookeeper, o.prepare)
}

func shareZooKeeper(t testing.TB, key string, o ZooKeeperOptions) *ZooKeepers {
	t.Helper()
	return shareGroup(t, key, zookeeper, zookeeper, o.prepare)
}

// servers implements group.
func (z *ZooKeepers) servers() []*Server { return z.Members }

// Leader returns the index of the member that leads, which there is once it has
// been elected.
func (z *ZooKeepers) Leader(ctx context.Context) (int, error) {
	var errs []error
	for i, addr := range z.admin {
		answer, err := fourLetters(ctx, addr, "srvr")
		if strings.Contains(answer, "Mode: leader") || strings.Contains(answer, "Mode: standalone") {
			return i, nil
		}
		errs = append(errs, err)
	}
	return 0, errors.Join(append(errs, errors.New("no member leads"))...)
}

// Watches returns how many watches a member keeps.
func (z *ZooKeepers) Watches(ctx context.Context, member int) (int, error) {
	return z.figure(ctx, member, "zk_watch_count")
}

// Requests returns how many packets a member has received, pings included.
func (z *ZooKeepers) Requests(ctx context.Context, member int) (int, error) {
	return z.figure(ctx, member, "zk_packets_received")
}

// figure returns one of the figures that a member keeps of itself.
func (z *ZooKeepers) figure(ctx context.Context, member int, name string) (int, error) {
	answer, err := fourLetters(ctx, z.admin[member], "mntr")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(answer) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == name {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("no %s in %q", name, answer)
}

// prepare prepares a server or an ensemble. Each member has four ports: for
// clients, for clients with TLS, and two for the others.
func (o ZooKeeperOptions) prepare(s *session, path string) (*ZooKeepers, error) {
	certs, err := s.certs(o.TLS || o.ClientCerts)
	if err != nil {
		return nil, err
	}
	n, z, settings := max(1, o.Members), &ZooKeepers{Certs: certs}, o.Settings
	if certs != nil {
		tls, err := zooKeeperTLS(certs, o.ClientCerts)
		if err != nil {
			return nil, err
		}
		settings = append(tls, settings...)
	}
	ports, err := reserve(4 * n)
	if err != nil {
		return nil, err
	}
	if n > 1 {
		settings = append([]string{"initLimit=20", "syncLimit=10"}, settings...)
		for i := range n {
			settings = append(settings, fmt.Sprintf("server.%d=127.0.0.1:%d:%d", i+1, ports[4*i+2].Number(), ports[4*i+3].Number()))
		}
	}
	var env []string
	if o.brief { // compiling for speed costs more than it brings in a few seconds
		env = append(env, "JDK_JAVA_OPTIONS=-XX:TieredStopAtLevel=1")
	}
	for i := range n {
		if err := s.addZooKeeper(z, path, i+1, ports[4*i:4*i+4], settings, env); err != nil {
			release(ports[4*i:])
			return nil, err
		}
	}
	return z, nil
}

// addZooKeeper adds one member.
func (s *session) addZooKeeper(z *ZooKeepers, path string, id int, ports []*loopback.Port, settings, env []string) error {
	dir, err := s.mkdir(zookeeper)
	if err != nil {
		return err
	}
	data, cfg := filepath.Join(dir, "data"), filepath.Join(dir, "zoo.cfg")
	plain, endpoint := ports[0].Addr(), ports[0].Addr()
	lines := append([]string{
		"tickTime=" + strconv.FormatInt(ZooKeeperTick.Milliseconds(), 10),
		"maxSessionTimeout=120000",
		"dataDir=" + data,
		"clientPort=" + strconv.Itoa(ports[0].Number()),
		"clientPortAddress=127.0.0.1",
		"admin.enableServer=false",
		"maxClientCnxns=0",
		"4lw.commands.whitelist=*",
	}, settings...)
	if z.Certs != nil {
		endpoint = ports[1].Addr()
		lines = append(lines, "secureClientPort="+strconv.Itoa(ports[1].Number()), "secureClientPortAddress=127.0.0.1")
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, "myid"), []byte(strconv.Itoa(id)), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(cfg, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	z.Endpoints = append(z.Endpoints, endpoint)
	z.admin = append(z.admin, plain)
	z.Members = append(z.Members, s.newServer(command{
		name: zookeeper + " " + endpoint, path: path, args: []string{cfg}, env: env, dir: dir, ports: ports,
		check: func(ctx context.Context) error { return zooKeeperServes(ctx, plain, endpoint) },
	}, endpoint))
	return nil
}

// zooKeeperTLS returns the settings for TLS with the certificates.
func zooKeeperTLS(c *Certs, clientCerts bool) ([]string, error) {
	var both []byte
	for _, part := range []string{c.ServerKey, c.ServerCert} { // the server wants key and certificate in one file
		b, err := os.ReadFile(part)
		if err != nil {
			return nil, err
		}
		both = append(both, b...)
	}
	store := filepath.Join(filepath.Dir(c.CA), "server.pem")
	if err := os.WriteFile(store, both, 0o600); err != nil {
		return nil, err
	}
	auth := "none"
	if clientCerts {
		auth = "need"
	}
	return []string{
		"serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
		"ssl.keyStore.location=" + store, "ssl.keyStore.type=PEM",
		"ssl.trustStore.location=" + c.CA, "ssl.trustStore.type=PEM",
		"ssl.clientAuth=" + auth,
		"authProvider.x509=org.apache.zookeeper.server.auth.X509AuthenticationProvider",
	}, nil
}

// zooKeeperServes is nil when a member answers clients, and listens at its
// endpoint, which with TLS is another one and comes later.
func zooKeeperServes(ctx context.Context, addr, endpoint string) error {
	answer, err := fourLetters(ctx, addr, "srvr")
	if err != nil {
		return err
	}
	if !strings.Contains(answer, "Mode: ") {
		return fmt.Errorf("%s: %s", addr, answer)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return err
	}
	return c.Close()
}

// fourLetters sends one of ZooKeeper's four-letter words.
func fourLetters(ctx context.Context, addr, word string) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			return "", err
		}
	}
	if _, err := io.WriteString(c, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}
