// Package valkeyrie gives services one way to keep metadata in a key/value
// store: service discovery, configuration, locks, leader election. It speaks
// to Consul, etcd (v3 and v2 API), ZooKeeper, Redis, DynamoDB, BoltDB and to
// the memory of its own process through one interface, [Store].
//
// A service imports this package, blank-imports the backends it wants, and
// opens a store by name:
//
//	import (
//		"github.com/kvtools/valkeyrie"
//		_ "github.com/kvtools/valkeyrie/store/boltdb"
//	)
//
//	kv, err := valkeyrie.NewStore("boltdb", []string{"/var/lib/app/meta.db"}, nil)
//
// Importing a backend compiles that backend's client and no other. The names are
// those of the packages below store: "memory" and "boltdb" live in the process,
// "etcdv3", "etcdv2", "consul", "zookeeper", "redis" and "dynamodb" talk to a
// server. Each package's documentation says what its endpoints, credentials and
// options are; code that is written for one backend can call that package's New,
// which takes the same arguments and the options by their type.
//
// # The contract
//
// Every call means the same on every backend. Where a server does not offer
// what is written here, the backend does the extra work; where that is
// impossible the call returns an error that says so ([ErrCallNotSupported] or
// another sentinel) and docs/compatibility.md lists it. Nothing differs in
// silence. The package testutils holds the tests that prove it, one per
// sentence; every backend runs all of them against a real server.
//
// # Keys
//
// A key is a path of non-empty segments joined by "/". Leading, trailing and
// doubled slashes mean nothing: "/a//b/" is "a/b". Every key that comes back is
// in this form, whole, without [Config.Prefix].
//
// Refused with [ErrInvalidKey], on every backend and before anything is sent:
//
//   - the empty key (the empty directory is the root, and is allowed in List,
//     Walk, WatchTree and Events, not in DeleteTree);
//   - the segments "." and "..";
//   - the segment ".valkeyrie", which is the library's own: lock queues and the
//     like live below it, and never appear in List, Walk or a watch;
//   - invalid UTF-8 and control characters (Unicode category Cc);
//   - more than 1,024 bytes in the form above.
//
// Everything else is legal and comes back as it went in: spaces, "%2F", "?",
// "#", "*", "[", "\", ":", "+", "&", letters of any script.
//
// A directory is only a prefix: "foo" has "foo/a" below it, never "foobar/a". A
// key may hold a value and have keys below it. Directories that were never put
// do not exist as keys.
//
// # Values
//
// A value is any bytes, up to what the server takes; beyond that the call
// returns [ErrValueTooLarge] and nothing is written. An empty value is a value:
// it comes back as an empty slice that is not nil. What a call returns belongs
// to the caller, and what a caller passed in may be reused after the call.
//
// # Revisions
//
// [KVPair.LastIndex] is the revision of that key. Every write gives the key a
// revision it has never had before: also after a delete, also for an identical
// value, also after a restart of the process or the server. Compare revisions
// for equality only. The revision of a stored pair is never 0. Renewing a TTL
// is not a write.
//
// # Time to live
//
// A key put with a TTL is there for at least the TTL. At most 1 s or 5 % of the
// TTL later, whichever is longer, it is gone from Get, Exists, List, watches and
// for AtomicPut with a nil previous, as long as the process that wrote it lives;
// docs/compatibility.md states for each backend how much later that may be if
// the process died. TTLs are never rounded down; below a server's minimum the
// library does the timing. A later Put or AtomicPut without TTL makes the key
// permanent, one with a TTL starts a new one.
//
// # Consistency
//
// Reads are linearizable unless [ReadOptions.AllowStale] asks for cheaper ones.
// A write that returned nil is as durable as the server promises. A write whose
// outcome is unknown, because the connection or the context ended after it was
// sent, returns an error for which errors.Is(err, ErrAmbiguous) holds; the
// library never repeats such a write on its own, as it could then apply twice.
//
// # Watches
//
// [Store.Watch], [Store.WatchTree] and [Store.Events] start with the state at
// the time of the call and go on with what changes. Nothing that happens after
// the call returned (for Events: after [Synced]) is missed in the end: when the
// reader is slow, states in between are merged, so that memory stays bounded by
// the number of keys watched, and the last state always arrives. States of one
// key never go back.
//
// A watch outlives dropped connections, server restarts, failovers and
// compaction: the library reconnects with backoff, compares what it finds with
// what it has sent, and sends the differences. It ends only when its context is
// done, the store is closed, or the server refuses for good (authentication,
// an invalid argument). Then its channel is closed, within a second, whether or
// not anyone reads.
//
// # Locks
//
// See [Locker]. Package leadership elects a leader with one, on any backend.
//
// # Errors and contexts
//
// Every error of a Store or Locker is an [*OpError] that unwraps to one of the
// sentinels of this package where one fits, and to the error of the backend's
// client. Every call returns within its context, also when the server accepts
// the connection and says nothing; the context's error is then in the chain.
// After Close every call returns [ErrClosed], those that were waiting included.
//
// Give calls a context with a deadline. Without one, a call to a server that is
// away or silent ends with [ErrNotReachable] when the backend gives its
// connection up, which takes it some seconds; docs/compatibility.md says how
// many. Only a Lock that waits goes on waiting. The context of Watch, WatchTree
// and Events is that of the whole watch: cancel it to end the watch, also when
// nobody reads its channel any more.
//
// No call changes global state of the process (http.DefaultClient, log output,
// the environment), no server setting is changed but those that a backend's
// options name, and no goroutine outlives Close.
package valkeyrie

