package dynamodb

import (
	"context"
	"errors"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// A lock is the item of its key: a hold has an owner and a lease, and expires for
// those who read. Whether another may take it is not judged by comparing clocks:
// a waiter takes over when it saw the same hold, not renewed, for a whole lease on
// its own clock, while the holder counts the lease from before it asked for it.
// An item that was a lock is not deleted but expires, so that its token is known
// for as long as clocks may differ; beyond that the token grows with the time.

// maxSkew is how far clocks may differ, at least, before TryLock takes a hold that
// still lasts.
const maxSkew = 10 * time.Second

// TryLock implements store.Driver. It has not waited, so that for a hold whose
// owner is gone it has only the clock to go by: it adds maxSkew or another lease.
func (d *driver) TryLock(ctx context.Context, r store.LockRequest) (store.Hold, error) {
	if err := d.enter(ctx, r.Key); err != nil {
		return nil, err
	}
	found, err := d.get(ctx, r.Key, valkeyrie.ReadOptions{KeysOnly: true})
	if err != nil {
		return nil, err
	}
	if !found.free(r.Owner) {
		return nil, valkeyrie.ErrLockHeld
	}
	return d.take(ctx, r, found)
}

// free tells whether a lock may be taken by that owner.
func (i *item) free(owner string) bool {
	switch {
	case i == nil, i.owner == owner:
		return true
	case i.owner != "":
		return i.expired(time.Now().Add(-max(i.lease, maxSkew)))
	}
	return i.expired(time.Now())
}

// take writes a hold in place of an item, if that is there as it was found.
func (d *driver) take(ctx context.Context, r store.LockRequest, found *item) (store.Hold, error) {
	h := &hold{d: d, key: r.Key, ttl: r.TTL, revision: newRevision()}
	token := found.lastToken()
	_, err := d.put(ctx, func() (item, condition) {
		h.sent = time.Now()
		h.token = max(token+1, uint64(h.sent.UnixMicro()))
		return item{
			key: r.Key, value: r.Value, revision: h.revision, expires: expiry(h.sent, r.TTL),
			token: h.token, owner: r.Owner, lease: r.TTL,
		}, found.unchanged().withToken(token)
	})
	if conditionFailed(err) != nil {
		return nil, valkeyrie.ErrLockHeld // somebody was quicker
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

// unchanged is the condition that an item is as it was read, and not renewed.
func (i *item) unchanged() condition {
	switch {
	case i == nil:
		return condition{expression: "attribute_not_exists(" + attrKey + ")"}
	case i.expires == 0:
		return condition{attrRevision + " = :revision AND attribute_not_exists(" + attrExpires + ")",
			attributes{":revision": number(i.revision)}}
	}
	return condition{attrRevision + " = :revision AND " + attrExpires + " = :expires",
		attributes{":revision": number(i.revision), ":expires": number(i.expires)}}
}

// Acquire implements store.Acquirer: it looks at the lock whenever that may have
// changed, until it gets it.
func (d *driver) Acquire(ctx context.Context, r store.LockRequest) (store.Hold, error) {
	if err := d.enter(ctx, r.Key); err != nil {
		return nil, err
	}
	hints, err := d.subscribe(ctx, store.WatchRequest{Key: r.Key})
	if err != nil {
		return nil, err
	}
	defer hints.close()
	var seen sighting
	for {
		found, err := d.get(ctx, r.Key, valkeyrie.ReadOptions{KeysOnly: true})
		if err != nil {
			return nil, err
		}
		seen.note(found)
		if found.free(r.Owner) || seen.over() {
			// Not cut off when ctx ends, as nobody would know then whether it succeeded.
			own, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout)
			h, err := d.take(own, r, found)
			cancel()
			if !errors.Is(err, valkeyrie.ErrLockHeld) {
				return h, err
			}
			continue
		}
		if err := seen.wait(ctx, hints); err != nil {
			return nil, err
		}
	}
}

// sighting is since when a waiter has seen the item of a lock as it is.
type sighting struct {
	item  item
	since time.Time
}

// note takes in what was read just now.
func (s *sighting) note(found *item) {
	if found == nil {
		*s = sighting{}
	} else if s.since.IsZero() || s.item.revision != found.revision || s.item.expires != found.expires {
		*s = sighting{item: *found, since: time.Now()}
	}
}

// over tells whether the hold was not renewed for its whole lease.
func (s *sighting) over() bool {
	return !s.since.IsZero() && s.item.owner != "" && time.Since(s.since) >= s.item.lease
}

// wait returns when it is time to look again.
func (s *sighting) wait(ctx context.Context, hints *subscription) error {
	again, stop := hints.poll()
	defer stop()
	until := time.Hour
	switch {
	case s.item.owner != "":
		until = s.item.lease - time.Since(s.since)
	case s.item.expires != 0:
		until = min(until, time.Until(time.UnixMilli(s.item.expires)))
	}
	expiry := time.NewTimer(until)
	defer expiry.Stop()
	select {
	case <-again:
	case <-expiry.C:
	case <-hints.ready:
		hints.take()
	case <-hints.ended():
		return hints.err()
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// hold is a lock that is held.
type hold struct {
	d        *driver
	key      string
	ttl      time.Duration
	revision uint64
	token    uint64
	sent     time.Time // the request that acquired it
}

// Token implements store.Hold.
func (h *hold) Token() uint64 { return h.token }

// Revision implements store.Hold.
func (h *hold) Revision() uint64 { return h.revision }

// TTL implements store.Hold.
func (h *hold) TTL() time.Duration { return 0 }

// Confirmed implements store.Confirmed.
func (h *hold) Confirmed() time.Time { return h.sent }

// Renew implements store.Hold.
func (h *hold) Renew(ctx context.Context) error {
	return lost(h.d.extend(ctx, h.key, h.revision, h.ttl))
}

// Release implements store.Hold.
func (h *hold) Release(ctx context.Context) error {
	_, err := h.d.put(ctx, func() (item, condition) {
		own := condition{attrRevision + " = :revision", attributes{":revision": number(h.revision)}}
		return tombstone(h.key, h.token), own.withToken(h.token)
	})
	if conditionFailed(err) != nil {
		return store.Wrap(valkeyrie.ErrLockNotHeld, err)
	}
	return lost(err)
}

// lost maps the error of a write to a hold.
func lost(err error) error {
	if errors.Is(err, valkeyrie.ErrKeyNotFound) || errors.Is(err, valkeyrie.ErrKeyModified) {
		return store.Wrap(valkeyrie.ErrLockNotHeld, err)
	}
	return err
}
