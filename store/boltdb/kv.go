package boltdb

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/local"
)

// maxValue leaves room for the header within bbolt's limit.
const maxValue = bbolt.MaxValueSize - recordHeader - maxOwner

// bucket is the local.Storage in one bucket of a file. The bucket's sequence is
// the last revision: it is written along with every change.
type bucket struct {
	db   *bbolt.DB
	name []byte
}

// newBucket creates the bucket if it is not there.
func newBucket(db *bbolt.DB, name string) (*bucket, error) {
	b := &bucket{db: db, name: []byte(name)}
	exists := false
	err := db.View(func(tx *bbolt.Tx) error {
		exists = tx.Bucket(b.name) != nil
		return nil
	})
	if err == nil && !exists {
		err = db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket(b.name)
			return err
		})
	}
	return b, err
}

func (b *bucket) MaxValue() int { return maxValue }

// Close does nothing: the file is closed by its last user.
func (b *bucket) Close() error { return nil }

// Get is written for speed: no closure, no defer, and of what it allocates only
// the value is its own.
func (b *bucket) Get(key string, values bool) (local.Record, bool, error) {
	tx, err := b.db.Begin(false)
	if err != nil {
		return local.Record{}, false, clientError(err)
	}
	r, found, err := get(tx.Bucket(b.name), key)
	if found {
		if values {
			r.Value = append(make([]byte, 0, len(r.Value)), r.Value...)
		} else {
			r.Value = nil
		}
	}
	_ = tx.Rollback() // fails only when the transaction has ended
	return r, found, err
}

// get reads a record; its value is valid until the transaction ends.
func get(b *bbolt.Bucket, key string) (local.Record, bool, error) {
	if b == nil {
		return local.Record{}, false, nil // somebody has deleted the bucket
	}
	data := b.Get([]byte(key))
	if data == nil {
		return local.Record{}, false, nil
	}
	r, err := decode(data)
	if err != nil {
		return local.Record{}, false, corrupt(key, err)
	}
	return r, true, nil
}

// scan is View.Scan and Tx.Scan.
func scan(b *bbolt.Bucket, prefix, from string, yield func(string, local.Record, error) bool) {
	if b == nil {
		return
	}
	p, c := []byte(prefix), b.Cursor()
	for k, data := c.Seek([]byte(max(prefix, from))); k != nil && bytes.HasPrefix(k, p); k, data = c.Next() {
		if data == nil {
			continue // a nested bucket, which is not ours
		}
		r, err := decode(data)
		if err != nil {
			err = corrupt(string(k), err)
		}
		if !yield(string(k), r, err) {
			return
		}
	}
}

// corrupt makes the error of a record that cannot be read.
func corrupt(key string, err error) error {
	return fmt.Errorf("key %q: %w: %w", key, valkeyrie.ErrCorrupt, err)
}

// View implements local.Storage.
func (b *bucket) View() (local.View, error) {
	tx, err := b.db.Begin(false)
	if err != nil {
		return nil, clientError(err)
	}
	return view{tx: tx, b: tx.Bucket(b.name)}, nil
}

// view is a transaction that reads.
type view struct {
	tx *bbolt.Tx
	b  *bbolt.Bucket
}

func (v view) Close() { _ = v.tx.Rollback() } // fails only when it has ended

func (v view) Revision() uint64 {
	if v.b == nil {
		return 0
	}
	return v.b.Sequence()
}

func (v view) Get(key string) (local.Record, bool, error) { return get(v.b, key) }

func (v view) Scan(prefix, from string, yield func(string, local.Record, error) bool) {
	scan(v.b, prefix, from, yield)
}

// Update implements local.Storage.
func (b *bucket) Update(fn func(local.Tx) error) error {
	tx, err := b.db.Begin(true)
	if err != nil {
		return clientError(err)
	}
	ended := false
	defer func() {
		if !ended { // fn has panicked; the lock must not stay
			_ = tx.Rollback()
		}
	}()
	bb, err := tx.CreateBucketIfNotExists(b.name)
	if err == nil {
		err = fn(update{b: bb})
	}
	ended = true
	if err != nil {
		_ = tx.Rollback() // fails only when the transaction has ended
		return clientError(err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%w: %w", valkeyrie.ErrAmbiguous, err)
	}
	return nil
}

// update is a transaction that writes.
type update struct{ b *bbolt.Bucket }

func (u update) Get(key string) (local.Record, bool, error) { return get(u.b, key) }

func (u update) Scan(prefix, from string, yield func(string, local.Record, error) bool) {
	scan(u.b, prefix, from, yield)
}

func (u update) Put(key string, r local.Record) error {
	return clientError(u.b.Put([]byte(key), encode(r)))
}

func (u update) Delete(key string) error { return clientError(u.b.Delete([]byte(key))) }

func (u update) NextRevision() (uint64, error) { return u.b.NextSequence() }
