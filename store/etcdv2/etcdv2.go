// Package etcdv2 is the backend for etcd's v2 API: etcd 2.3 to 3.5, from 3.4 on
// with the flag --enable-v2.
//
//	import _ "github.com/kvtools/valkeyrie/store/etcdv2"
//
//	kv, err := valkeyrie.NewStore("etcdv2", []string{"10.0.0.1:2379", "10.0.0.2:2379"}, nil)
//
// The v2 API has a tree of its own, which the v3 API does not see. The key "a/b"
// is the node /a/b; a value that is text is stored as it is, so that etcdctl
// reads and writes what this library does. docs/compatibility.md says what is
// stored in another form: values that are not UTF-8, segments that begin with
// "_", which etcd hides from lists, and the values of locks and of keys written
// with KeepAlive. Revisions are etcd's modifiedIndex, or are stored with the
// value where a renewal changes that.
//
// One thing the v2 API cannot do: a node is a value or a directory. A key that
// has a value cannot get keys below it, nor can a key that has keys below it get
// a value: valkeyrie.ErrCallNotSupported.
//
// Several endpoints are members of one cluster; requests go to one that answers.
// With Config.TLS every connection is a TLS one; client certificates make it
// mutual. Config.Username and Password authenticate as etcd's users do.
package etcdv2

import (
	"cmp"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// StoreName is the name of this backend for valkeyrie.NewStore.
const StoreName = "etcdv2"

func init() { store.Register(StoreName, New) }

// Options are the options of this backend. nil means the defaults.
type Options struct {
	// PollInterval is how long one request of a watch waits for a change before
	// another takes its place, after a look whether the member still has a
	// leader. It bounds how long a watch can be deceived by a connection that
	// went silent or by a member that is cut off from the cluster. Default 10 s.
	PollInterval time.Duration
}

// maxValue is the size in bytes of the largest value. The v2 API itself takes
// forms of up to 10 MiB, in which a byte can take three.
const maxValue = 1 << 20

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	o.PollInterval = cmp.Or(o.PollInterval, 10*time.Second)
	return o
}

// New opens a store. Endpoints are host:port, hosts with the port 2379, or http or
// https URLs without a path; none means 127.0.0.1:2379. It does not wait for the
// server.
func New(endpoints []string, cfg *valkeyrie.Config, opts *Options) (valkeyrie.Store, error) {
	return store.Open(StoreName, cfg, opts, func(settings valkeyrie.Config, given Options) (store.Driver, error) {
		return newDriver(endpoints, settings, given.withDefaults())
	})
}

// driver is the store.Driver of etcd's v2 API.
type driver struct {
	transport *http.Transport
	timeout   time.Duration // Config.ConnectionTimeout: of silence during a request
	poll      time.Duration // Options.PollInterval
	conns     *conns

	members []*member
	pinned  atomic.Int64 // the index of the member that requests go to
}

func newDriver(endpoints []string, settings valkeyrie.Config, opts Options) (*driver, error) {
	urls, err := store.URLs(StoreName, endpoints, store.HTTP{Port: 2379, TLS: settings.TLS != nil})
	if err != nil {
		return nil, err
	}
	d := &driver{conns: newConns(), timeout: settings.ConnectionTimeout, poll: opts.PollInterval}
	d.transport = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         d.conns.dial(&net.Dialer{Timeout: settings.ConnectionTimeout}),
		TLSHandshakeTimeout: settings.ConnectionTimeout,
		MaxIdleConnsPerHost: idleConnections,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // etcd does not compress
	}
	if settings.TLS != nil {
		d.transport.TLSClientConfig = settings.TLS.Clone()
	}
	for _, u := range urls {
		m, err := newMember(d.transport, u.String(), settings)
		if err != nil {
			return nil, err
		}
		m.at = int64(len(d.members))
		d.members = append(d.members, m)
	}
	return d, nil
}

// idleConnections is how many connections are kept for each member: HTTP/1.1
// needs one for each request under way, and making them anew costs more than
// most requests do.
const idleConnections = 256

// Info implements store.Driver.
func (d *driver) Info() store.Info {
	return store.Info{Name: StoreName, Contexts: store.ContextsAndClose, MaxValue: maxValue}
}

// Close implements store.Driver.
func (d *driver) Close() error {
	d.conns.close()
	d.transport.CloseIdleConnections()
	return nil
}
