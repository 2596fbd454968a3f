package etcdv2

import (
	"context"
	"time"

	client "go.etcd.io/etcd/client/v2"

	"github.com/kvtools/valkeyrie/store"
)

const (
	// spare is how much longer than its TTL etcd keeps a node: members compute
	// and compare expiry times by their own clocks, which may differ that much.
	spare = time.Second

	// maxTTL is what a TTL counts as at most, 190 years: etcd's expiry times end
	// in 2262.
	maxTTL = 6e9 * time.Second
)

// backstop is the TTL that etcd is asked for, in whole seconds, as the backstop
// for a process that died; 0 for none.
func backstop(ttl time.Duration) time.Duration {
	if ttl == 0 {
		return 0
	}
	return store.RoundUp(min(ttl, maxTTL), time.Second) + spare
}

// Renew implements store.Driver. It looks before it renews, so that a renewal
// whose answer was lost does no harm.
func (d *driver) Renew(ctx context.Context, key string, revision uint64, ttl time.Duration) (store.Written, error) {
	_, err := d.refresh(ctx, key, revision, place{}, ttl)
	return store.Written{Revision: revision}, err
}

// refresh starts the TTL of a key anew if it has a revision that is stored with
// its value, and returns where it is then. etcd tells no watch of it.
func (d *driver) refresh(ctx context.Context, key string, revision uint64, known place, ttl time.Duration) (place, error) {
	return d.ifOwn(ctx, key, revision, known, func(at place) (uint64, error) {
		return d.set(ctx, at.path, "", backstop(ttl), client.SetOptions{PrevIndex: at.index, Refresh: true})
	})
}
