package local

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

const (
	// pageKeys and pageBytes bound how much a Walk holds at a time.
	pageKeys  = 512
	pageBytes = 1 << 20
)

// Driver is one client of a DB. It implements store.Driver.
type Driver struct {
	db      *DB
	name    string
	release func() error
	closed  atomic.Bool
	done    chan struct{} // closed by Close
}

var _ store.Driver = (*Driver)(nil)

// NewDriver returns a driver of the database for the backend of that name.
// Close calls release, which closes the database if nobody else uses it.
func NewDriver(db *DB, name string, release func() error) *Driver {
	return &Driver{db: db, name: name, release: release, done: make(chan struct{})}
}

// Info describes the driver.
func (d *Driver) Info() store.Info {
	return store.Info{
		Name:         d.name,
		Contexts:     store.ContextsAndClose,
		LeadingSlash: true,
		MaxValue:     d.db.storage.MaxValue(),
	}
}

// Close ends the calls and watches of this driver, not those of others.
func (d *Driver) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	close(d.done)
	return d.release()
}

// Get reads a key. It takes no lock of this package and waits for no write.
func (d *Driver) Get(_ context.Context, key string, opts valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	if d.closed.Load() {
		return nil, valkeyrie.ErrClosed
	}
	r, found, err := d.db.storage.Get(key, !opts.KeysOnly)
	if err != nil {
		return nil, err
	}
	if !found || r.Expires != 0 && !d.db.expiries.alive(key, r.Revision, r.Expires) {
		return nil, valkeyrie.ErrKeyNotFound
	}
	return &valkeyrie.KVPair{Key: key, Value: r.Value, LastIndex: r.Revision}, nil
}

// pair makes a pair whose value nobody else has.
func pair(key string, r *Record, keysOnly bool) *valkeyrie.KVPair {
	p := &valkeyrie.KVPair{Key: key, LastIndex: r.Revision}
	if !keysOnly {
		p.Value = make([]byte, len(r.Value))
		copy(p.Value, r.Value)
	}
	return p
}

// ended returns why a call must end, or nil.
func (d *Driver) ended(ctx context.Context) error {
	if d.closed.Load() {
		return valkeyrie.ErrClosed
	}
	return ctx.Err()
}

// Walk reads page by page, so that no view is open while the loop's body runs.
func (d *Driver) Walk(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		var page []*valkeyrie.KVPair
		for from, more := dir, true; more; {
			err := d.ended(ctx)
			if err == nil {
				page, more, err = d.page(dir, from, opts.KeysOnly, page[:0])
			}
			for _, p := range page {
				if !yield(p, nil) {
					return
				}
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if more {
				from = page[len(page)-1].Key + "\x00"
			}
		}
	}
}

// page appends one page of pairs, those from a key on. more is false at the end.
func (d *Driver) page(dir, from string, keysOnly bool, page []*valkeyrie.KVPair) (_ []*valkeyrie.KVPair, more bool, err error) {
	view, err := d.db.storage.View()
	if err != nil {
		return page, false, err
	}
	defer view.Close()
	size := 0
	view.Scan(dir, from, func(key string, r Record, e error) bool {
		if e != nil {
			err = e
			return false
		}
		if r.Expires == 0 || d.db.expiries.alive(key, r.Revision, r.Expires) {
			page = append(page, pair(key, &r, keysOnly))
			size += len(r.Value)
		}
		more = len(page) >= pageKeys || size >= pageBytes
		return !more
	})
	return page, more, err
}

// do is DB.do for this driver.
func (d *Driver) do(ctx context.Context, apply func(*transaction) (uint64, error)) (uint64, error) {
	if d.closed.Load() {
		return 0, valkeyrie.ErrClosed
	}
	return d.db.do(ctx, d.done, apply)
}

// Write writes a key.
func (d *Driver) Write(ctx context.Context, w store.Write) (store.Written, error) {
	if err := d.checkSize(w.Value); err != nil {
		return store.Written{}, err
	}
	// A copy, as the call may return before the commit does.
	w.Value = append(make([]byte, 0, len(w.Value)), w.Value...)
	revision, err := d.do(ctx, func(t *transaction) (uint64, error) { return t.write(w) })
	return store.Written{Revision: revision}, err
}

// checkSize refuses values that the storage does not take.
func (d *Driver) checkSize(value []byte) error {
	if limit := d.db.storage.MaxValue(); limit > 0 && len(value) > limit {
		return fmt.Errorf("%w: %d bytes, the limit is %d", valkeyrie.ErrValueTooLarge, len(value), limit)
	}
	return nil
}

// Delete removes a key.
func (d *Driver) Delete(ctx context.Context, key string, ifRevision uint64) error {
	_, err := d.do(ctx, func(t *transaction) (uint64, error) { return 0, t.delete(key, ifRevision) })
	return err
}

// DeleteTree removes all keys below a directory at once.
func (d *Driver) DeleteTree(ctx context.Context, dir string) error {
	_, err := d.do(ctx, func(t *transaction) (uint64, error) { return 0, t.deleteTree(dir) })
	return err
}

// Renew starts the TTL of a key anew. It does so in memory at once, so that a
// slow disk does not let the key expire, and then in the storage, as a key must
// outlive a crash of its writer by the TTL.
func (d *Driver) Renew(ctx context.Context, key string, revision uint64, ttl time.Duration) (store.Written, error) {
	if err := d.ended(ctx); err != nil {
		return store.Written{}, err
	}
	d.db.expiries.extend(key, revision, ttl) // if it cannot be, renew finds out why
	_, err := d.do(ctx, func(t *transaction) (uint64, error) { return 0, t.renew(key, revision, ttl) })
	if err != nil {
		return store.Written{}, err
	}
	return store.Written{Revision: revision}, nil
}

// TryLock takes a lock if it is free.
func (d *Driver) TryLock(ctx context.Context, l store.LockRequest) (store.Hold, error) {
	if err := d.checkSize(l.Value); err != nil {
		return nil, err
	}
	l.Value = append(make([]byte, 0, len(l.Value)), l.Value...)
	token, err := d.do(ctx, func(t *transaction) (uint64, error) { return t.lock(l) })
	if err != nil {
		return nil, err
	}
	return &hold{d: d, key: l.Key, token: token, ttl: l.TTL}, nil
}

// hold is a lock that was acquired: the record at that revision.
type hold struct {
	d     *Driver
	key   string
	token uint64
	ttl   time.Duration
}

func (h *hold) Token() uint64      { return h.token }
func (h *hold) Revision() uint64   { return h.token }
func (h *hold) TTL() time.Duration { return 0 } // as asked

// Renew writes nothing to the storage. It need not: after a crash the hold is
// void, whatever its expiry, because nobody opens the storage before its last
// user is gone.
func (h *hold) Renew(ctx context.Context) error {
	if err := h.d.ended(ctx); err != nil {
		return err
	}
	if !h.d.db.expiries.extend(h.key, h.token, h.ttl) {
		return valkeyrie.ErrLockNotHeld
	}
	// A deletion that is committed may not have reached the expiry table yet,
	// while the watch that made the front ask shows it already.
	r, found, err := h.d.db.storage.Get(h.key, false)
	switch {
	case err != nil:
		return err
	case !found || r.Revision != h.token:
		return valkeyrie.ErrLockNotHeld
	}
	return nil
}

func (h *hold) Release(ctx context.Context) error {
	_, err := h.d.do(ctx, func(t *transaction) (uint64, error) { return 0, t.release(h.key, h.token) })
	return err
}
