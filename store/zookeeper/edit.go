package zookeeper

import (
	"errors"
	"slices"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// Every node that this library writes has a data version that tells what it is:
// one that another tool made and nobody wrote since has 0, a parent that was made
// for its children alone 1, and a key at least 2. Parents of version 0 are never
// removed: somebody made them on purpose. And what is meant to remove an empty
// parent, at version 1, can never hit a key.

// createKey returns the operations that make a node and give it a value. The
// answer to the last of them has the Stat, which that to a create has not.
func (d *driver) createKey(path string, value []byte) []any {
	return []any{
		&zk.CreateRequest{Path: path, Acl: d.acl},
		&zk.SetDataRequest{Path: path, Version: -1},
		&zk.SetDataRequest{Path: path, Data: value, Version: -1},
	}
}

// createParent returns the operations that make an implied parent.
func (d *driver) createParent(path string) []any {
	return d.createKey(path, nil)[:2]
}

// edit is one write of a node's data. Without a value it turns a key into a
// directory, which is how keys are deleted: the node itself is removed after a
// while, when it has no children; see sweeper.
type edit struct {
	*op
	path  string
	value []byte
	with  *record   // of the TTL, made along with the write; nil without
	old   []*record // of TTLs that the write ends, removed along with it
	stat  *zk.Stat  // after the write
}

func (o *op) edit(path string, value []byte) *edit {
	return &edit{op: o, path: path, value: value, old: o.c.d.expiry.of(path)}
}

// put writes the node whatever it is.
func (e *edit) put() error {
	for {
		err := e.set(-1)
		if errors.Is(err, zk.ErrNoNode) {
			err = e.make()
		}
		if !errors.Is(err, zk.ErrNodeExists) { // somebody has made it in between
			return writeError(err)
		}
	}
}

// create writes the node if it is no key.
func (e *edit) create() error {
	err := e.make()
	for synced := false; errors.Is(err, zk.ErrNodeExists) || retry(err); {
		data, stat, readErr := e.conn.Get(e.path)
		switch {
		case errors.Is(readErr, zk.ErrNoNode):
			err = e.make()
		case readErr != nil:
			return readError(readErr)
		case data == nil:
			err = e.setAt(stat)
		case synced:
			return valkeyrie.ErrKeyExists
		default: // the member of the ensemble that was asked may be behind
			if err := e.sync(); err != nil {
				return err
			}
			synced = true
		}
	}
	return writeError(err)
}

// swap writes the node if it is a key, at that revision unless it is 0.
//
// ZooKeeper has no condition on the revision: it is compared here, and the write
// is guarded by the data version that was read with it. A node that is deleted
// and made again starts with the same versions, so a version can come again. It
// does not while the write is under way, as deleted nodes stay, without data, for
// as long as sweepAfter. If something else removed the node at once (another
// tool, DeleteTree, the end of the process that deleted it) and it was made
// again and written up to the same version, all within this one round trip, the
// czxid in the answer shows it. The write has been applied then.
func (e *edit) swap(revision int64) error {
	for synced := false; ; {
		data, stat, err := e.conn.Get(e.path)
		there := err == nil && data != nil
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return readError(err)
		}
		if there && (revision == 0 || stat.Mzxid == revision) {
			if err = e.setAt(stat); !retry(err) {
				return writeError(err)
			}
			synced = false
		} else if synced {
			if !there {
				return valkeyrie.ErrKeyNotFound
			}
			return valkeyrie.ErrKeyModified
		}
		if err := e.sync(); err != nil { // the member that was asked may be behind
			return err
		}
		synced = true
	}
}

// retry tells whether a guarded write was refused because the node is not as it
// was read any more.
func retry(err error) bool { return isOneOf(err, zk.ErrBadVersion, zk.ErrNoNode) }

// setAt writes the node if it is as it was read.
func (e *edit) setAt(read *zk.Stat) error {
	err := e.set(read.Version)
	if err == nil && e.stat.Czxid != read.Czxid {
		return store.Wrap(valkeyrie.ErrAmbiguous, errMoved)
	}
	return err
}

// set writes a node that exists.
func (e *edit) set(version int32) (err error) {
	if e.with != nil || len(e.old) > 0 {
		return e.multi(&zk.SetDataRequest{Path: e.path, Data: e.value, Version: version})
	}
	e.stat, err = e.op.set(e.path, e.value, version)
	return err
}

// make makes the node, and its parents if they are missing.
func (e *edit) make() error {
	for {
		err := e.multi(e.c.d.createKey(e.path, e.value)...)
		if !errors.Is(err, zk.ErrNoNode) {
			return err
		}
		if err := e.c.d.makeParents(e.conn, e.path); err != nil {
			return err
		}
	}
}

// multi runs operations on the node, the last of which sets its data, together
// with those on its records.
func (e *edit) multi(ops ...any) error {
	for {
		all := slices.Clip(ops)
		for _, old := range e.old {
			all = append(all, &zk.DeleteRequest{Path: old.path, Version: -1})
		}
		if e.with != nil {
			all = append(all, e.with.create(e.c.d))
		}
		results, err := e.op.multi(all...)
		if err == nil {
			e.stat = results[len(ops)-1].Stat
			return nil
		}
		switch at := failedAt(results); {
		case at < len(ops): // or unknown
			return err
		case at < len(ops)+len(e.old): // somebody has removed it already
			e.c.d.expiry.forget(e.old[at-len(ops)])
			e.old = slices.Delete(e.old, at-len(ops), at-len(ops)+1)
		default:
			if err := e.c.d.expiry.restore(e.ctx, err); err != nil {
				return err
			}
		}
	}
}
