package zookeeper

import (
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
	return (session + step - 1) / step * step
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
func (h *hold) try(o *op) error {
	conn, err := h.ready(o.ctx)
	if err != nil {
		return err
	}
	if err := o.sync(conn); err != nil {
		return err
	}
	line, err := h.names(conn)
	if err != nil {
		return err
	}
	if len(line) > 0 {
		return valkeyrie.ErrLockHeld
	}
	free, err := h.look(conn)
	switch {
	case err != nil:
		return err
	case !free:
		return valkeyrie.ErrLockHeld
	}
	if err := o.writing(); err != nil {
		return err
	}
	if err := h.enter(conn); err != nil {
		return err
	}
	before, err := h.before(conn)
	switch {
	case err != nil:
		return err
	case before != "":
		return valkeyrie.ErrLockHeld
	}
	return h.take(o.ctx, conn)
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
	conn, err := h.ready(ctx)
	if err != nil {
		return err
	}
	if err := h.enter(conn); err != nil {
		return err
	}
	for {
		err := h.step(ctx, conn)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				h.giveBack()
			}
			return context.Cause(ctx)
		case err == nil, !disconnected(err) && !errors.Is(err, valkeyrie.ErrLockHeld):
			return err
		}
		if conn, _, err = h.c.ready(ctx, true); err != nil {
			return err
		}
	}
}

// step waits until this one is the first in line and the key is free, and takes
// the lock. ErrLockHeld: what it waited for has changed, look again.
func (h *hold) step(ctx context.Context, conn *zk.Conn) error {
	before, err := h.before(conn)
	if err != nil {
		return err
	}
	if before != "" {
		if err := h.c.await(ctx, child(lineOf(h.path), before), func(reading) bool { return false }); err != nil {
			return err
		}
		return valkeyrie.ErrLockHeld
	}
	err = h.take(ctx, conn)
	if errors.Is(err, valkeyrie.ErrLockHeld) { // by data that somebody has put there
		if err := h.c.await(ctx, h.path, isNull); err != nil {
			return err
		}
	}
	return err
}

// hold is a lock that is held, or wanted.
type hold struct {
	d       *driver
	c       *client
	path    string // of the key
	owner   string
	attempt string // what the name of its node begins with
	value   []byte

	own    string  // the path of its node in line, "" before it is known
	unsure bool    // it may be in line although own is not known
	record *record // for the case that this process dies
	stat   *zk.Stat
	length time.Duration // of the session

	confirmed time.Time // when it was taken
}

func newHold(d *driver, c *client, r store.LockRequest) *hold {
	return &hold{d: d, c: c, path: pathOf(r.Key), owner: r.Owner + ".", value: append([]byte{}, r.Value...),
		attempt: r.Owner + "." + rand.Text()[:8] + "-"}
}

// ready returns the session of the lock. The first time main has to be connected,
// too, which looks for what has expired: the key may be of a process that died.
func (h *hold) ready(ctx context.Context) (*zk.Conn, error) {
	if h.d.main.gate.Load().conn == nil {
		if err := h.c.start(); err != nil { // at the same time
			return nil, err
		}
		if _, _, err := h.d.main.ready(ctx, false); err != nil {
			return nil, err
		}
	}
	conn, _, err := h.c.ready(ctx, false)
	return conn, err
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
	_, err := run(ctx, h.c, func(o *op) (struct{}, error) {
		conn, id, err := h.c.ready(ctx, true)
		if err != nil {
			return struct{}{}, err
		}
		if err := o.sync(conn); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, h.check(conn, id)
	}, nil)
	return err
}

// check is nil when the visible key and the place in line are those of the hold.
func (h *hold) check(conn *zk.Conn, id int64) error {
	for _, path := range []string{h.own, h.path} { // no other node will have the name of the own one
		there, stat, err := conn.Exists(path)
		switch {
		case err != nil:
			return readError(err)
		case !there, path == h.path && stat.Mzxid != h.stat.Mzxid:
			return valkeyrie.ErrLockNotHeld
		}
	}
	return same(conn, id)
}

// Release implements store.Hold.
func (h *hold) Release(ctx context.Context) error {
	_, err := run(ctx, h.c, func(o *op) (struct{}, error) {
		conn, _, err := h.c.ready(ctx, true)
		if err != nil {
			h.leave()
			return struct{}{}, err
		}
		if err := o.writing(); err != nil {
			h.leave()
			return struct{}{}, err
		}
		err = h.release(conn)
		if !errors.Is(err, valkeyrie.ErrLockNotHeld) && err != nil {
			h.leave()
		}
		return struct{}{}, err
	}, nil)
	return err
}
