package testserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// etcdv3 is the backend's name.
const etcdv3 = "etcdv3"

// Etcd is one etcd server or a cluster of them.
type Etcd struct {
	Endpoints []string  // host:port of every member
	Members   []*Server // none if the environment named a running server
	Certs     *Certs    // nil without TLS
}

// EtcdOptions say what an etcd server of a test's own is like. Whether it
// authenticates users is switched by a client, on a server of the test's own.
type EtcdOptions struct {
	Members     int      // default 1
	TLS         bool     // clients must use TLS
	ClientCerts bool     // and show a certificate; implies TLS
	Args        []string // further arguments of every member
}

// EtcdV3 returns the single server that the package shares.
func EtcdV3(t testing.TB) *Etcd {
	t.Helper()
	if addrs := external(etcdv3); len(addrs) > 0 {
		return &Etcd{Endpoints: addrs}
	}
	return shareEtcd(t, etcdv3, "", EtcdOptions{})
}

// EtcdV3TLS returns the server with TLS that the package shares.
func EtcdV3TLS(t testing.TB) *Etcd {
	t.Helper()
	return shareEtcd(t, etcdv3, "with TLS", EtcdOptions{TLS: true})
}

// EtcdV3MutualTLS returns the server that the package shares and that asks for
// client certificates.
func EtcdV3MutualTLS(t testing.TB) *Etcd {
	t.Helper()
	return shareEtcd(t, etcdv3, "with mutual TLS", EtcdOptions{ClientCerts: true})
}

// StartEtcdV3 starts a server or a cluster for this test alone.
func StartEtcdV3(t testing.TB, o EtcdOptions) *Etcd {
	t.Helper()
	return startEtcd(t, etcdv3, o)
}

// etcdPrograms are the programs that serve the API of a backend, and what makes
// them serve it.
var etcdPrograms = map[string]struct {
	name string
	args []string
}{
	etcdv3: {name: "etcd"},
	etcdv2: {name: "etcd-v2", args: []string{"--enable-v2"}},
}

// startEtcd starts a server or a cluster for this test alone.
func startEtcd(t testing.TB, backend string, o EtcdOptions) *Etcd {
	t.Helper()
	program := etcdPrograms[backend]
	o.Args = slices.Concat(program.args, o.Args)
	return startGroup(t, backend, program.name, o.prepare)
}

// shareEtcd returns the server of a kind that the package shares.
func shareEtcd(t testing.TB, backend, kind string, o EtcdOptions) *Etcd {
	t.Helper()
	program := etcdPrograms[backend]
	o.Args = slices.Concat(program.args, o.Args)
	return shareGroup(t, backend+" "+kind, backend, program.name, o.prepare)
}

// servers implements group.
func (e *Etcd) servers() []*Server { return e.Members }

// prepare prepares a server or a cluster.
func (o EtcdOptions) prepare(s *session, path string) (*Etcd, error) {
	certs, err := s.certs(o.TLS || o.ClientCerts)
	if err != nil {
		return nil, err
	}
	n, e, scheme := max(1, o.Members), &Etcd{Certs: certs}, "http"
	if certs != nil {
		scheme = "https"
	}
	ports, err := reserve(2 * n)
	if err != nil {
		return nil, err
	}
	var cluster []string
	for i := range n {
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s", i, ports[2*i+1].Addr()))
	}
	for i := range n {
		dir, err := s.mkdir("etcd")
		if err != nil {
			release(ports[2*i:])
			return nil, err
		}
		client, peer := ports[2*i].Addr(), ports[2*i+1].Addr()
		url := scheme + "://" + client
		args := []string{
			"--name", fmt.Sprintf("m%d", i),
			"--data-dir", filepath.Join(dir, "data"),
			"--listen-client-urls", url, "--advertise-client-urls", url,
			"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
			"--initial-cluster", strings.Join(cluster, ","),
			"--initial-cluster-state", "new",
			"--log-level", "warn",
		}
		args = append(args, e.tlsArgs(o.ClientCerts)...)
		e.Endpoints = append(e.Endpoints, client)
		e.Members = append(e.Members, s.newServer(command{
			name: "etcd " + client, path: path, args: append(args, o.Args...), dir: dir,
			ports: ports[2*i : 2*i+2],
			check: e.health(url + "/health"),
		}, client))
	}
	return e, nil
}

// tlsArgs returns the arguments that make a member use the certificates.
func (e *Etcd) tlsArgs(clientCerts bool) []string {
	if e.Certs == nil {
		return nil
	}
	args := []string{"--cert-file", e.Certs.ServerCert, "--key-file", e.Certs.ServerKey}
	if clientCerts {
		args = append(args, "--client-cert-auth", "--trusted-ca-file", e.Certs.CA)
	}
	return args
}

// health returns a check of a member: it answers, and sees a leader.
func (e *Etcd) health(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		var cfg *tls.Config
		if e.Certs != nil {
			cfg = e.Certs.MutualConfig()
		}
		return httpOK(ctx, url, cfg)
	}
}

// httpOK gets the URL, on a connection of its own, and wants 200.
func httpOK(ctx context.Context, url string, cfg *tls.Config) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return answersOK(req, cfg)
}

// answersOK sends the request, on a connection of its own, and wants 200.
func answersOK(req *http.Request, cfg *tls.Config) error {
	client := http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", req.URL, resp.Status, body)
	}
	return nil
}
