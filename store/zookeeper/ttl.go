package zookeeper

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

// expiry is the records of a store.
type expiry struct {
	d     *driver
	dir   string      // of the user's owners
	owner string      // of this store's records
	turn  sync.Mutex  // of who makes it
	ready atomic.Bool // it is there

	count atomic.Int64 // of records, so that writes without TTL need no lock
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
	conn, _, err := x.d.main.ready(ctx, false)
	if err != nil {
		return err
	}
	x.turn.Lock()
	defer x.turn.Unlock()
	if x.ready.Load() {
		return nil
	}
	for made := false; !made; {
		if err := x.makeDir(conn, x.owner); err != nil {
			return readError(err)
		}
		err := x.live(conn)
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
	x.reaper.start()
}

// leave tells others that they have to care for the records. What it returns is
// closed when they know.
func (x *expiry) leave() <-chan struct{} {
	told := make(chan struct{})
	conn, _, err := x.d.main.now()
	if err != nil || !x.ready.Load() || !x.d.tasks.Go(func() {
		defer close(told)
		_ = conn.Delete(child(x.owner, aliveName), -1) // it goes with the session otherwise
		_ = conn.Delete(x.owner, -1)                   // if there are no records
	}) {
		close(told)
	}
	return told
}

// of returns the records of a key.
func (x *expiry) of(path string) []*record {
	if x.count.Load() == 0 {
		return nil
	}
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
	x.count.Add(1)
}

func (x *expiry) forget(r *record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(x.known[r.Key]), func(other *record) bool { return other == r })
	x.count.Add(int64(len(left) - len(x.known[r.Key])))
	if len(left) == 0 {
		delete(x.known, r.Key)
	} else {
		x.known[r.Key] = left
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
	if r := x.at(path, revision); r != nil {
		err := conn.Delete(r.path, -1)
		if err == nil || errors.Is(err, zk.ErrNoNode) {
			x.forget(r)
		}
	}
}
