package etcdv2

import (
	"context"
	"errors"
	"time"

	client "go.etcd.io/etcd/client/v2"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// A lock is its key, with a TTL: who creates the key has it. The value is stored
// with a revision of this acquisition, by which the holder knows his key again.

// TryLock implements store.Driver.
func (d *driver) TryLock(ctx context.Context, r store.LockRequest) (store.Hold, error) {
	h := &hold{d: d, key: r.Key, ttl: r.TTL, revision: newRevision()}
	stored := content{value: r.Value, revision: h.revision, owner: r.Owner}.encode()
	for {
		at, err := d.put(ctx, store.Write{Key: r.Key, TTL: r.TTL, Create: true}, stored)
		if err == nil {
			h.at, h.token = at, at.index
			return h, nil
		}
		var held *answer
		if !errors.As(err, &held) || held.node == nil {
			return nil, err
		}
		if decode(held.node.Value).owner != r.Owner {
			return nil, valkeyrie.ErrLockHeld
		}
		// Left over from an acquisition whose answer was lost.
		err = d.remove(ctx, held.node.Key, client.DeleteOptions{PrevIndex: held.node.ModifiedIndex})
		if err != nil && !errors.Is(err, valkeyrie.ErrKeyModified) && !errors.Is(err, valkeyrie.ErrKeyNotFound) {
			return nil, err
		}
	}
}

// hold is a lock that is held.
type hold struct {
	d        *driver
	key      string
	ttl      time.Duration
	revision uint64 // stored with the value
	token    uint64 // etcd's index when the key was created
	at       place  // after the last renewal that was answered
}

// Token implements store.Hold. etcd's index grows with every write.
func (h *hold) Token() uint64 { return h.token }

// Revision implements store.Hold.
func (h *hold) Revision() uint64 { return h.revision }

// TTL implements store.Hold: etcd keeps the key for longer than was asked.
func (h *hold) TTL() time.Duration { return 0 }

// Renew implements store.Hold.
func (h *hold) Renew(ctx context.Context) error {
	at, err := h.d.refresh(ctx, h.key, h.revision, h.at, h.ttl)
	if err == nil {
		h.at = at
	}
	return notHeld(err)
}

// Release implements store.Hold.
func (h *hold) Release(ctx context.Context) error {
	return notHeld(h.d.removeIfOwn(ctx, h.key, h.revision, h.at))
}

// notHeld maps the error of a key that is not the holder's any more.
func notHeld(err error) error {
	if errors.Is(err, valkeyrie.ErrKeyNotFound) || errors.Is(err, valkeyrie.ErrKeyModified) {
		return store.Wrap(valkeyrie.ErrLockNotHeld, err)
	}
	return err
}
