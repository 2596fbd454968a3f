package zookeeper

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// A lock is a line of ephemeral nodes, one for each who wants it, in the order in
// which the server numbered them. Who is first writes the visible key, which has
// children and so is no ephemeral node itself, and in the same request his name
// into the line's own node: while both have the same mzxid, the key is that of a
// hold, and of one that is over if its holder's node is not in line any more. Each
// waits for the one before him to go, so that a release wakes one waiter.

// errPlaceLost: the waiter's node is gone from the line.
var errPlaceLost = errors.New("lost the place in the line of a lock")

// sessionOf is how long the session of a lock is: a hold is proven for two thirds
// of it, see hold.TTL. It is rounded up, so that locks of like TTLs share a session.
func sessionOf(ttl time.Duration) time.Duration {
	session, step := ttl+ttl/2, 100*time.Millisecond
	for _, longer := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
		if session > 20*longer {
			step = longer
		}
	}
	return store.RoundUp(session, step)
}

// locker returns the client for locks of a TTL.
func (d *driver) locker(ttl time.Duration) (*client, error) {
	session := sessionOf(min(ttl, 24*time.Hour))
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return nil, valkeyrie.ErrClosed
	}
	c := d.lockers[session]
	if c == nil {
		c = newClient(d, session)
		d.lockers[session] = c
	}
	return c, nil
}

// TryLock implements store.Driver. It gets in line only when it has seen nobody
// there; if somebody was quicker, he takes the lock.
func (d *driver) TryLock(ctx context.Context, r store.LockRequest) (store.Hold, error) {
	c, err := d.locker(r.TTL)
	if err != nil {
		return nil, err
	}
	r.Value = append([]byte{}, r.Value...)
	h, err := run(ctx, c, func(o *op) (*hold, error) {
		h := newHold(d, c, r)
		err := h.try(o)
		if err != nil {
			h.leave()
		}
		return h, err
	}, func(h *hold) { h.giveBack() })
	if err != nil {
		return nil, err // not a nil *hold in an interface
	}
	return h, nil
}

// try takes the lock if it is free.
func (h *hold) try(o *op) (err error) {
	if o.gate, err = h.ready(o.ctx); err != nil {
		return err
	}
	if err := o.sync(); err != nil {
		return err
	}
	line, err := h.names(o.conn)
	switch {
	case err != nil:
		return err
	case len(line) > 0:
		return valkeyrie.ErrLockHeld
	}
	if err := h.look(o.conn); err != nil {
		return err
	}
	if err := o.writing(); err != nil {
		return err
	}
	if err := h.enter(o.conn); err != nil {
		return err
	}
	before, err := h.survey(o.conn)
	switch {
	case err != nil:
		return err
	case before != "":
		return valkeyrie.ErrLockHeld
	}
	return h.take(o.ctx, o.gate)
}

// Acquire implements store.Acquirer. Requests under way when ctx ends are waited
// for: without their answers nobody knows what has to be cleared away.
func (d *driver) Acquire(ctx context.Context, r store.LockRequest) (store.Hold, error) {
	c, err := d.locker(r.TTL)
	if err != nil {
		return nil, err
	}
	h := newHold(d, c, r)
	if err := h.acquire(ctx); err != nil {
		h.leave()
		return nil, err
	}
	return h, nil
}

// acquire stands in line until it is the first, and takes the lock. It keeps its
// place over connections that break, while the session lasts.
func (h *hold) acquire(ctx context.Context) error {
	g, err := h.ready(ctx)
	if err != nil {
		return err
	}
	if err := h.enter(g.conn); err != nil {
		return err
	}
	for {
		err := h.step(ctx, g)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				h.giveBack()
			}
			return context.Cause(ctx)
		case err == nil, !disconnected(err) && !errors.Is(err, valkeyrie.ErrLockHeld):
			return err
		}
		if g, err = h.c.ready(ctx, true); err != nil {
			return err
		}
	}
}

