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

// prepareEtcd returns a function that prepares a server or a cluster with the
// API of a backend, if its program is there.
func prepareEtcd(t testing.TB, backend string, o EtcdOptions) func() (*Etcd, error) {
	t.Helper()
	program := etcdPrograms[backend]
	path, s := find(t, backend, program.name), theSession(t)
	o.Args = append(slices.Clone(program.args), o.Args...)
	return func() (*Etcd, error) { return s.newEtcd(path, o) }
}

// startEtcd starts a server or a cluster for this test alone.
func startEtcd(t testing.TB, backend string, o EtcdOptions) *Etcd {
	t.Helper()
	e, err := prepareEtcd(t, backend, o)()
	if err != nil {
		t.Fatalf("testserver: %v", err)
	}
	own(t, e.Members...)
	return e
}

// shareEtcd returns the server of a kind that the package shares.
func shareEtcd(t testing.TB, backend, kind string, o EtcdOptions) *Etcd {
	t.Helper()
	prepare := prepareEtcd(t, backend, o)
	return share(t, backend+" "+kind, func() (*Etcd, error) {
		e, err := prepare()
		if err != nil {
			return nil, err
		}
		return e, launch(e.Members...)
	})
}

// newEtcd prepares a server or a cluster.
func (s *session) newEtcd(path string, o EtcdOptions) (*Etcd, error) {
	n := max(1, o.Members)
	scheme := "http"
	e := new(Etcd)
	if o.TLS || o.ClientCerts {
		dir, err := s.mkdir("certs")
		if err != nil {
			return nil, err
		}
		if e.Certs, err = NewCerts(dir); err != nil {
			return nil, err
		}
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
