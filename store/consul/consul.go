// Package consul is the backend for Consul's key/value store.
//
//	import _ "github.com/kvtools/valkeyrie/store/consul"
//
//	kv, err := valkeyrie.NewStore("consul", []string{"127.0.0.1:8500"}, &valkeyrie.Config{Token: token})
//
// A key is stored under its own name, its value as it is, so that consul kv reads
// and writes what this library does. Revisions are Consul's ModifyIndex. Every
// write is one transaction (/v1/txn), which answers with that index.
//
// An endpoint is host:port, a host (with the port 8500), or an http or https URL
// (with a path where a reverse proxy wants one): usually the agent on the same
// machine. Of several endpoints
// one is used until it cannot be reached, then the next. With Config.TLS every
// connection is a TLS one. HTTP proxies of the environment are not used.
//
// Config.Token is the ACL token; it needs key:write, and session:write for TTLs
// and locks. Username and Password are those of HTTP basic authentication, for a
// proxy in front of Consul. As with all of Consul's tools, CONSUL_HTTP_TOKEN,
// CONSUL_HTTP_TOKEN_FILE, CONSUL_NAMESPACE and CONSUL_PARTITION stand in for a
// token, a namespace and a partition that are not given; they are read once.
//
// A session of Consul is the backstop of a TTL and the life of a lock. Consul
// ends it between one and two times its TTL (10 s at least) after the process
// that renewed it died; while the process lives, the library itself deletes keys
// at their TTL. docs/compatibility.md has the bounds.
//
// Each watch needs a connection to the agent, which by default takes 200 of one
// client: its limits.http_max_conns_per_client says how many.
package consul

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/consul/api"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// StoreName is the name of this backend for valkeyrie.NewStore.
const StoreName = "consul"

func init() { store.Register(StoreName, New) }

// Options are the options of this backend. nil means the defaults.
type Options struct {
	// Namespace and Partition are those of Consul Enterprise. Default: what the
	// environment says, then the token's.
	Namespace, Partition string

	// Datacenter is the one whose keys are meant. Default: the agent's own.
	Datacenter string

	// SessionNode is the node of the catalog to which sessions belong: when it
	// leaves the cluster for good, its sessions end, and with them locks and the
	// keys with a TTL. It has to be given where Datacenter is not the agent's
	// own. Default: the node of the agent.
	SessionNode string

	// WaitTime is how long a watch lets the server wait for a change before it
	// asks again, which is also how it notices a dead connection. Each time the
	// server sends all that is watched. Default 10 s.
	WaitTime time.Duration

	// MinSessionTTL is the servers' session_ttl_min. Default 10 s, as theirs.
	MinSessionTTL time.Duration

	// MaxValue is the size in bytes of the largest value; the servers'
	// kv_max_value_size and txn_max_req_len must allow for it, the latter for
	// four thirds of it and 8 KiB. Default 378 KiB, which fits their defaults.
	MaxValue int
}

// defaultMaxValue leaves room for three operations with long keys in a request of
// 512 KiB, in which values are written in base64.
const defaultMaxValue = 378 << 10

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	o.WaitTime = cmp.Or(o.WaitTime, 10*time.Second)
	o.MinSessionTTL = cmp.Or(o.MinSessionTTL, 10*time.Second)
	o.MaxValue = cmp.Or(o.MaxValue, defaultMaxValue)
	return o
}

// New opens a store. No endpoints mean 127.0.0.1:8500. It does not wait for the
// server.
func New(endpoints []string, cfg *valkeyrie.Config, opts *Options) (valkeyrie.Store, error) {
	return store.Open(StoreName, cfg, opts, func(settings valkeyrie.Config, given Options) (store.Driver, error) {
		if strings.ContainsFunc(settings.Token, unicode.IsControl) {
			return nil, &valkeyrie.InvalidConfigError{Backend: StoreName, Field: "Config.Token",
				Reason: "has a control character, such as the line break at the end of a file; give the token alone"}
		}
		return newDriver(endpoints, settings, given.withDefaults())
	})
}

// driver is the store.Driver of Consul.
type driver struct {
	opts      Options
	timeout   time.Duration // Config.ConnectionTimeout
	transport *transport
	client    *api.Client // over the transport
	params    string      // the query parameters of requests that the client does not make

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running store.Group // what goes on in the background: sessions that are made and ended, batches

	batches batches
	shared  store.Leases[string] // sessions
	alive   keptAlives
}

func newDriver(endpoints []string, settings valkeyrie.Config, opts Options) (*driver, error) {
	urls, err := store.URLs(StoreName, endpoints, store.HTTP{Port: 8500, TLS: settings.TLS != nil, Path: true})
	if err != nil {
		return nil, err
	}
	d := &driver{opts: opts, timeout: settings.ConnectionTimeout}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.batches.d = d
	d.shared.Group, d.shared.Round, d.shared.Grant = &d.running, d.sessionTTL, d.createShared
	d.transport = newTransport(d.ctx, urls, settings)
	found := api.Config{
		Address: urls[0].Host, Scheme: urls[0].Scheme, // for the texts of errors: the transport has its own
		Token: settings.Token, Datacenter: opts.Datacenter, Namespace: opts.Namespace, Partition: opts.Partition,
		HttpClient: &http.Client{Transport: d.transport},
		Transport:  d.transport.base, // not used, and made for each client otherwise
	}
	if d.client, err = api.NewClient(&found); err != nil { // it fills in what the environment says
		d.cancel()
		return nil, &valkeyrie.InvalidConfigError{Backend: StoreName, Field: "environment", Reason: "Consul's client refuses it", Err: err}
	}
	d.transport.header = headers(settings, found)
	d.params = parameters(found)
	d.opts.Namespace, d.opts.Partition = found.Namespace, found.Partition
	return d, nil
}

// parameters name datacenter, namespace and partition in a query, as the client
// does by itself.
func parameters(c api.Config) string {
	q := url.Values{}
	for name, value := range map[string]string{"dc": c.Datacenter, "ns": c.Namespace, "partition": c.Partition} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q.Encode()
}

// headers are those of every request. What Config leaves open is what the client
// found in the environment.
func headers(settings valkeyrie.Config, found api.Config) http.Header {
	h := http.Header{"User-Agent": {"valkeyrie"}}
	if token := cmp.Or(settings.Token, found.Token); token != "" {
		h.Set("X-Consul-Token", token)
	}
	if settings.Username != "" || settings.Password != "" {
		(&http.Request{Header: h}).SetBasicAuth(settings.Username, settings.Password)
	}
	return h
}

// Info implements store.Driver.
func (d *driver) Info() store.Info {
	return store.Info{Name: StoreName, Contexts: store.ContextsAndClose, MaxValue: d.opts.MaxValue}
}

// Close implements store.Driver.
func (d *driver) Close() error {
	d.running.Stop()
	d.cancel()
	d.running.Wait()
	d.transport.base.CloseIdleConnections()
	return nil
}