// step takes the lock if this one is the first in line and the key is free.
// ErrLockHeld: it was not, and what it has waited for has changed; look again.
func (h *hold) step(ctx context.Context, g *gate) error {
	before, err := h.survey(g.conn)
	if err == nil && before == "" {
		err = h.take(ctx, g)
	}
	switch {
	case err == nil && before != "":
		err = h.c.await(ctx, g.id, child(lineOf(h.path), before), func(reading) bool { return false })
	case errors.Is(err, valkeyrie.ErrLockHeld): // by data that somebody has put there
		err = h.c.await(ctx, g.id, h.path, isNull)
	default:
		return err
	}
	return cmp.Or(err, valkeyrie.ErrLockHeld)
}

// hold is a lock that is held, or wanted.
type hold struct {
	d       *driver
	c       *client
	path    string // of the key
	owner   string
	attempt string // what the name of its node begins with
	value   []byte

	entered bool     // it may be in line
	own     string   // the path of its node there
	record  *record  // for the case that this process dies
	stat    *zk.Stat // of the key, as it was read or taken; nil when there is no node

	// When it was taken, and how long the session was then.
	confirmed time.Time
	length    time.Duration
}

func newHold(d *driver, c *client, r store.LockRequest) *hold {
	return &hold{d: d, c: c, path: pathOf(r.Key), owner: r.Owner + ".", value: append([]byte{}, r.Value...),
		attempt: r.Owner + "." + rand.Text()[:8] + "-"}
}

// ready returns the session of the lock. The first time main has to be connected,
// too, which looks for what has expired: the key may be of a process that died.
func (h *hold) ready(ctx context.Context) (*gate, error) {
	if h.d.main.gate.Load().conn == nil {
		if err := h.c.start(); err != nil { // at the same time
			return nil, err
		}
		if _, err := h.d.main.ready(ctx, false); err != nil {
			return nil, err
		}
	}
	return h.c.ready(ctx, false)
}

// Token implements store.Hold: the zxid of the acquisition, which writes the
// visible key.
func (h *hold) Token() uint64 { return uint64(h.stat.Mzxid) }

// Revision implements store.Hold.
func (h *hold) Revision() uint64 { return uint64(h.stat.Mzxid) }

// TTL implements store.Hold. The leader ends a session when it has not heard of
// it for its length, and may hear of a request only with the next report of the
// member that got it, of half a tick later. As ZooKeeper's clients do, who give up
// a connection that is silent for two thirds of the session, this counts a hold
// as lost when that much of the session has passed since the request.
func (h *hold) TTL() time.Duration { return h.length / 3 * 2 }

// Confirmed implements store.Confirmed: taking the lock proves, at the leader, that
// the node in line was there and so the session.
func (h *hold) Confirmed() time.Time { return h.confirmed }

// Renew implements store.Hold. The Sync goes to the leader: a member that has lost
// touch with it cannot confirm a session that has ended meanwhile.
func (h *hold) Renew(ctx context.Context) error {
	return do(ctx, h.c, func(o *op) (err error) {
		if o.gate, err = h.c.ready(ctx, true); err != nil {
			return err
		}
		if err := o.sync(); err != nil {
			return err
		}
		return h.check(o.gate)
	})
}

// check is nil when the visible key and the place in line are those of the hold.
func (h *hold) check(g *gate) error {
	for _, path := range []string{h.own, h.path} { // no other node will have the name of the own one
		there, stat, err := g.conn.Exists(path)
		switch {
		case err != nil:
			return readError(err)
		case !there, path == h.path && stat.Mzxid != h.stat.Mzxid:
			return valkeyrie.ErrLockNotHeld
		}
	}
	return g.same()
}

// Release implements store.Hold.
func (h *hold) Release(ctx context.Context) error {
	return do(ctx, h.c, func(o *op) error {
		g, err := h.c.ready(ctx, true)
		if err == nil {
			err = o.writing()
		}
		if err == nil {
			err = h.release(g.conn)
		}
		return h.released(err)
	})
}
