package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// Renew implements store.Driver: it writes the record, whose mtime is the new
// beginning of the TTL. What is read after that write on the same session is as
// new as it.
func (d *driver) Renew(ctx context.Context, key string, revision uint64, ttl time.Duration) (store.Written, error) {
	path := pathOf(key)
	return run(ctx, d.main, func(o *op) (store.Written, error) {
		r := d.expiry.at(path, int64(revision))
		if r == nil {
			return store.Written{}, valkeyrie.ErrKeyModified // overwritten by this store
		}
		conn, id, err := o.ready()
		if err != nil {
			return store.Written{}, err
		}
		n := r.note
		n.TTL, n.Revision = ttl, int64(revision)
		if err := d.expiry.rewrite(o, conn, r.path, n); err != nil {
			return store.Written{}, err
		}
		p, err := read(conn, path, true)
		switch {
		case err == nil && p.LastIndex == revision:
			err = same(conn, id)
		case err == nil:
			err = valkeyrie.ErrKeyModified
		}
		if isOneOf(err, valkeyrie.ErrKeyModified, valkeyrie.ErrKeyNotFound) {
			d.expiry.over(conn, path, int64(revision))
		}
		return store.Written{Revision: revision}, err
	}, nil)
}

// rewrite writes a record, which may have gone with its directory.
func (x *expiry) rewrite(o *op, conn *zk.Conn, path string, n note) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	for {
		_, err = o.set(conn, path, data, -1)
		if !errors.Is(err, zk.ErrNoNode) {
			return writeError(err)
		}
		if err := o.writing(); err != nil {
			return err
		}
		_, err = conn.Create(path, data, zk.FlagPersistent, x.d.acl)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, zk.ErrNoNode):
			if err := x.restore(o.ctx, err); err != nil {
				return err
			}
		case !errors.Is(err, zk.ErrNodeExists):
			return writeError(err)
		}
	}
}
