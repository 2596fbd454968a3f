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
	file *file
	name []byte

	// latest is the bucket in file.latest; guarded by file.mu.
	latest *bbolt.Bucket
}

// newBucket creates the bucket if it is not there.
func newBucket(f *file, name string) (*bucket, error) {
	b := &bucket{file: f, name: []byte(name)}
	exists := false
	err := f.db.View(func(tx *bbolt.Tx) error {
		exists = tx.Bucket(b.name) != nil
		return nil
	})
	if err == nil && !exists {
		err = f.update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket(b.name)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	f.attach(b)
	return b, nil
}

func (b *bucket) MaxValue() int { return maxValue }

// Close leaves the file open, which its last user closes.
func (b *bucket) Close() error {
	b.file.detach(b)
	return nil
}

// Get reads in the transaction that is open for all, if there is one, which is
// several times as fast as to begin one.
func (b *bucket) Get(key string, values bool) (local.Record, bool, error) {
	if r, found, ok, err := b.getLatest(key, values); ok {
		return r, found, err
	}
	tx, err := b.file.db.Begin(false)
	if err != nil {
		return local.Record{}, false, clientError(err)
	}
	defer func() { _ = tx.Rollback() }() // fails only when the transaction has ended
	return getCopy(tx.Bucket(b.name), key, values)
}

// getLatest is Get in file.latest; ok is false when a writer is at work.
func (b *bucket) getLatest(key string, values bool) (r local.Record, found, ok bool, err error) {
	if !b.file.mu.TryRLock() {
		return r, false, false, nil
	}
	defer b.file.mu.RUnlock()
	if b.latest == nil {
		return r, false, false, nil
	}
	r, found, err = getCopy(b.latest, key, values)
	return r, found, true, err
}

// getCopy reads a record whose value belongs to the caller.
func getCopy(b *bbolt.Bucket, key string, values bool) (local.Record, bool, error) {
	r, found, err := get(b, key)
	switch {
	case !found:
	case values:
		r.Value = append(make([]byte, 0, len(r.Value)), r.Value...)
	default:
		r.Value = nil
	}
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
	tx, err := b.file.db.Begin(false)
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
	return b.file.update(func(tx *bbolt.Tx) error {
		bb, err := tx.CreateBucketIfNotExists(b.name)
		if err != nil {
			return err
		}
		return fn(update{b: bb})
	})
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
