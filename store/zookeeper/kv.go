package zookeeper

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// A server takes the requests of one connection one after the other. Long walks,
// and calls of which there are many at the same time, are spread over some more,
// which are opened for the first of them.
const (
	moreClients = 3
	crowd       = 8 // calls
)

// pick returns the client for a call; d.busy counts it already. The others are
// used only while main is connected, which looks first for what has expired.
func (d *driver) pick() *client {
	if d.busy.Load() <= crowd || !d.main.gate.Load().open {
		return d.main
	}
	i := rand.IntN(moreClients + 1)
	if i == moreClients {
		return d.main
	}
	if d.more[i].gate.Load().open {
		return d.more[i]
	}
	_ = d.more[i].start() // closed otherwise
	return d.main
}

// call runs one of many short calls, when there is a session for it.
func call[T any](ctx context.Context, d *driver, f func(o *op) (T, error), late func(T)) (T, error) {
	d.busy.Add(1)
	defer d.busy.Add(-1)
	return run(ctx, d.pick(), func(o *op) (value T, err error) {
		if err := o.ready(); err != nil {
			return value, err
		}
		return f(o)
	}, late)
}

// Get implements store.Driver.
func (d *driver) Get(ctx context.Context, key string, opts valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	return call(ctx, d, func(o *op) (*valkeyrie.KVPair, error) {
		if !opts.AllowStale {
			if err := o.sync(); err != nil {
				return nil, err
			}
		}
		p, err := read(o.conn, pathOf(key), opts.KeysOnly)
		if err == nil && !opts.AllowStale {
			err = o.same()
		}
		if err != nil {
			return nil, err
		}
		p.Key = key
		return p, nil
	}, nil)
}

// read reads the pair of a node, without its key. ErrKeyNotFound when it is none.
// It reads the data also where only the key is asked for: nothing else tells
// whether they are null, and ZooKeeper's exists asks for no right.
func read(conn *zk.Conn, path string, keysOnly bool) (*valkeyrie.KVPair, error) {
	data, stat, err := conn.Get(path)
	switch {
	case errors.Is(err, zk.ErrNoNode), err == nil && data == nil:
		return nil, valkeyrie.ErrKeyNotFound
	case err != nil:
		return nil, readError(err)
	}
	p := &valkeyrie.KVPair{LastIndex: uint64(stat.Mzxid)}
	if !keysOnly {
		p.Value = data
	}
	return p, nil
}

// Write implements store.Driver.
func (d *driver) Write(ctx context.Context, w store.Write) (store.Written, error) {
	value := append([]byte{}, w.Value...) // not nil, and the caller's may be reused when he has gone
	return call(ctx, d, func(o *op) (_ store.Written, err error) {
		e := o.edit(pathOf(w.Key), value)
		if w.TTL > 0 {
			if e.with, err = d.expiry.record(ctx, note{Key: e.path, TTL: w.TTL}); err != nil {
				return store.Written{}, err
			}
		}
		switch {
		case w.Create:
			err = e.create()
		case w.IfRevision != 0:
			err = e.swap(int64(w.IfRevision))
		default:
			err = e.put()
		}
		d.expiry.wrote(e, err)
		if err != nil {
			return store.Written{}, err
		}
		return store.Written{Revision: uint64(e.stat.Mzxid), FrontExpires: w.TTL > 0}, nil
	}, func(written store.Written) {
		if written.FrontExpires { // the front will not
			d.expiry.abandon(pathOf(w.Key), int64(written.Revision))
		}
	})
}

// Delete implements store.Driver.
func (d *driver) Delete(ctx context.Context, key string, revision uint64) error {
	_, err := call(ctx, d, func(o *op) (struct{}, error) {
		e := o.edit(pathOf(key), nil)
		err := e.swap(int64(revision))
		d.expiry.wrote(e, err)
		if isOneOf(err, valkeyrie.ErrKeyNotFound, valkeyrie.ErrKeyModified) {
			d.expiry.over(o.conn, e.path, int64(revision))
		}
		if err == nil {
			d.sweeper.later(e.path, e.stat.Mzxid)
		}
		return struct{}{}, err
	}, nil)
	return err
}
