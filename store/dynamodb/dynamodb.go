// Package dynamodb is the backend for Amazon DynamoDB and what speaks its API.
//
//	import _ "github.com/kvtools/valkeyrie/store/dynamodb"
//
//	kv, err := valkeyrie.NewStore("dynamodb", nil, &valkeyrie.Config{
//		Backend: &dynamodb.Options{Table: "app"},
//	})
//
// Credentials, region and endpoint are found as by every AWS program: in the
// environment, the shared files, the role of the machine; Options.AWS gives
// others. Config.Username, Password and Token are an access key, its secret and
// a session token. One endpoint, host:port or a URL, is for emulators and for
// private endpoints.
//
// Each key is an item of one table: partition key "pk" (its first segment), sort
// key "sk" (the whole key), "val" (its value, binary, absent when empty), "rev"
// (its revision), "exp_ms" (when it expires, in milliseconds) and "exp_s" (the
// second from which the server may remove it), so that a directory is a range of
// one partition and List never reads the rest of the table. The item of a lock
// also has "lock_token", "lock_owner" and "lock_ms". An item without "rev" was
// written by something else: reads and conditional writes of it return
// valkeyrie.ErrCorrupt; Put overwrites it, Delete deletes it.
//
// A revision is 64 random bits, drawn for each write: a write needs no read
// before it, and no writer has to know another's. That one comes again by chance
// just when a stale pair is compared is less likely than 1 in 10^19.
//
// The server has no clock to ask, so that expiry is judged by the clocks of
// readers and writers; these should be synchronised, as NTP does. Who waits for
// a lock does not rely on that.
package dynamodb

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// StoreName is the name of this backend for valkeyrie.NewStore.
const StoreName = "dynamodb"

func init() { store.Register(StoreName, New) }

// Options are the options of this backend. nil means the defaults.
type Options struct {
	// Table is the table's name or ARN. Default "valkeyrie".
	Table string

	// Create creates the table at the first call if there is none: with
	// on-demand billing, a stream of keys, and the server's expiry by "exp_s".
	// Default: a table that is missing is an error, unless the endpoint that was
	// given is on this machine (localhost, a loopback address): an emulator starts
	// empty, and its tables cost nothing.
	Create bool

	// NoStream: watches compare what they read every PollInterval although the
	// table may have a stream, and Create makes a table without one. At most two
	// processes should read one table's stream. Default: the stream is used.
	NoStream bool

	// PollInterval is how often watches and waiters for locks look, where no
	// stream is used. Default 1 s.
	PollInterval time.Duration

	// AWS replaces the configuration that is found in the environment. Its
	// Retryer is not used, as only this package knows what may be repeated.
	AWS *aws.Config
}

// maxValue is the largest value: an item takes 400 KB with the names of its
// attributes and its key, which is in it twice.
const maxValue = 400<<10 - 2*maxWireKey - 512

// maxWireKey is the longest sort key in bytes.
const maxWireKey = 1024

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	o.Table = cmp.Or(o.Table, "valkeyrie")
	o.PollInterval = cmp.Or(o.PollInterval, time.Second)
	return o
}

// New opens a store. It takes at most one endpoint, host:port or a URL; none
// means that of the region. It does not wait for the server.
func New(endpoints []string, cfg *valkeyrie.Config, opts *Options) (valkeyrie.Store, error) {
	return store.Open(StoreName, cfg, opts, func(settings valkeyrie.Config, given Options) (store.Driver, error) {
		return newDriver(endpoints, settings, given.withDefaults())
	})
}

// driver is the store.Driver of DynamoDB.
type driver struct {
	db        *dynamodb.Client
	streams   *dynamodbstreams.Client
	transport *http.Transport // of both; nil when the user gave an HTTP client
	opts      Options
	table     *string
	timeout   time.Duration // Config.ConnectionTimeout
	log       *slog.Logger

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running store.Group // the check of the table, the reader of the stream

	usable   atomic.Bool               // the table has been checked
	doubtful atomic.Bool               // a request got no answer since then
	flushed  atomic.Pointer[time.Time] // when idle connections were closed last
	mu       sync.Mutex
	checking *check // nil when none is going on

	readers chan *reader // capacity 1: the reader of the stream, perhaps nil, for who needs it
	polling sync.Once    // says that the table has no stream
}

func newDriver(endpoints []string, settings valkeyrie.Config, opts Options) (*driver, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	endpoint, err := endpointURL(endpoints, settings.TLS != nil)
	if err != nil {
		return nil, err
	}
	opts.Create = opts.Create || onThisMachine(endpoint)
	cfg, transport, err := awsConfig(endpoint, settings, opts.AWS)
	if err != nil {
		return nil, err
	}
	d := &driver{
		opts: opts, table: aws.String(opts.Table), timeout: settings.ConnectionTimeout,
		log: settings.Logger.With("backend", StoreName, "table", opts.Table),
		db:  dynamodb.NewFromConfig(cfg), streams: dynamodbstreams.NewFromConfig(cfg), transport: transport,
		readers: make(chan *reader, 1),
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.readers <- nil
	return d, nil
}

// Info implements store.Driver.
func (d *driver) Info() store.Info {
	return store.Info{Name: StoreName, Contexts: store.ContextsAndClose, MaxValue: maxValue}
}

// Close implements store.Driver.
func (d *driver) Close() error {
	d.running.Stop()
	d.cancel()
	d.running.Wait()
	if d.transport != nil {
		d.transport.CloseIdleConnections()
	}
	return nil
}
