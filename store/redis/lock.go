package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mna/redisc"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// A lock is its key, written with its owner and a revision that is made of the
// token. A second key remembers the token for tokenKept longer than the TTL. A
// token is the server's time in microseconds, or one more than the last one if that
// is greater: it grows as long as the clock was not set back by more than
// tokenKept, also across a failover that lost the second key if the clocks of the
// servers agree better than a failover takes.

// tokenKept is how much longer than a TTL a token is remembered.
const tokenKept = 24 * time.Hour

// TryLock implements store.Driver. It notes the token before anybody has the lock
// by it: should that fail, the lock is free again after the TTL, and for the same
// owner at once.
func (d *driver) TryLock(ctx context.Context, r store.LockRequest) (store.Hold, error) {
	keys := []string{r.Key, tokenKey(r.Key, d.opts.Cluster)}
	token, err := d.run(ctx, lockScript, keys, false, r.Value, r.Owner, milliseconds(r.TTL))
	switch {
	case err != nil:
		return nil, err
	case token == 0:
		return nil, valkeyrie.ErrLockHeld
	}
	if _, err := d.run(ctx, rememberScript, keys, false, token, milliseconds(r.TTL)+milliseconds(tokenKept)); err != nil {
		return nil, err
	}
	return &hold{d: d, key: r.Key, token: uint64(token), ttl: r.TTL}, nil
}

// tokenKey is the second key of a lock: below the lock's key, so that rights to a
// prefix cover it, and in a Cluster in the slot of the lock's key.
func tokenKey(key string, cluster bool) string {
	below := key + "/" + store.Reserved + "/token"
	if !cluster || redisc.Slot(below) == redisc.Slot(key) { // it has a hash tag already
		return below
	}
	if tagged := below + "{" + key + "}"; redisc.Slot(tagged) == redisc.Slot(key) {
		return tagged
	}
	// Braces that are no hash tag are in the way of making one: try names.
	for n := 0; ; n++ {
		if named := fmt.Sprintf("%s-%d", below, n); redisc.Slot(named) == redisc.Slot(key) {
			return named
		}
	}
}

// isReserved tells whether a key is the library's own.
func isReserved[T string | []byte](key T) bool {
	return strings.Contains(string(key), "/"+store.Reserved+"/")
}

// hold is a lock that is held: the key at the revision of its token.
type hold struct {
	d     *driver
	key   string
	token uint64
	ttl   time.Duration
}

// Token implements store.Hold.
func (h *hold) Token() uint64 { return h.token }

// Revision implements store.Hold.
func (h *hold) Revision() uint64 { return lockBit | h.token }

// TTL implements store.Hold: as asked.
func (h *hold) TTL() time.Duration { return 0 }

// Renew implements store.Hold.
func (h *hold) Renew(ctx context.Context) error {
	_, err := h.d.Renew(ctx, h.key, h.Revision(), h.ttl)
	return held(err)
}

// Release implements store.Hold.
func (h *hold) Release(ctx context.Context) error {
	return held(h.d.Delete(ctx, h.key, h.Revision()))
}

// held maps what says that the key is not the hold's any more.
func held(err error) error {
	if errors.Is(err, valkeyrie.ErrKeyNotFound) || errors.Is(err, valkeyrie.ErrKeyModified) {
		return store.Wrap(valkeyrie.ErrLockNotHeld, err)
	}
	return err
}
