package local

import (
	"bytes"
	"errors"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// transaction is one run of the committer. Each of its methods is one step: it
// checks its condition before it changes anything, so that an error of one
// request leaves those of the others alone.
type transaction struct {
	db      *DB
	tx      Tx
	changes []change
	last    uint64 // the last revision drawn
	failed  bool   // a step was left half done: nothing may be committed
}

// find reads a record that has not expired.
func (t *transaction) find(key string) (Record, bool, error) {
	r, found, err := t.tx.Get(key)
	if err != nil || !found || !t.db.expiries.alive(key, r.Revision, r.Expires) {
		return Record{}, false, err
	}
	return r, true, nil
}

// match is find for a write that wants the key at a revision.
func (t *transaction) match(key string, revision uint64) (Record, error) {
	r, found, err := t.find(key)
	switch {
	case err != nil:
		return r, err
	case !found:
		return r, valkeyrie.ErrKeyNotFound
	case r.Revision != revision:
		return r, valkeyrie.ErrKeyModified
	}
	return r, nil
}

// draw draws the revision of a change.
func (t *transaction) draw() (uint64, error) {
	revision, err := t.tx.NextRevision()
	if err == nil {
		t.last = revision
	}
	return revision, err
}

// put writes a record at a new revision.
func (t *transaction) put(key string, r Record, ttl time.Duration) (uint64, error) {
	revision, err := t.draw()
	if err != nil {
		return 0, err
	}
	r.Revision, r.Expires = revision, after(ttl)
	if err := t.tx.Put(key, r); err != nil {
		return 0, err
	}
	t.changes = append(t.changes, change{key: key, record: r, ttl: ttl, seq: revision})
	return revision, nil
}

// remove deletes keys, all as one change. After an error in the middle nothing
// may be committed.
func (t *transaction) remove(keys ...string) error {
	seq, err := t.draw()
	if err != nil {
		return err
	}
	for i, key := range keys {
		if err := t.tx.Delete(key); err != nil {
			t.failed = i > 0
			return err
		}
		t.changes = append(t.changes, change{key: key, seq: seq, deleted: true})
	}
	return nil
}

// write is Driver.Write.
func (t *transaction) write(w store.Write) (uint64, error) {
	switch {
	case w.Create:
		_, found, err := t.find(w.Key)
		if err != nil {
			return 0, err
		}
		if found {
			return 0, valkeyrie.ErrKeyExists
		}
	case w.IfRevision != 0:
		if _, err := t.match(w.Key, w.IfRevision); err != nil {
			return 0, err
		}
	}
	return t.put(w.Key, Record{Value: w.Value}, w.TTL)
}

// delete is Driver.Delete.
func (t *transaction) delete(key string, ifRevision uint64) error {
	if ifRevision != 0 {
		if _, err := t.match(key, ifRevision); err != nil {
			return err
		}
		return t.remove(key)
	}
	_, found, err := t.find(key)
	if err == nil && !found {
		return valkeyrie.ErrKeyNotFound
	}
	// What cannot be read can be deleted all the same: it is the way to get rid
	// of it.
	if err != nil && !errors.Is(err, valkeyrie.ErrCorrupt) {
		return err
	}
	return t.remove(key)
}

// deleteTree is Driver.DeleteTree.
func (t *transaction) deleteTree(dir string) error {
	var keys []string
	found := false
	t.tx.Scan(dir, dir, func(key string, r Record, err error) bool {
		keys = append(keys, key)
		found = found || err != nil || t.db.expiries.alive(key, r.Revision, r.Expires)
		return true
	})
	if !found {
		return valkeyrie.ErrKeyNotFound
	}
	return t.remove(keys...)
}

// renew writes the new expiry for Driver.Renew, which has put it off already.
func (t *transaction) renew(key string, revision uint64, ttl time.Duration) error {
	r, err := t.match(key, revision)
	if err != nil {
		return err
	}
	r.Expires = after(ttl)
	r.Value = bytes.Clone(r.Value)
	if err := t.tx.Put(key, r); err != nil {
		return err
	}
	t.changes = append(t.changes, change{key: key, ttl: ttl, silent: true})
	return nil
}

// lock is Driver.TryLock.
func (t *transaction) lock(l store.LockRequest) (uint64, error) {
	r, found, err := t.find(l.Key)
	if err != nil {
		return 0, err
	}
	if found && r.Owner != l.Owner {
		return 0, valkeyrie.ErrLockHeld
	}
	return t.put(l.Key, Record{Value: l.Value, Owner: l.Owner}, l.TTL)
}

// release is Hold.Release.
func (t *transaction) release(key string, revision uint64) error {
	_, err := t.match(key, revision)
	if errors.Is(err, valkeyrie.ErrKeyNotFound) || errors.Is(err, valkeyrie.ErrKeyModified) {
		return valkeyrie.ErrLockNotHeld
	}
	if err != nil {
		return err
	}
	return t.remove(key)
}

// expire deletes a record whose time is over, if it is still the same.
func (t *transaction) expire(e expiry) error {
	r, found, err := t.tx.Get(e.key)
	if err != nil || !found || r.Revision != e.revision {
		return nil // overwritten or deleted in the meantime
	}
	return t.remove(e.key)
}
