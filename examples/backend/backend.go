// Package backend is a whole backend, as small as one can be: a store.Driver over
// a map. docs/backends.md goes through it; its test runs the conformance suite.
package backend

import (
	"context"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// StoreName is the name of this backend in errors and logs. A real one also
// registers: func init() { store.Register(StoreName, New) }.
const StoreName = "map"

// Server stands for the server: what all stores talk to.
type Server struct {
	mu       sync.Mutex
	items    map[string]item
	revision uint64        // the last one
	changed  chan struct{} // closed and replaced at each change
}

// item is what is stored under a key.
type item struct {
	value    []byte
	revision uint64
	expires  time.Time // zero: never
	owner    string    // of a lock
}

// NewServer returns an empty one.
func NewServer() *Server {
	return &Server{items: make(map[string]item), changed: make(chan struct{})}
}

// New opens a store. The front does everything that does not depend on the server.
func New(server *Server, cfg *valkeyrie.Config) (valkeyrie.Store, error) {
	return store.New(&driver{server}, cfg)
}

// driver implements store.Driver.
type driver struct{ s *Server }

func (d *driver) Info() store.Info {
	return store.Info{Name: StoreName, Contexts: store.ContextsHonoured, LeadingSlash: true}
}

func (d *driver) Close() error { return nil }

// live returns a key that is there and has not expired; s.mu is held.
func (s *Server) live(key string) (item, bool) {
	it, ok := s.items[key]
	return it, ok && (it.expires.IsZero() || time.Now().Before(it.expires))
}

// put stores a value under the next revision; s.mu is held.
func (s *Server) put(key string, value []byte, ttl time.Duration, owner string) uint64 {
	s.revision++
	it := item{value: append([]byte{}, value...), revision: s.revision, owner: owner}
	if ttl > 0 {
		it.expires = time.Now().Add(ttl)
	}
	s.items[key] = it
	s.notify()
	return s.revision
}

// notify wakes all watches; s.mu is held.
func (s *Server) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// check returns the error by the conditions of a write; s.mu is held.
func (s *Server) check(key string, create bool, ifRevision uint64) error {
	it, ok := s.live(key)
	switch {
	case create && ok:
		return valkeyrie.ErrKeyExists
	case ifRevision != 0 && !ok:
		return valkeyrie.ErrKeyNotFound
	case ifRevision != 0 && it.revision != ifRevision:
		return valkeyrie.ErrKeyModified
	}
	return nil
}

func (d *driver) Get(_ context.Context, key string, opts valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	it, ok := d.s.live(key)
	if !ok {
		return nil, valkeyrie.ErrKeyNotFound
	}
	return it.pair(key, opts.KeysOnly), nil
}

// pair returns what belongs to the caller.
func (it item) pair(key string, keysOnly bool) *valkeyrie.KVPair {
	p := &valkeyrie.KVPair{Key: key, LastIndex: it.revision}
	if !keysOnly {
		p.Value = append([]byte{}, it.value...) // not nil, also when it is empty
	}
	return p
}

// Walk copies what it yields: a real server is read in pages instead.
func (d *driver) Walk(_ context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		pairs, _, _ := d.snapshot(store.WatchRequest{Key: dir, Tree: true, KeysOnly: opts.KeysOnly})
		for _, p := range pairs {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// snapshot returns a key, or all that begin with it, at one moment, what tells of
// the next change, and when the first of them expires.
func (d *driver) snapshot(r store.WatchRequest) (pairs []*valkeyrie.KVPair, changed <-chan struct{}, expires time.Time) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	add := func(key string) {
		it, ok := d.s.live(key)
		if !ok {
			return
		}
		pairs = append(pairs, it.pair(key, r.KeysOnly))
		if !it.expires.IsZero() && (expires.IsZero() || it.expires.Before(expires)) {
			expires = it.expires
		}
	}
	if !r.Tree {
		add(r.Key)
		return pairs, d.s.changed, expires
	}
	for key := range d.s.items { // in no order, which nobody asks for
		if strings.HasPrefix(key, r.Key) {
			add(key)
		}
	}
	return pairs, d.s.changed, expires
}

func (d *driver) Write(_ context.Context, w store.Write) (store.Written, error) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if err := d.s.check(w.Key, w.Create, w.IfRevision); err != nil {
		return store.Written{}, err
	}
	return store.Written{Revision: d.s.put(w.Key, w.Value, w.TTL, "")}, nil
}

func (d *driver) Delete(_ context.Context, key string, ifRevision uint64) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if err := d.s.check(key, false, ifRevision); err != nil {
		return err
	}
	if _, ok := d.s.live(key); !ok {
		return valkeyrie.ErrKeyNotFound
	}
	delete(d.s.items, key)
	d.s.notify()
	return nil
}

func (d *driver) DeleteTree(_ context.Context, dir string) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	found := false
	for key := range d.s.items {
		if strings.HasPrefix(key, dir) {
			_, ok := d.s.live(key)
			found = found || ok
			delete(d.s.items, key)
		}
	}
	if !found {
		return valkeyrie.ErrKeyNotFound
	}
	d.s.notify()
	return nil
}

// Renew starts the TTL anew, which is no write.
func (d *driver) Renew(_ context.Context, key string, revision uint64, ttl time.Duration) (store.Written, error) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if err := d.s.check(key, false, revision); err != nil {
		return store.Written{}, err
	}
	it := d.s.items[key]
	it.expires = time.Now().Add(ttl)
	d.s.items[key] = it
	d.s.notify() // watches wait for the end of the TTL
	return store.Written{Revision: revision}, nil
}

// Watch reports everything again at each change: the front sends on what is
// different. That is right, and slow in large directories.
func (d *driver) Watch(ctx context.Context, r store.WatchRequest, sink store.Sink) error {
	for {
		pairs, changed, expires := d.snapshot(r)
		sink.Begin()
		for _, p := range pairs {
			sink.Put(p)
		}
		sink.Synced()
		var expired <-chan time.Time // never, if nothing expires
		if !expires.IsZero() {
			expired = time.After(time.Until(expires))
		}
		select {
		case <-changed:
		case <-expired:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TryLock writes the lock's key if it is free, or has what an earlier attempt of
// the same Locker left, whose answer was lost.
func (d *driver) TryLock(_ context.Context, r store.LockRequest) (store.Hold, error) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if it, ok := d.s.live(r.Key); ok && it.owner != r.Owner {
		return nil, valkeyrie.ErrLockHeld
	}
	return &hold{d: d, key: r.Key, ttl: r.TTL, revision: d.s.put(r.Key, r.Value, r.TTL, r.Owner)}, nil
}

// hold implements store.Hold. The front renews it in time, and tells the holder
// when it is lost.
type hold struct {
	d        *driver
	key      string
	ttl      time.Duration
	revision uint64
}

func (h *hold) Token() uint64      { return h.revision } // grows with each write of any key
func (h *hold) Revision() uint64   { return h.revision }
func (h *hold) TTL() time.Duration { return 0 } // as asked for

func (h *hold) Renew(ctx context.Context) error {
	if _, err := h.d.Renew(ctx, h.key, h.revision, h.ttl); err != nil {
		return valkeyrie.ErrLockNotHeld // gone, or somebody else's
	}
	return nil
}

func (h *hold) Release(ctx context.Context) error {
	if err := h.d.Delete(ctx, h.key, h.revision); err != nil {
		return valkeyrie.ErrLockNotHeld
	}
	return nil
}
