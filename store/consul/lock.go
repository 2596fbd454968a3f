package consul

import (
	"context"
	"errors"
	"hash/fnv"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// A lock is its key, which belongs to a session that the hold has for itself. The
// index of the key is the token: indexes of Consul grow, over all keys and over
// deletions, where LockIndex begins again with each new key. The flags of the key
// say who has it.

// TryLock implements store.Driver. It looks first, so that a lock that is held
// costs no session and no entry in Consul's log.
func (d *driver) TryLock(ctx context.Context, r store.LockRequest) (store.Hold, error) {
	free, err := d.free(ctx, r)
	switch {
	case err != nil:
		return nil, err
	case !free:
		return nil, valkeyrie.ErrLockHeld
	}
	a := attempt{d: d, r: r, ttl: d.sessionTTL(r.TTL)}
	defer a.end()
	h, err := retryRefused(ctx, func() (store.Hold, error) { return a.lock(ctx) })
	if errors.Is(err, errLockRefused) {
		err = store.Wrap(valkeyrie.ErrLockHeld, err) // the lock-delay of another tool
	}
	return h, err
}

// longestPause bounds the pause between attempts while a lock-delay lasts, of
// whose end nobody tells.
const longestPause = 200 * time.Millisecond

// Acquire implements store.Acquirer. Unlike the front it need not be told by a
// change of the key that a lock-delay is over, and keeps its session between
// attempts.
func (d *driver) Acquire(ctx context.Context, r store.LockRequest) (store.Hold, error) {
	if _, err := d.free(ctx, r); err != nil {
		return nil, err
	}
	a := attempt{d: d, r: r, ttl: d.sessionTTL(r.TTL)}
	defer a.end()
	pause := lockDelay
	for {
		if err := d.awaitAbsent(ctx, r.Key); err != nil {
			return nil, err
		}
		h, err := a.lock(ctx)
		switch {
		case errors.Is(err, valkeyrie.ErrLockHeld):
			pause = lockDelay
		case errors.Is(err, errLockRefused):
			if err := store.Sleep(ctx, pause); err != nil {
				return nil, err
			}
			pause = min(2*pause, longestPause)
		default:
			return h, err
		}
	}
}

// awaitAbsent waits until a key is not there.
func (d *driver) awaitAbsent(ctx context.Context, key string) error {
	l := listing{prefix: key, one: true, wait: d.opts.WaitTime}
	for {
		there := false
		index, err := d.list(ctx, l, func(*api.KVPair) bool {
			there = true
			return true
		})
		if err != nil {
			return err
		}
		if !there && index != l.index {
			return nil
		}
		l.index = next(l.index, index)
	}
}

// ownerFlags are the flags of a key that an owner has locked.
func ownerFlags(owner string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(owner))
	return h.Sum64()
}

// free tells whether a lock is free. A hold that the request's owner has left over,
// from an attempt whose answer was lost, is ended and does not count.
func (d *driver) free(ctx context.Context, r store.LockRequest) (bool, error) {
	kv, err := d.get(ctx, r.Key, false)
	switch {
	case errors.Is(err, valkeyrie.ErrKeyNotFound):
		return true, nil
	case err != nil:
		return false, err
	case kv.Session == "" || kv.Flags != ownerFlags(r.Owner):
		return false, nil
	}
	return true, d.destroySession(ctx, kv.Session)
}

// attempt is one try to get a lock, or several with the same session.
type attempt struct {
	d       *driver
	r       store.LockRequest
	ttl     time.Duration // of the session
	session string        // empty: none
	made    time.Time
}

// lock takes the lock if the key is absent. ErrLockHeld: it is not.
// errLockRefused: there is a lock-delay on it.
func (a *attempt) lock(ctx context.Context) (store.Hold, error) {
	if a.session != "" && time.Since(a.made) > a.ttl/2 {
		a.end() // nobody renews it
	}
	if a.session == "" {
		a.made = time.Now()
		var err error
		if a.session, err = a.d.createSession(ctx, "lock", a.ttl); err != nil {
			return nil, err
		}
	}
	index, err := a.d.indexOf(ctx, check(api.KVCheckNotExists, a.r.Key, 0),
		op{Verb: api.KVLock, Key: a.r.Key, Value: a.r.Value, Session: a.session, Flags: ownerFlags(a.r.Owner)})
	switch c := asConflict(err); {
	case c != nil && c.failed(0):
		return nil, store.Wrap(valkeyrie.ErrLockHeld, c)
	case c != nil:
		return nil, store.Wrap(errLockRefused, c)
	case err != nil:
		return nil, err
	}
	h := &hold{d: a.d, key: a.r.Key, session: a.session, ttl: a.ttl, revision: index}
	a.session = "" // it is the hold's
	return h, nil
}

// giveUpTime bounds how long a call that failed, perhaps because its context
// ended, waits for its session to end.
const giveUpTime = time.Second

// end ends the session, and takes away the key if an answer was lost that would
// have said that it is ours.
func (a *attempt) end() {
	if a.session == "" {
		return
	}
	d, id := a.d, a.session
	a.session = ""
	end := func(ctx context.Context) error { return d.destroySession(ctx, id) }
	ctx, cancel := context.WithTimeout(d.ctx, giveUpTime)
	defer cancel()
	if end(ctx) != nil {
		d.endLater(a.ttl, end)
	}
}

// hold is a lock that is held.
type hold struct {
	d        *driver
	key      string
	session  string
	ttl      time.Duration // of the session
	revision uint64        // of the key, and the token
}

// Token implements store.Hold.
func (h *hold) Token() uint64 { return h.revision }

// Revision implements store.Hold.
func (h *hold) Revision() uint64 { return h.revision }

// TTL implements store.Hold: the least that the session lasts after a renewal.
func (h *hold) TTL() time.Duration { return h.ttl }

// Renew implements store.Hold. The key is looked at after the session was
// renewed: if it is ours then, it stays so for the TTL unless somebody acts.
func (h *hold) Renew(ctx context.Context) error {
	err := h.d.renewSession(ctx, h.session)
	if err == nil {
		err = h.d.at(ctx, h.key, h.revision)
	}
	return notHeld(err)
}

// Release implements store.Hold. Who waits goes on as soon as the key is gone; the
// session, which has no key then, ends after that.
func (h *hold) Release(ctx context.Context) error {
	err := h.d.Delete(ctx, h.key, h.revision)
	end := func(ctx context.Context) error { return h.d.endSession(ctx, h.key, h.session, h.revision) }
	if err == nil {
		end = func(ctx context.Context) error { return h.d.destroySession(ctx, h.session) }
	}
	if ctx.Err() != nil || end(ctx) != nil {
		h.d.endLater(h.ttl, end)
	}
	return notHeld(err)
}

// notHeld says of a key that is not ours any more that the lock is not held.
func notHeld(err error) error {
	if errors.Is(err, valkeyrie.ErrKeyNotFound) || errors.Is(err, valkeyrie.ErrKeyModified) {
		return store.Wrap(valkeyrie.ErrLockNotHeld, err)
	}
	return err
}
