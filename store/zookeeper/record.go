package zookeeper

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
)

// note is what a record says.
type note struct {
	Key      string        `json:"key"`                // the path of the node
	TTL      time.Duration `json:"ttl,omitempty"`      // in nanoseconds
	Holder   string        `json:"holder,omitempty"`   // of a lock: the node that must be there
	Revision int64         `json:"revision,omitempty"` // of the key, if it is not the record's czxid
}

// record is a note of this store.
type record struct {
	note
	path     string
	revision int64
}

// create returns the operation that makes the record.
func (r *record) create(d *driver) any {
	data, _ := json.Marshal(r.note) // cannot fail
	return &zk.CreateRequest{Path: r.path, Data: data, Acl: d.acl}
}

// rewrite writes a record, which may have gone with its directory.
func (x *expiry) rewrite(o *op, path string, n note) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	for {
		_, err = o.set(path, data, -1)
		if !errors.Is(err, zk.ErrNoNode) {
			return writeError(err)
		}
		if err := o.writing(); err != nil {
			return err
		}
		_, err = o.conn.Create(path, data, zk.FlagPersistent, x.d.acl)
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

// of returns the records of a key.
func (x *expiry) of(path string) []*record {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.known[path])
}

// at returns the record of a key at a revision, nil if there is none.
func (x *expiry) at(path string, revision int64) *record {
	for _, r := range x.of(path) {
		if r.revision == revision {
			return r
		}
	}
	return nil
}

func (x *expiry) add(r *record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.known[r.Key] = append(x.known[r.Key], r)
}

func (x *expiry) forget(r *record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	left := slices.DeleteFunc(x.known[r.Key], func(other *record) bool { return other == r })
	if x.known[r.Key] = left; len(left) == 0 {
		delete(x.known, r.Key)
	}
}

// wrote notes the outcome of a write of a node.
func (x *expiry) wrote(e *edit, err error) {
	switch {
	case err == nil:
		for _, old := range e.old {
			x.forget(old)
		}
		if e.with != nil {
			e.with.revision = e.stat.Mzxid
			x.add(e.with)
		}
	case e.with != nil && errors.Is(err, valkeyrie.ErrAmbiguous):
		x.reaper.doubt(e.with, e.with.TTL)
	}
}

// abandon is called for a write with a TTL that was applied when its caller had
// gone, so that the front knows nothing of it.
func (x *expiry) abandon(path string, revision int64) {
	if r := x.at(path, revision); r != nil {
		x.reaper.doubt(r, r.TTL)
	}
}

// over is called when a key is found not to be at a revision any more: its TTL
// has ended.
func (x *expiry) over(conn *zk.Conn, path string, revision int64) {
	if r := x.at(path, revision); r != nil && remove(conn, r.path) == nil {
		x.forget(r)
	}
}