import (
	"crypto/tls"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Config is what all backends have in common. A nil *Config means the defaults.
// The store keeps its own copy; only what TLS, Logger and Backend point to is
// shared with the caller and must not be changed afterwards.
type Config struct {
	// TLS, when not nil, makes every connection a TLS one with these settings.
	TLS *tls.Config

	// ConnectionTimeout bounds how long one attempt to reach the server may
	// take, and how long a watch may take to deliver its first state without
	// any progress. For BoltDB it bounds the wait for the file's lock.
	// Default 10 s. Negative values are refused.
	ConnectionTimeout time.Duration

	// Username and Password authenticate where the server has users. A backend
	// ignores those of Username, Password, Token and TLS that it has no use for;
	// docs/compatibility.md lists them.
	Username, Password string

	// Token authenticates where the server has tokens (Consul, DynamoDB).
	Token string

	// Prefix is put in front of every key on its way to the server and taken
	// off again on the way back: with "app", the key "a/b" is stored as
	// "app/a/b". A leading slash is kept where the server tells "/a" from "a"
	// (etcd v3, Redis), so that Prefix "/" opens the keys that other tools wrote
	// with a leading slash. Prefix follows the rules for keys. Default: none.
	Prefix string

	// Logger receives what the library does on its own: reconnects, failed
	// renewals, fallbacks. Set it: what goes wrong between two calls is told
	// here and nowhere else. Default: discards.
	Logger *slog.Logger

	// Backend holds the backend's own options, for example *redis.Options; each
	// backend's documentation names the type. A value of another type is
	// refused with an *InvalidConfigError. Default: the backend's defaults.
	Backend any
}

// DefaultConnectionTimeout is the value of Config.ConnectionTimeout when none is given.
const DefaultConnectionTimeout = 10 * time.Second

// Constructor opens a store of one backend. It checks its arguments and
// prepares the client, and does not wait for the server. Empty endpoints mean
// the server's usual local address. It returns an *InvalidConfigError for
// arguments that cannot be right.
type Constructor func(endpoints []string, cfg *Config) (Store, error)

var registry = struct {
	sync.RWMutex
	constructors map[string]Constructor
}{constructors: make(map[string]Constructor)}

// Register makes a backend available to NewStore under the given name. A
// backend calls it once, in its init function. Register panics when the name is
// empty or taken, or when c is nil. It is safe for concurrent use.
func Register(name string, c Constructor) {
	if name == "" {
		panic("valkeyrie: Register with an empty backend name")
	}
	if c == nil {
		panic("valkeyrie: Register of backend " + name + " with a nil Constructor")
	}
	registry.Lock()
	defer registry.Unlock()
	if _, taken := registry.constructors[name]; taken {
		panic("valkeyrie: Register called twice for backend " + name)
	}
	registry.constructors[name] = c
}

// Backends returns the names of the registered backends, sorted.
func Backends() []string {
	registry.RLock()
	defer registry.RUnlock()
	names := make([]string, 0, len(registry.constructors))
	for name := range registry.constructors {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// NewStore opens a store of the named backend. The backend's package must be
// imported, usually for its side effect alone:
//
//	import _ "github.com/kvtools/valkeyrie/store/etcdv3"
//
// NewStore checks its arguments and prepares the client; it does not wait for
// the server, which the first call then does (BoltDB opens its file). Empty
// endpoints mean the server's usual local address; BoltDB requires exactly one
// path. A nil cfg means the defaults.
//
// It returns an *UnknownBackendError, whose text names the import that is
// missing, or an *InvalidConfigError for arguments that cannot be right.
func NewStore(name string, endpoints []string, cfg *Config) (Store, error) {
	registry.RLock()
	c := registry.constructors[name]
	registry.RUnlock()
	if c == nil {
		return nil, &UnknownBackendError{Name: name, Registered: Backends()}
	}
	return c(endpoints, cfg)
}
