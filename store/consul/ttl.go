package consul

import (
	"context"
	"errors"
	"time"

	"github.com/kvtools/valkeyrie/store"
)

// The front deletes a key when its TTL is over, at the revision that was written.
// A session that lasts as long is there for the case that this process dies.

// writeShared writes a key that belongs to a session which others may share.
func (d *driver) writeShared(ctx context.Context, w store.Write) (uint64, error) {
	if w.TTL > maxSessionTTL-store.LeaseWindow(w.TTL) {
		// No session lasts as long, and one that ends earlier would take along
		// what its writer's death must not shorten.
		return d.put(ctx, w, "")
	}
	index, err := retryRefused(ctx, func() (uint64, error) {
		session, err := d.shared.Get(ctx, w.TTL)
		if err != nil {
			return 0, err
		}
		index, err := d.put(ctx, w, session.ID)
		if errors.Is(err, errLockRefused) { // nothing was written
			ended, look := d.sessionEnded(ctx, session.ID)
			if look != nil {
				return 0, look
			}
			if ended { // by somebody else
				d.shared.Forget(session)
			}
		}
		return index, err
	})
	if errors.Is(err, errLockRefused) {
		return d.put(ctx, w, "") // this process times the key anyway
	}
	return index, err
}

// createShared makes a session that writers share.
func (d *driver) createShared(ttl time.Duration) (string, time.Duration, error) {
	id, err := d.createSession(d.ctx, "TTL", ttl)
	return id, ttl, err
}
