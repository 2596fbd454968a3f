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
		conn, id, err := d.main.ready(ctx, true)
		if err != nil {
			return err
		}
		_, err = run(ctx, d.main, func(*op) (struct{}, error) { return struct{}{}, d.main.sync(conn) }, nil)
		if err == nil {
			err = d.follow(ctx, id, r, sink)
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
	v := &view{hub: d.main.hub, sink: sink, keysOnly: r.KeysOnly, end: make(chan error, 1)}
	defer v.stop()
	sink.Begin()
	v.begin(r)
	// A connection that broke before the view had followers told nobody.
	if g := d.main.gate.Load(); !g.open || g.id != id {
		return errSessionLost
	}
	select {
	case err := <-v.end:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-d.ctx.Done():
		return valkeyrie.ErrClosed
	}
}

// await waits until a node's data are as they should be: gone says so.
func (c *client) await(ctx context.Context, path string, gone func(r reading) bool) error {
	w := &waiter{gone: gone, end: make(chan error, 1)}
	watched := watchable{path: path}
	c.hub.join(watched, w, false)
	defer c.hub.leave(watched, w)
	if !c.gate.Load().open { // it may have broken before there was a follower
		return errSessionLost
	}
	select {
	case err := <-w.end:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.d.ctx.Done():
		return valkeyrie.ErrClosed
	}
}

// waiter is the follower of an await.
type waiter struct {
	gone func(r reading) bool
	end  chan error // capacity 1
}

func (w *waiter) follow(_ watchable, r reading) {
	if !r.exists || w.gone(r) {
		w.broken(nil)
	}
}

func (w *waiter) broken(err error) {
	select {
	case w.end <- err:
	default:
	}
}

// isNull tells whether a node has no data, so that it is no key.
func isNull(r reading) bool { return r.data == nil }
