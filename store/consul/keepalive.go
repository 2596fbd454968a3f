package consul

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// keptAlive is a write with a session for itself, which Renew renews.
type keptAlive struct {
	revision uint64
	session  string        // empty: it has none
	ttl      time.Duration // the session's
}

// keptAlives are the last of each key.
type keptAlives struct {
	mu    sync.Mutex
	byKey map[string]keptAlive
}

// replace notes a write and returns the one that is over by it, which is itself
// when it was overwritten already: indexes tell which of two was first.
func (a *keptAlives) replace(key string, by keptAlive) (over keptAlive) {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := a.byKey[key]
	if last.revision > by.revision {
		return by
	}
	if by.session == "" {
		delete(a.byKey, key)
		return last
	}
	if a.byKey == nil {
		a.byKey = make(map[string]keptAlive)
	}
	a.byKey[key] = by
	return last
}

// find returns a write of a key.
func (a *keptAlives) find(key string, revision uint64) (keptAlive, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := a.byKey[key]
	return k, k.revision == revision
}

// kept notes a write and ends the session of the one that is over by it.
func (d *driver) kept(key string, k keptAlive) {
	over := d.alive.replace(key, k)
	if over.session == "" {
		return
	}
	d.endLater(over.ttl, func(ctx context.Context) error {
		return d.endSession(ctx, key, over.session, over.revision)
	})
}

// writeKeptAlive writes a key with a session for itself.
func (d *driver) writeKeptAlive(ctx context.Context, w store.Write) (uint64, error) {
	k := keptAlive{ttl: d.sessionTTL(w.TTL)}
	var err error
	if k.session, err = d.createSession(ctx, "KeepAlive", k.ttl); err != nil {
		return 0, err
	}
	k.revision, err = retryRefused(ctx, func() (uint64, error) { return d.put(ctx, w, k.session) })
	switch {
	case err == nil:
		d.kept(w.Key, k)
	case !errors.Is(err, valkeyrie.ErrAmbiguous): // it may be there: for its TTL, then
		d.endLater(k.ttl, func(ctx context.Context) error { return d.destroySession(ctx, k.session) })
	}
	return k.revision, err
}

// Renew implements store.Driver.
func (d *driver) Renew(ctx context.Context, key string, revision uint64, _ time.Duration) (store.Written, error) {
	k, ok := d.alive.find(key, revision)
	if !ok {
		return store.Written{}, valkeyrie.ErrKeyModified
	}
	err := d.renewSession(ctx, k.session)
	if err == nil {
		// After that: if the key is there now, it stays for its TTL.
		err = d.at(ctx, key, revision)
	}
	if errors.Is(err, valkeyrie.ErrKeyNotFound) || errors.Is(err, valkeyrie.ErrKeyModified) {
		d.kept(key, keptAlive{revision: revision})
	}
	return store.Written{Revision: revision}, err
}

// at is nil when a key is at a revision.
func (d *driver) at(ctx context.Context, key string, revision uint64) error {
	kv, err := d.get(ctx, key, false)
	switch {
	case err != nil:
		return err
	case kv.ModifyIndex != revision:
		return valkeyrie.ErrKeyModified
	}
	return nil
}
