// Package boltdb keeps the data in one file, in the process itself, with
// [bbolt]. It needs no server.
//
//	kv, err := boltdb.New([]string{"/var/lib/app/meta.db"}, nil, nil)
//
// The file serves one process at a time; another one that opens it gets an
// error that unwraps to valkeyrie.ErrNotReachable after
// Config.ConnectionTimeout. Any number of stores in one process may open the
// same file, by whatever path: they share it, and see each other's data, watches
// and locks.
//
// A write that has returned nil is on the disk (fsync). Writes that wait at the
// same time share a transaction, and so the cost of it. Reads run in parallel
// and wait for no write.
//
// Expiry and watches are exact. A TTL counts on while no process has the file
// open, by the wall clock; what has expired meanwhile is gone when the file is
// opened. A lock ends with its process: what a process that has ended still held
// is free as soon as another one has opened the file.
//
// The keys stand in one bucket, Options.Bucket; other buckets of the file are left
// alone. For those who read the file with other tools, what stands under a key is,
// with integers in big endian: the byte 0xb1, which is also the version of this
// layout; 8 bytes of revision; 8 bytes of expiry, in nanoseconds since 1970 UTC,
// 0 for never; 2 bytes of length of the owner; the owner, which is empty unless
// the key is a lock that is held; and the value, up to the end. The bucket's
// sequence is the last revision.
//
// What cannot be read in this way is left as it is: reading it, and writing it on
// a condition, returns valkeyrie.ErrCorrupt. Put overwrites it, Delete deletes it.
//
// Config.TLS, Username, Password and Token mean nothing here.
//
// [bbolt]: https://github.com/etcd-io/bbolt
package boltdb

import (
	"cmp"
	"fmt"
	"io/fs"

	"go.etcd.io/bbolt"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/local"
	"github.com/kvtools/valkeyrie/store"
)

// StoreName is the name of this backend for valkeyrie.NewStore.
const StoreName = "boltdb"

func init() { store.Register(StoreName, New) }

// Options are the options of this backend. A nil *Options means the defaults.
type Options struct {
	// Bucket is the name of the bucket that holds the keys. It is created if it
	// is not there. Default DefaultBucket.
	Bucket string

	// FileMode is the mode of the file if it has to be created, before umask.
	// Default DefaultFileMode.
	FileMode fs.FileMode
}

// The defaults of Options.
const (
	DefaultBucket               = "valkeyrie"
	DefaultFileMode fs.FileMode = 0o600
)

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	o.Bucket = cmp.Or(o.Bucket, DefaultBucket)
	o.FileMode = cmp.Or(o.FileMode, DefaultFileMode)
	return o
}

// New opens the file at the only endpoint, a path, and creates it if it is not
// there; its directory must be. It returns an *valkeyrie.InvalidConfigError for
// a path that cannot be right, and an error that unwraps to
// valkeyrie.ErrNotReachable when another process has the file.
func New(endpoints []string, cfg *valkeyrie.Config, opts *Options) (valkeyrie.Store, error) {
	return store.Open(StoreName, cfg, opts, func(settings valkeyrie.Config, given Options) (store.Driver, error) {
		if len(given.Bucket) > bbolt.MaxKeySize {
			return nil, &valkeyrie.InvalidConfigError{Backend: StoreName, Field: "Options.Bucket",
				Reason: fmt.Sprintf("is too long a name for a bucket: give at most %d bytes", bbolt.MaxKeySize)}
		}
		path, err := pathOf(endpoints)
		if err != nil {
			return nil, err
		}
		db, release, err := openBucket(path, given.withDefaults(), settings)
		if err != nil {
			return nil, err
		}
		return local.NewDriver(db, StoreName, release), nil
	})
}
