package boltdb

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/local"
)

// file is an open file with the buckets of it that are in use.
type file struct {
	db      *bbolt.DB
	buckets local.Shared[string, *local.DB]

	// mu is held for writing by whoever writes to the file, from before the
	// transaction begins until latest has been renewed.
	mu sync.RWMutex

	// latest is a transaction that reads the last committed state, for all who
	// read while nobody writes; nil when it could not begin. To share one is
	// safe: reading changes nothing in it. It must not be open while somebody
	// writes, as the pages that it sees could not be used again then, and as the
	// writer waits for it when the file has to grow.
	latest *bbolt.Tx
	inUse  []*bucket

	written bool // since the file was opened; guarded by mu
}

// update runs fn in a transaction that writes.
func (f *file) update(fn func(*bbolt.Tx) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop()
	defer f.renew()

	tx, err := f.db.Begin(true)
	if err != nil {
		return clientError(err)
	}
	ended := false
	defer func() {
		if !ended { // fn has panicked; bbolt's lock must not stay
			_ = tx.Rollback()
		}
	}()
	err = fn(tx)
	ended = true
	if err != nil {
		_ = tx.Rollback() // fails only when the transaction has ended
		return clientError(err)
	}
	f.written = true
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%w: %w", valkeyrie.ErrAmbiguous, err)
	}
	return nil
}

// drop ends latest. The caller holds mu.
func (f *file) drop() {
	if f.latest == nil {
		return
	}
	for _, b := range f.inUse {
		b.latest = nil
	}
	_ = f.latest.Rollback() // fails only when it has ended
	f.latest = nil
}

// renew begins latest. The caller holds mu. Readers that find none begin one of
// their own, and see the error.
func (f *file) renew() {
	tx, err := f.db.Begin(false)
	if err != nil {
		return
	}
	f.latest = tx
	for _, b := range f.inUse {
		b.latest = tx.Bucket(b.name)
	}
}

// attach makes latest serve a bucket, too.
func (f *file) attach(b *bucket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop()
	f.inUse = append(f.inUse, b)
	f.renew()
}

// detach is the opposite of attach.
func (f *file) detach(b *bucket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inUse = slices.DeleteFunc(f.inUse, func(o *bucket) bool { return o == b })
	b.latest = nil
}

// close closes the file. It waits for those who read.
//
// The list of free pages is written here and not in every commit: that makes
// commits quicker, and is only missed after a crash, when bbolt has to go through
// the whole file to find them.
func (f *file) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop()
	var err error
	if f.written {
		f.db.NoFreelistSync = false
		err = f.db.Update(func(*bbolt.Tx) error { return nil })
	}
	return errors.Join(err, f.db.Close())
}
