// Package etcdv3 is the backend for etcd's v3 API (etcd 3.4 and later).
//
//	import _ "github.com/kvtools/valkeyrie/store/etcdv3"
//
//	kv, err := valkeyrie.NewStore("etcdv3", []string{"10.0.0.1:2379", "10.0.0.2:2379"}, nil)
//
// A key is stored under its own name, its value as it is, so that etcdctl reads
// and writes what this library does. Config.Prefix "/" opens the keys that other
// tools wrote with a leading slash. Revisions are etcd's ModRevision.
//
// Several endpoints are members of one cluster; requests go to those that
// answer. With Config.TLS every connection is a TLS one; client certificates
// make it mutual. Config.Username and Password authenticate as etcd's users do.
//
// TTLs are leases, shared by keys that expire at about the same time; what etcd
// cannot time (it knows whole seconds, and none below about two) the library
// deletes in time, with the lease as the backstop for a process that died.
// Locks are queues of keys below "<key>/.valkeyrie/lock/", served in order.
package etcdv3

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// StoreName is the name of this backend for valkeyrie.NewStore.
const StoreName = "etcdv3"

func init() { store.Register(StoreName, New) }

// Options are the options of this backend. nil means the defaults.
type Options struct {
	// PingInterval is how long a connection may be silent before it is probed;
	// one that does not answer the probe within PingTimeout is given up.
	// Default 10 s, which is the least that gRPC takes; etcd refuses clients
	// that ping more often than its --grpc-keepalive-min-time (5 s).
	PingInterval time.Duration

	// PingTimeout is described at PingInterval. Default 3 s.
	PingTimeout time.Duration

	// MaxValue is the size in bytes of the largest value; the servers must be
	// started with a --max-request-bytes of 4 KiB more. Default 1.5 MiB - 4 KiB,
	// which fits etcd's default.
	MaxValue int
}

// defaultMaxValue leaves room for the key and the framing of a request.
const defaultMaxValue = 3<<19 - requestRoom

const requestRoom = 4 << 10

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	o.PingInterval = cmp.Or(o.PingInterval, 10*time.Second)
	o.PingTimeout = cmp.Or(o.PingTimeout, 3*time.Second)
	o.MaxValue = cmp.Or(o.MaxValue, defaultMaxValue)
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

// driver is the store.Driver of etcd.
type driver struct {
	config  clientv3.Config
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	timeout time.Duration
	largest int         // value
	running store.Group // what goes on in the background: grants and revocations

	opened  atomic.Pointer[clientv3.Client]
	opening chan struct{} // capacity 1: taken by who opens the client

	leases store.Leases[clientv3.LeaseID]
	alive  sync.Map // key (string) to keepAlive: those that Renew renews
}

func newDriver(endpoints []string, settings valkeyrie.Config, opts Options) (*driver, error) {
	urls, err := store.URLs(StoreName, endpoints, store.HTTP{Port: 2379, TLS: settings.TLS != nil})
	if err != nil {
		return nil, err
	}
	members := make([]string, len(urls))
	for i, u := range urls {
		members[i] = u.String()
	}
	d := &driver{timeout: settings.ConnectionTimeout, largest: opts.MaxValue, opening: make(chan struct{}, 1)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.leases.Group, d.leases.Round, d.leases.Grant = &d.running, wholeSeconds, d.grantShared
	d.config = clientv3.Config{
		Context:              d.ctx,
		Endpoints:            members,
		TLS:                  settings.TLS,
		Username:             settings.Username,
		Password:             settings.Password,
		DialTimeout:          settings.ConnectionTimeout,
		DialKeepAliveTime:    opts.PingInterval,
		DialKeepAliveTimeout: opts.PingTimeout,
		MaxCallSendMsgSize:   opts.MaxValue + 1<<20,
		Logger:               zap.NewNop(), // what a user has to know is in the errors
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
				MinConnectTimeout: min(settings.ConnectionTimeout, 5*time.Second),
			}),
			grpc.WithChainUnaryInterceptor(noteSent),
		},
	}
	if settings.Username != "" {
		return d, nil // the client authenticates when it is made, which waits for the server
	}
	client, err := clientv3.New(d.config)
	if err != nil {
		d.cancel()
		return nil, &valkeyrie.InvalidConfigError{Backend: StoreName, Field: "endpoints",
			Reason: "the client refuses " + strings.Join(members, ", "), Err: err}
	}
	d.opened.Store(client)
	return d, nil
}

// client returns the client, which it makes if that had to wait for the server.
func (d *driver) client(ctx context.Context) (*clientv3.Client, error) {
	if c := d.opened.Load(); c != nil {
		return c, nil
	}
	select {
	case d.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.ctx.Done():
		return nil, valkeyrie.ErrClosed
	}
	answers := make(chan error, 1)
	open := func() {
		defer func() { <-d.opening }()
		if d.opened.Load() != nil {
			answers <- nil
			return
		}
		c, err := clientv3.New(d.config)
		if err == nil {
			d.opened.Store(c)
		}
		answers <- err
	}
	if !d.running.Go(open) { // clientv3.New takes no context of a call; it ends after DialTimeout
		<-d.opening
		return nil, valkeyrie.ErrClosed
	}
	select {
	case err := <-answers:
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) { // the client's own, of DialTimeout
				return nil, store.Wrap(valkeyrie.ErrNotReachable, err)
			}
			return nil, readError(err)
		}
		return d.opened.Load(), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Info implements store.Driver.
func (d *driver) Info() store.Info {
	return store.Info{Name: StoreName, Contexts: store.ContextsAndClose, LeadingSlash: true, MaxValue: d.largest}
}

// Close implements store.Driver.
func (d *driver) Close() error {
	d.running.Stop()
	d.cancel()
	d.opening <- struct{}{} // nobody opens a client any more
	var err error
	if c := d.opened.Load(); c != nil {
		err = c.Close()
	}
	d.running.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
