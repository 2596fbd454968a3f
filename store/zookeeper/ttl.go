package zookeeper

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// The front deletes keys when their TTL is over. For the case that this process
// has died by then each write with a TTL makes a record in the same request, from
// which others know what to delete, and when: see reaper. A node that lives as
// long as a session would be no backstop: it would go with the store that put
// the key, and before the TTL, with each session that ends, and it can have no
// children. Nor are ZooKeeper's own TTL nodes, which most servers do not permit.
//
//	<prefix>/.valkeyrie/ttl/<user>/reaper              ephemeral: who deletes
//	<prefix>/.valkeyrie/ttl/<user>/<owner>/alive       ephemeral: the owner lives
//	<prefix>/.valkeyrie/ttl/<user>/<owner>/<record>    a note
//
// The record's czxid is the revision of the key that it belongs to, and its mtime,
// which is the server's time, that from which the TTL counts.

// expiry is the records of a store.
type expiry struct {
	d     *driver
	dir   string      // of the user's owners
	owner string      // of this store's records
	turn  sync.Mutex  // of who makes it
	ready atomic.Bool // it is there

	mu    sync.Mutex
	known map[string][]*record // by the path of the key

	reaper reaper
}

func (x *expiry) init(d *driver, user string) {
	name := "open" // to everybody
	if user != "" {
		sum := sha256.Sum256([]byte(user))
		name = hex.EncodeToString(sum[:8])
	}
	x.d, x.dir = d, d.prefix+"/"+store.Reserved+"/ttl/"+name
	x.owner = child(x.dir, rand.Text())
	x.known = make(map[string][]*record)
	x.reaper.init(x)
}

// record returns a record that has not been made yet.
func (x *expiry) record(ctx context.Context, n note) (*record, error) {
	if !x.ready.Load() {
		if err := x.settle(ctx); err != nil {
			return nil, err
		}
	}
	return &record{note: n, path: child(x.owner, rand.Text())}, nil
}

// restore is called when a record could not be made.
func (x *expiry) restore(ctx context.Context, err error) error {
	if !errors.Is(err, zk.ErrNoNode) {
		return writeError(err)
	}
	x.ready.Store(false) // somebody has removed the directory
	return x.settle(ctx)
}

// settle makes the directory of this store's records.
func (x *expiry) settle(ctx context.Context) error {
	g, err := x.d.main.ready(ctx, false)
	if err != nil {
		return err
	}
	x.turn.Lock()
	defer x.turn.Unlock()
	if x.ready.Load() {
		return nil
	}
	for made := false; !made; {
		if err := x.makeDir(g.conn, x.owner); err != nil {
			return readError(err)
		}
		err := x.live(g.conn)
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return readError(err)
		}
		made = err == nil // a reaper may have taken it for that of a dead owner
	}
	x.ready.Store(true)
	return nil
}

// makeDir makes a node of the library's own and its parents.
func (x *expiry) makeDir(conn *zk.Conn, path string) error {
	for {
		_, err := conn.Create(path, nil, zk.FlagPersistent, x.aclOf(path))
		switch {
		case err == nil, errors.Is(err, zk.ErrNodeExists):
			return nil
		case !errors.Is(err, zk.ErrNoNode):
			return err
		}
		if err := x.makeDir(conn, parent(path)); err != nil {
			return err
		}
	}
}

// aclOf returns the ACL of a node of the library's own. Those at the root of the
// server that the users share let everybody make his own below them.
func (x *expiry) aclOf(path string) []zk.ACL {
	if x.d.prefix == "" && len(path) < len(x.dir) {
		return append(slices.Clone(x.d.acl), zk.WorldACL(zk.PermRead|zk.PermCreate)...)
	}
	return x.d.acl
}

// live tells others that this store lives.
func (x *expiry) live(conn *zk.Conn) error {
	_, err := conn.Create(child(x.owner, aliveName), nil, zk.FlagEphemeral, x.d.acl)
	if errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return err
}

const (
	aliveName  = "alive"
	reaperName = "reaper"
)

// arrive is called before a new connection is used. What others have left is
// expired then before the first call of this store is answered.
func (x *expiry) arrive(conn *zk.Conn) {
	if x.ready.Load() { // the session may be a new one
		if err := x.live(conn); errors.Is(err, zk.ErrNoNode) {
			x.ready.Store(false)
		}
	}
	x.reaper.round(conn)
}

// leave tells others that they have to care for the records.
func (x *expiry) leave(conn *zk.Conn) {
	if x.ready.Load() {
		_ = conn.Delete(child(x.owner, aliveName), -1) // it goes with the session otherwise
		_ = conn.Delete(x.owner, -1)                   // if there are no records
	}
}

// Renew implements store.Driver: it writes the record, whose mtime is the new
// beginning of the TTL. What is read after that write on the same session is as
// new as it.
func (d *driver) Renew(ctx context.Context, key string, revision uint64, ttl time.Duration) (store.Written, error) {
	path := pathOf(key)
	err := do(ctx, d.main, func(o *op) error {
		r := d.expiry.at(path, int64(revision))
		if r == nil {
			return valkeyrie.ErrKeyModified // overwritten by this store
		}
		if err := o.ready(); err != nil {
			return err
		}
		n := r.note
		n.TTL, n.Revision = ttl, int64(revision)
		if err := d.expiry.rewrite(o, r.path, n); err != nil {
			return err
		}
		p, err := read(o.conn, path, true)
		switch {
		case err == nil && p.LastIndex == revision:
			err = o.same()
		case err == nil:
			err = valkeyrie.ErrKeyModified
		}
		if isOneOf(err, valkeyrie.ErrKeyModified, valkeyrie.ErrKeyNotFound) {
			d.expiry.over(o.conn, path, int64(revision))
		}
		return err
	})
	return store.Written{Revision: revision}, err
}
