// Package zookeeper is the backend for Apache ZooKeeper (3.5 and later).
//
//	import _ "github.com/kvtools/valkeyrie/store/zookeeper"
//
//	kv, err := valkeyrie.NewStore("zookeeper", []string{"10.0.0.1:2181", "10.0.0.2:2181"}, nil)
//
// A key is a node at the path of its own name, its value the node's data as it
// is, so that zkCli.sh reads and writes what this library does. A node whose
// data is null, which the server keeps apart from empty data, is a directory
// and not a key: parents are made so when a key needs them and removed when they
// are empty again. Names that ZooKeeper refuses are written in another way, which
// docs/compatibility.md describes. Revisions are the node's mzxid.
//
// Several endpoints are members of one ensemble; a session moves to another when
// its own is gone. With Config.TLS every connection is a TLS one. With
// Config.Username and Password the store authenticates by the scheme "digest",
// and what it creates may be used by that user alone; see Options.ACL.
//
// TTLs are timed by the library. Beside each key with a TTL a record is kept
// below "<Config.Prefix>/.valkeyrie/ttl", by which any other store of the same
// prefix and user deletes the key when the one that wrote it is gone. Locks are
// lines of ephemeral nodes below "<key>/.valkeyrie/lock", served in order; they
// have sessions of their own, whose length follows from the locks' TTL.
package zookeeper

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// StoreName is the name of this backend for valkeyrie.NewStore.
const StoreName = "zookeeper"

func init() { store.Register(StoreName, New) }

// Options are the options of this backend. nil means the defaults.
type Options struct {
	// SessionTimeout is how long the server keeps the session of a store that it
	// does not hear of; it keeps it between 2 and 20 of its ticks, which by
	// default are 2 s. A connection that is silent for two thirds of it is given
	// up. Sessions of locks are half as long again as the locks' TTL. Default 10 s.
	SessionTimeout time.Duration

	// ACL is what may be done, and by whom, with the nodes that the store
	// creates. Default: with Config.Username all by that user and nothing by
	// anybody else; without it all by everybody.
	ACL []zk.ACL

	// MaxValue is the size in bytes of the largest value; the servers must be
	// started with a jute.maxbuffer of 16 KiB more. Default 1 MiB - 16 KiB, which
	// fits ZooKeeper's default.
	MaxValue int
}

// requestRoom is what a request may need beside the value: the key, which
// escaping can make three times as long, twice, and the ACL.
const requestRoom = 16 << 10

// defaultMaxValue is the default of Options.MaxValue.
const defaultMaxValue = 1<<20 - requestRoom

// withDefaults fills in what is not set.
func (o Options) withDefaults(username string) Options {
	o.SessionTimeout = cmp.Or(o.SessionTimeout, 10*time.Second)
	o.MaxValue = cmp.Or(o.MaxValue, defaultMaxValue)
	if len(o.ACL) == 0 {
		o.ACL = zk.WorldACL(zk.PermAll)
		if username != "" {
			o.ACL = zk.AuthACL(zk.PermAll)
		}
	}
	return o
}

// New opens a store. Endpoints are host:port, or hosts with the port 2181; none
// means 127.0.0.1:2181. It does not wait for the server.
func New(endpoints []string, cfg *valkeyrie.Config, opts *Options) (valkeyrie.Store, error) {
	return store.Open(StoreName, cfg, opts, func(settings valkeyrie.Config, given Options) (store.Driver, error) {
		return newDriver(endpoints, settings, given.withDefaults(settings.Username))
	})
}

// driver is the store.Driver of ZooKeeper.
type driver struct {
	settings connectSettings
	acl      []zk.ACL
	log      *slog.Logger
	prefix   string // the node of Config.Prefix, "" for the root

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	calls  store.Group // calls whose callers may have left
	tasks  store.Group // what goes on in the background

	main    *client              // for all but locks
	more    [moreClients]*client // beside main, for long walks and many calls at once
	busy    atomic.Int64         // calls under way
	sweeper sweeper
	expiry  expiry
	loops   sync.Once // starts those of sweeper and reaper

	mu      sync.Mutex
	lockers map[time.Duration]*client // by the length of their session
}

// connectSettings are what all connections of a store have in common.
type connectSettings struct {
	endpoints []string
	tls       *tls.Config
	timeout   time.Duration // Config.ConnectionTimeout
	auth      string        // "user:password", or ""
	maxValue  int
}

func newDriver(endpoints []string, settings valkeyrie.Config, opts Options) (*driver, error) {
	addrs, err := store.HostPorts(StoreName, endpoints, zk.DefaultPort)
	if err != nil {
		return nil, err
	}
	d := &driver{acl: opts.ACL, lockers: make(map[time.Duration]*client)}
	d.log = settings.Logger.With("backend", StoreName)
	d.settings = connectSettings{endpoints: addrs, tls: settings.TLS, timeout: settings.ConnectionTimeout, maxValue: opts.MaxValue}
	if settings.Username != "" {
		d.settings.auth = settings.Username + ":" + settings.Password
	}
	if prefix := strings.Join(strings.FieldsFunc(settings.Prefix, func(r rune) bool { return r == '/' }), "/"); prefix != "" {
		d.prefix = pathOf(prefix)
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.main = newClient(d, opts.SessionTimeout)
	for i := range d.more {
		d.more[i] = newClient(d, opts.SessionTimeout)
	}
	d.sweeper.init(d)
	d.expiry.init(d, settings.Username)
	return d, nil
}

// Info implements store.Driver.
func (d *driver) Info() store.Info {
	return store.Info{Name: StoreName, Contexts: store.ContextsAndClose, MaxValue: d.settings.maxValue}
}

// arrive is called before a new connection of main is used.
func (d *driver) arrive(conn *zk.Conn) {
	d.expiry.arrive(conn)
	d.loops.Do(func() {
		d.tasks.Go(func() { d.loop(d.sweeper.wake, d.sweeper.run) })
		d.tasks.Go(func() { d.loop(d.expiry.reaper.wake, d.expiry.reaper.run) })
	})
}

// loop calls f until the driver is closed: whenever it is woken, and after the
// time that f returned.
func (d *driver) loop(wake <-chan struct{}, f func() time.Duration) {
	for {
		timer := time.NewTimer(f())
		select {
		case <-timer.C:
		case <-wake:
		case <-d.ctx.Done():
			return
		}
		timer.Stop()
	}
}

// farewell bounds how long Close may take for what others should not have to do.
const farewell = 500 * time.Millisecond

// leave tells other stores that this one goes, and removes what waits for it.
func (d *driver) leave() {
	g, err := d.main.now()
	if err != nil {
		return
	}
	left := make(chan struct{})
	if d.tasks.Go(func() {
		defer close(left)
		d.expiry.leave(g.conn)
		d.sweeper.sweep(g.conn, true)
	}) {
		select {
		case <-left:
		case <-time.After(farewell): // the end of the client ends it
		}
	}
}

// Close implements store.Driver.
func (d *driver) Close() error {
	d.leave()
	d.tasks.Stop()
	d.calls.Stop()
	d.cancel()
	d.mu.Lock()
	clients := slices.AppendSeq(append(d.more[:], d.main), maps.Values(d.lockers))
	d.mu.Unlock()
	var closing sync.WaitGroup
	for _, c := range clients {
		closing.Go(c.close)
	}
	closing.Wait()
	d.calls.Wait()
	d.tasks.Wait()
	return nil
}
