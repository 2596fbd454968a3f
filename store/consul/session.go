package consul

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

const (
	// maxSessionTTL is the longest that Consul takes.
	maxSessionTTL = 24 * time.Hour

	// lockDelay is how long after the end of a session its keys belong to no
	// other: the shortest that can be sent. It is meant for holders who do not
	// see that they have lost a lock; here these have a deadline of their own.
	lockDelay = time.Millisecond

	// lifeTimes is how many times its TTL a session lasts at most after it was
	// renewed (structs.SessionTTLMultiplier).
	lifeTimes = 2
)

// errLockRefused: a key could not be given to a session, because that has ended
// or because of the lock-delay of another one that had the key.
var errLockRefused = errors.New("the key cannot belong to the session")

// retryRefused calls f, which gives a key to a session, again while it is refused,
// for as long as a lock-delay of ours may be the reason; then it returns
// errLockRefused, as that of another tool lasts 15 s by default.
func retryRefused[T any](ctx context.Context, f func() (T, error)) (T, error) {
	for pause := lockDelay; ; pause *= 2 {
		v, err := f()
		if !errors.Is(err, errLockRefused) || pause > 16*lockDelay {
			return v, err
		}
		if err := store.Sleep(ctx, pause); err != nil {
			return v, err
		}
	}
}

// sessionTTL is the TTL of a session that lasts at least as long, in whole seconds.
func (d *driver) sessionTTL(least time.Duration) time.Duration {
	return min(max(store.RoundUp(least, time.Second), d.opts.MinSessionTTL), maxSessionTTL)
}

// createSession makes a session that takes its keys along when it ends. It
// depends on no health check: only its TTL or its node's leaving ends it.
func (d *driver) createSession(ctx context.Context, name string, ttl time.Duration) (string, error) {
	id, _, err := d.client.Session().CreateNoChecks(&api.SessionEntry{
		Name:      "valkeyrie " + name,
		Node:      d.opts.SessionNode,
		TTL:       fmt.Sprintf("%ds", ttl/time.Second),
		Behavior:  api.SessionBehaviorDelete,
		LockDelay: lockDelay,
	}, new(api.WriteOptions).WithContext(ctx))
	if err != nil {
		return "", mapError(ctx, err, false) // a session without keys changes nothing
	}
	return id, nil
}

// renewSession starts the TTL of a session anew. ErrKeyNotFound: it has ended.
func (d *driver) renewSession(ctx context.Context, id string) error {
	e, _, err := d.client.Session().Renew(id, new(api.WriteOptions).WithContext(ctx))
	switch {
	case err != nil:
		return mapError(ctx, err, false)
	case e == nil:
		return fmt.Errorf("%w: session %s has ended", valkeyrie.ErrKeyNotFound, id)
	}
	return nil
}

// sessionEnded tells whether a session is gone.
func (d *driver) sessionEnded(ctx context.Context, id string) (bool, error) {
	e, _, err := d.client.Session().Info(id, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	return e == nil, mapError(ctx, err, false)
}

// destroySession ends a session, and its keys. That it has ended is no error.
func (d *driver) destroySession(ctx context.Context, id string) error {
	_, err := d.client.Session().Destroy(id, new(api.WriteOptions).WithContext(ctx))
	return mapError(ctx, err, false)
}

// endSession ends the session of a key that is not at the given revision any more.
// What somebody else wrote to the key, with a tool that leaves the session on it,
// is kept.
func (d *driver) endSession(ctx context.Context, key, id string, revision uint64) error {
	kv, err := d.get(ctx, key, false)
	switch {
	case errors.Is(err, valkeyrie.ErrKeyNotFound):
	case err != nil:
		return err
	case kv.Session == id && kv.ModifyIndex != revision:
		_, err := d.txn(ctx, check(api.KVCheckIndex, key, kv.ModifyIndex), check(api.KVDelete, key, 0),
			op{Verb: api.KVSet, Key: key, Value: kv.Value, Flags: kv.Flags})
		if err != nil {
			return err
		}
	}
	return d.destroySession(ctx, id)
}

// endLater ends a session in the background: end is tried until it succeeds, or
// the session has ended by itself.
func (d *driver) endLater(ttl time.Duration, end func(ctx context.Context) error) {
	d.running.Go(func() {
		ctx, cancel := context.WithTimeout(d.ctx, lifeTimes*ttl)
		defer cancel()
		for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
			attempt, cancel := context.WithTimeout(ctx, min(d.timeout, 2*time.Second))
			err := end(attempt)
			cancel()
			if err == nil || errors.Is(err, valkeyrie.ErrUnauthorized) || store.Sleep(ctx, pause) != nil {
				return
			}
		}
	})
}
