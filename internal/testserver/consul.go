package testserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// consul is the backend's name, and that of its program.
const consul = "consul"

// ConsulToken is the token with all rights of an agent with ACLs.
const ConsulToken = "6d7d6b5c-0000-4000-8000-76616c6b6579"

// Consul is one Consul server or a cluster of them.
type Consul struct {
	Endpoints []string  // host:port of the HTTP API of every server, HTTPS with TLS
	Members   []*Server // none if the environment named a running server
	Certs     *Certs    // nil without TLS
	Token     string    // with all rights; empty without ACLs
}

// ConsulOptions say what Consul servers of a test's own are like.
type ConsulOptions struct {
	Servers     int            // default 1
	TLS         bool           // the API is served with TLS only
	ClientCerts bool           // and asks for a certificate; implies TLS
	ACL         bool           // without a token nothing is allowed
	Memory      bool           // keeps its data in memory, so that the disk does not count; one server
	Config      map[string]any // further settings of every server
}

// ConsulServer returns the single server that the package shares.
func ConsulServer(t testing.TB) *Consul {
	t.Helper()
	if addrs := external(consul); len(addrs) > 0 {
		return &Consul{Endpoints: addrs}
	}
	return shareConsul(t, "consul", ConsulOptions{})
}

// ConsulTLS returns the server with TLS that the package shares.
func ConsulTLS(t testing.TB) *Consul {
	t.Helper()
	return shareConsul(t, "consul with TLS", ConsulOptions{TLS: true})
}

// ConsulACL returns the server with ACLs that the package shares.
func ConsulACL(t testing.TB) *Consul {
	t.Helper()
	return shareConsul(t, "consul with ACLs", ConsulOptions{ACL: true})
}

// StartConsul starts a server or a cluster for this test alone.
func StartConsul(t testing.TB, o ConsulOptions) *Consul {
	t.Helper()
	return startGroup(t, consul, consul, o.prepare)
}

func shareConsul(t testing.TB, key string, o ConsulOptions) *Consul {
	t.Helper()
	return shareGroup(t, key, consul, consul, o.prepare)
}

// servers implements group.
func (c *Consul) servers() []*Server { return c.Members }

// devArgs is the only way to a server without data on the disk.
var devArgs = map[bool][]string{true: {"-dev"}}

// portsPerConsul: HTTP, RPC between servers, gossip.
const portsPerConsul = 3

// prepare prepares a server or a cluster.
func (o ConsulOptions) prepare(s *session, path string) (*Consul, error) {
	certs, err := s.certs(o.TLS || o.ClientCerts)
	if err != nil {
		return nil, err
	}
	n, c := max(1, o.Servers), &Consul{Certs: certs}
	if o.ACL {
		c.Token = ConsulToken
	}
	ports, err := reserve(portsPerConsul * n)
	if err != nil {
		return nil, err
	}
	var join []string
	for i := range n {
		join = append(join, ports[portsPerConsul*i+2].Addr())
	}
	for i := range n {
		own := ports[portsPerConsul*i : portsPerConsul*(i+1)]
		dir, err := s.mkdir("consul")
		if err == nil {
			err = c.writeConfig(dir, o, n, join, own[0].Number(), own[1].Number(), own[2].Number())
		}
		if err != nil {
			release(ports[portsPerConsul*i:])
			return nil, err
		}
		addr := own[0].Addr()
		c.Endpoints = append(c.Endpoints, addr)
		c.Members = append(c.Members, s.newServer(command{
			name: "consul " + addr, path: path, dir: dir, ports: own,
			args: append([]string{"agent", "-config-file", filepath.Join(dir, "consul.json")}, devArgs[o.Memory]...),
			// Agents that find their addresses or tokens there would disturb.
			env:   []string{"CONSUL_HTTP_ADDR=", "CONSUL_HTTP_TOKEN="},
			check: c.ready(addr, nodeName(own[0].Number())),
		}, addr))
	}
	return c, nil
}

// nodeName is the name of a server in the catalog.
func nodeName(port int) string { return fmt.Sprintf("node-%d", port) }

// writeConfig writes the configuration of one server.
func (c *Consul) writeConfig(dir string, o ConsulOptions, servers int, join []string, api, rpc, gossip int) error {
	ports := map[string]any{
		"http": api, "server": rpc, "serf_lan": gossip,
		"https": -1, "serf_wan": -1, "grpc": -1, "grpc_tls": -1, "dns": -1,
	}
	cfg := map[string]any{
		"node_name": nodeName(api), "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
		"ports": ports, "log_level": "warn", "disable_update_check": true,
		"skip_leave_on_interrupt": true,
		// Timing of elections for fast machines, which is not the default.
		"performance": map[string]any{"raft_multiplier": 1},
		// By default an agent has 200 connections for a client; each watch needs one.
		"limits": map[string]any{"http_max_conns_per_client": 10000},
	}
	if !o.Memory {
		cfg["server"], cfg["bootstrap_expect"], cfg["data_dir"] = true, servers, filepath.Join(dir, "data")
		cfg["retry_join"], cfg["retry_interval"] = join, "200ms"
	}
	if c.Certs != nil {
		ports["http"], ports["https"] = -1, api
		cfg["tls"] = map[string]any{"https": map[string]any{
			"ca_file": c.Certs.CA, "cert_file": c.Certs.ServerCert, "key_file": c.Certs.ServerKey,
			"verify_incoming": o.ClientCerts,
		}}
	}
	if o.ACL {
		cfg["primary_datacenter"] = "dc1"
		cfg["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]any{"initial_management": ConsulToken, "agent": ConsulToken},
		}
	}
	for name, value := range o.Config {
		cfg[name] = value
	}
	b, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "consul.json"), b, 0o600)
}

// ready returns a check of a server: there is a leader who knows the server's
// node, so that sessions can belong to it, and answers consistent reads.
func (c *Consul) ready(addr, node string) func(context.Context) error {
	scheme := "http"
	if c.Certs != nil {
		scheme = "https"
	}
	url := fmt.Sprintf("%s://%s/v1/catalog/node/%s?consistent", scheme, addr, node)
	return func(ctx context.Context) error {
		transport := &http.Transport{DisableKeepAlives: true}
		if c.Certs != nil {
			transport.TLSClientConfig = c.Certs.MutualConfig()
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		req.Header.Set("X-Consul-Token", c.Token)
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
		switch {
		case err != nil:
			return err
		case resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(node)):
			return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
		}
		return nil
	}
}
