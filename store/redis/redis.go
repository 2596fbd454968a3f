// Package redis is the backend for Redis 3.2.6 and later, standalone, with Sentinel
// or as a Cluster, and for servers that speak its protocol.
//
//	import _ "github.com/kvtools/valkeyrie/store/redis"
//
//	kv, err := valkeyrie.NewStore("redis", []string{"10.0.0.1:6379"}, nil)
//
// A key is one Redis string under its own name: 12 bytes that hold the revision,
// then the value as it is. Reads and plain writes are native commands, writes
// with a condition are scripts. Strings that other tools wrote are read as values;
// Options.PlainStrings lets those tools read what this library writes. Keys of
// other types are not the library's: lists leave them out, Get and Exists refuse
// them with ErrCorrupt, AtomicPut finds them there, and only a Put or Delete that
// names one replaces or removes it.
//
// All calls of a store share one connection to each server, and what moves much
// data (lists, snapshots, large values) a second one. Watches share a third,
// which is subscribed to keyspace notifications; see Options.Notifications for
// the one setting of the server that this needs. A caller who is alone and calls
// often gets a fourth for that time.
//
// Config.Username and Password authenticate as a user of Redis' ACLs, the
// password alone as servers before Redis 6 do. With Config.TLS every connection
// is a TLS one; client certificates make it mutual.
package redis

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// StoreName is the name of this backend for valkeyrie.NewStore.
const StoreName = "redis"

func init() {
	store.Register(StoreName, New)
}

// Options are the options of this backend. nil means the defaults.
type Options struct {
	// DB is the number of the database. A Cluster has only number 0. Default 0.
	DB int

	// Sentinel, when not nil, makes the endpoints those of sentinels, which are
	// asked for the primary. Default: none.
	Sentinel *Sentinel

	// Cluster makes the endpoints those of any nodes of a Redis Cluster.
	// Default: a single server, of which there must be one endpoint.
	Cluster bool

	// Notifications says what a watch may do to be told of changes. Default:
	// AddNotifications.
	Notifications Notifications

	// PollInterval is how often a watch reads everything again where it cannot
	// be told of changes. Default 1 s.
	PollInterval time.Duration

	// ResyncInterval is how often a watch reads everything again where it is
	// told of changes, as Redis does not promise to deliver notifications.
	// Default 1 min.
	ResyncInterval time.Duration

	// ReplyTimeout is how long a connection may be silent while a reply is
	// due; then it is given up. Idle connections are probed. Default 3 s.
	ReplyTimeout time.Duration

	// PlainStrings stores values as they are, without the revision before them,
	// so that other tools can read them. The revision then derives from the
	// bytes: writing an identical value is no change of revision, neither for
	// AtomicPut and AtomicDelete, which take a value that was changed and
	// changed back for an unchanged one, nor for watches. Default: false.
	PlainStrings bool
}

// Sentinel says how to find the primary of a Sentinel group.
type Sentinel struct {
	// MasterName is the name that the sentinels know the primary by. Required.
	MasterName string

	// Username and Password authenticate with the sentinels; those of
	// valkeyrie.Config with the servers. Default: none.
	Username, Password string
}

// Notifications says what a watch may do to be told of changes: the server's
// setting notify-keyspace-events, which is off by default, must hold K, g, $, x
// and e (or A).
type Notifications int

const (
	// AddNotifications adds the flags that are missing when a watch starts, and
	// keeps those that are set. It needs the right to the command CONFIG; where
	// that is refused, watches poll, and the log says so. It changes the running
	// server, not its configuration file.
	AddNotifications Notifications = iota

	// KeepNotifications changes nothing: where the flags are missing, or cannot
	// be read, watches poll.
	KeepNotifications

	// TrustNotifications relies on the flags being set, without a look: for
	// servers that forbid CONFIG and whose administrator has set them.
	TrustNotifications
)

const (
	defaultPollInterval   = time.Second
	defaultResyncInterval = time.Minute
	defaultReplyTimeout   = 3 * time.Second
)

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	o.PollInterval = cmp.Or(o.PollInterval, defaultPollInterval)
	o.ResyncInterval = cmp.Or(o.ResyncInterval, defaultResyncInterval)
	o.ReplyTimeout = cmp.Or(o.ReplyTimeout, defaultReplyTimeout)
	return o
}

// check refuses what cannot be right.
func (o Options) check(endpoints int) error {
	bad := func(field, reason string) error {
		return &valkeyrie.InvalidConfigError{Backend: StoreName, Field: field, Reason: reason}
	}
	switch {
	case o.Cluster && o.DB != 0:
		return bad("Options.DB", "must be 0: a Cluster has no other")
	case o.Cluster && o.Sentinel != nil:
		return bad("Options.Sentinel", "does not go with Options.Cluster: a Cluster replaces its primaries itself")
	case o.Sentinel != nil && o.Sentinel.MasterName == "":
		return bad("Options.Sentinel.MasterName", "is empty: give the name that the sentinels know the primary by")
	case o.Notifications > TrustNotifications:
		return bad("Options.Notifications", "is none of the constants: give AddNotifications, KeepNotifications or TrustNotifications")
	case !o.Cluster && o.Sentinel == nil && endpoints > 1:
		return bad("endpoints", fmt.Sprintf("there are %d; a single server has one (Options.Sentinel and Options.Cluster take more)", endpoints))
	}
	return nil
}

// New opens a store. Endpoints are host:port, or hosts with the port 6379 (with
// Options.Sentinel 26379); none means 127.0.0.1. It does not wait for the server.
func New(endpoints []string, cfg *valkeyrie.Config, opts *Options) (valkeyrie.Store, error) {
	return store.Open(StoreName, cfg, opts, func(settings valkeyrie.Config, given Options) (store.Driver, error) {
		if err := given.check(len(endpoints)); err != nil {
			return nil, err
		}
		port := 6379
		if given.Sentinel != nil {
			port = 26379
		}
		addrs, err := store.HostPorts(StoreName, endpoints, port)
		if err != nil {
			return nil, err
		}
		return newDriver(addrs, settings, given.withDefaults()), nil
	})
}

// driver is the store.Driver of Redis.
type driver struct {
	opts    Options
	config  valkeyrie.Config
	log     *slog.Logger
	ctx     context.Context // ends with Close, with ErrClosed as its cause
	cancel  context.CancelCauseFunc
	running store.Group // connections and what looks after them
	servers servers
	hub     hub
}

func newDriver(endpoints []string, settings valkeyrie.Config, opts Options) *driver {
	d := &driver{opts: opts, config: settings, log: settings.Logger.With("backend", StoreName)}
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	d.hub.d = d
	switch {
	case opts.Cluster:
		d.servers = newCluster(d, endpoints)
	case opts.Sentinel != nil:
		d.servers = newSentinels(d, endpoints)
	default:
		d.servers = newSingle(d, endpoints[0])
	}
	return d
}

// Info implements store.Driver.
func (d *driver) Info() store.Info {
	return store.Info{Name: StoreName, Contexts: store.ContextsAndClose, LeadingSlash: true, MaxValue: maxValue}
}

// Close implements store.Driver.
func (d *driver) Close() error {
	d.running.Stop()
	d.cancel(valkeyrie.ErrClosed)
	d.running.Wait()
	return nil
}
