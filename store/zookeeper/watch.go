package zookeeper

import (
	"context"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// Watch implements store.Driver. When the connection breaks it waits for the
// next one and begins another snapshot: only a comparison shows what changed
// meanwhile, as a session that ended has lost its watches.
func (d *driver) Watch(ctx context.Context, r store.WatchRequest, sink store.Sink) error {
	for {
		g, err := d.main.ready(ctx, true)
		if err != nil {
			return err
		}
		err = do(ctx, d.main, func(*op) error { return d.main.sync(g.conn) })
		if err == nil {
			err = d.follow(ctx, g.id, r, sink)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case d.ctx.Err() != nil:
			return valkeyrie.ErrClosed
		case !disconnected(err):
			return readError(err)
		}
	}
}

// follow reports a snapshot and what changes, until the watch breaks.
func (d *driver) follow(ctx context.Context, id int64, r store.WatchRequest, sink store.Sink) error {
	v := &view{ending: newEnding(), hub: d.main.hub, sink: sink, keysOnly: r.KeysOnly}
	defer v.stop()
	sink.Begin()
	v.begin(r)
	return d.main.rest(ctx, id, v.ending)
}

// await waits until a node is gone, or its data are as over says.
func (c *client) await(ctx context.Context, id int64, path string, over func(r reading) bool) error {
	w := &waiter{ending: newEnding(), over: over}
	watched := watchable{path: path}
	c.hub.join(watched, w, false)
	defer c.hub.leave(watched, w)
	return c.rest(ctx, id, w.ending)
}

// rest waits for the end of what has begun to follow on the session of that id.
func (c *client) rest(ctx context.Context, id int64, end ending) error {
	// A connection that broke before there was a follower told nobody.
	if g := c.gate.Load(); !g.open || g.id != id {
		return errSessionLost
	}
	select {
	case err := <-end:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.d.ctx.Done():
		return valkeyrie.ErrClosed
	}
}

// ending is why something ends: the first reason counts. Its capacity is 1.
type ending chan error

func newEnding() ending { return make(ending, 1) }

func (e ending) broken(err error) {
	select {
	case e <- err:
	default:
	}
}

// waiter is the follower of an await.
type waiter struct {
	ending
	over func(r reading) bool
}

func (w *waiter) follow(_ watchable, r reading) {
	if !r.exists || w.over(r) {
		w.broken(nil)
	}
}

// isNull tells whether a node has no data, so that it is no key.
func isNull(r reading) bool { return r.data == nil }
