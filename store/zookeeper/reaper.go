package zookeeper

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie/store"
)

const (
	// reapEvery is how often it is looked for records whose owner has died.
	reapEvery = 2 * time.Second

	// reapAtLeast is how often the records of an owner that died are looked at.
	reapAtLeast = time.Minute

	// reapersAtOnce bounds how many records are looked at the same time.
	reapersAtOnce = 32
)

// reaper deletes the keys of records whose owner has died. Of the stores with
// the same prefix and user one has that role at a time, for as long as its session
// lasts; the others look now and then, and whenever they have connected, whether
// somebody has it. It also sees to records of this store of which the front knows
// nothing.
type reaper struct {
	x    *expiry
	role string        // the path of the node of who has it
	wake chan struct{} // capacity 1
	last time.Time     // a round of run

	turn  sync.Mutex           // of a round
	again map[string]time.Time // when to look at an owner's records again

	mu     sync.Mutex
	doubts []doubt
}

// doubt is a record of this store of which the front knows nothing.
type doubt struct {
	r   *record
	due time.Time // when the TTL is over
}

func (r *reaper) init(x *expiry) {
	r.x, r.role = x, child(x.dir, reaperName)
	r.wake, r.again, r.last = make(chan struct{}, 1), make(map[string]time.Time), time.Now()
}

// doubt has a record looked at when its TTL is over.
func (r *reaper) doubt(of *record, ttl time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubts = append(r.doubts, doubt{of, time.Now().Add(ttl)})
	store.Poke(r.wake)
}

// due takes the records whose TTL is over, and tells how long to wait for the next.
func (r *reaper) due() (due []*record, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait = reapEvery - rand.N(reapEvery/4) // so that not all stores ask at once
	r.doubts = slices.DeleteFunc(r.doubts, func(d doubt) bool {
		left := time.Until(d.due)
		if left <= 0 {
			due = append(due, d.r)
		} else {
			wait = min(wait, left)
		}
		return left <= 0
	})
	return due, wait
}

// run looks once, and tells how long to wait until it has to look again.
func (r *reaper) run() time.Duration {
	due, wait := r.due()
	g, err := r.x.d.main.now()
	for _, d := range due {
		failed := err
		if failed == nil {
			_, failed = r.reap(g.conn, d.path, math.MaxInt64)
		}
		if failed != nil {
			r.doubt(d, reapEvery)
		} else {
			r.x.forget(d)
		}
	}
	if err == nil && time.Since(r.last) > reapEvery/2 {
		r.last = time.Now()
		r.round(g.conn)
	}
	return wait
}

// round looks for dead owners, if this store has the role or can have it. Any
// error means to try again in the next round.
func (r *reaper) round(conn *zk.Conn) {
	r.turn.Lock()
	defer r.turn.Unlock()
	there, stat, err := conn.Exists(r.role)
	if err != nil || there && stat.EphemeralOwner != conn.SessionID() {
		return
	}
	if !there {
		_, err := conn.Create(r.role, nil, zk.FlagEphemeral, r.x.d.acl)
		if errors.Is(err, zk.ErrNoAuth) {
			r.x.d.log.Debug("no right to delete expired keys of stores that died", "error", err)
		}
		if err != nil { // usually there are no records at all
			return
		}
	}
	if _, err := conn.Sync("/"); err != nil {
		return
	}
	names, _, err := conn.Children(r.x.dir)
	if err != nil {
		return
	}
	for _, name := range names {
		owner := child(r.x.dir, name)
		if name == reaperName || owner == r.x.owner || time.Now().Before(r.again[owner]) {
			continue
		}
		alive, _, err := conn.Exists(child(owner, aliveName))
		if err != nil {
			return
		}
		if alive {
			continue
		}
		left, err := r.bury(conn, owner)
		if err != nil {
			r.x.d.log.Debug("cannot delete expired keys of a store that died", "error", err)
			continue
		}
		delete(r.again, owner)
		if left > 0 {
			r.again[owner] = time.Now().Add(min(left, reapAtLeast))
		}
	}
}

// bury deletes what of a dead owner's keys has expired, and tells when to come
// again; 0 when nothing is left.
func (r *reaper) bury(conn *zk.Conn, owner string) (time.Duration, error) {
	names, _, err := conn.Children(owner)
	if err != nil {
		return 0, err
	}
	role, err := conn.Set(r.role, nil, -1) // to learn the server's time
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	next := time.Duration(0)
	err = each(reapersAtOnce, slices.Values(names), func(name string) error {
		left, err := r.reap(conn, child(owner, name), role.Mtime)
		mu.Lock()
		defer mu.Unlock()
		if left > 0 && (next == 0 || left < next) {
			next = left
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	if next > 0 {
		return next, nil
	}
	if err := remove(conn, owner); err != nil && !errors.Is(err, zk.ErrNotEmpty) {
		return 0, err
	}
	return 0, nil
}

// reap deletes the key of a record, and the record, if the TTL is over at that
// time, or else tells how long it will last. The record alone goes if the key has
// changed since.
func (r *reaper) reap(conn *zk.Conn, path string, now int64) (left time.Duration, err error) {
	data, stat, err := conn.Get(path)
	if errors.Is(err, zk.ErrNoNode) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var n note
	if json.Unmarshal(data, &n) != nil || n.Key == "" {
		return reapAtLeast, nil // of a later version of this library, perhaps
	}
	if n.Revision == 0 {
		n.Revision = stat.Czxid
	}
	value, key, err := conn.Get(n.Key)
	switch {
	case errors.Is(err, zk.ErrNoNode), err == nil && (value == nil || key.Mzxid != n.Revision):
		return 0, passing(conn.Delete(path, stat.Version))
	case err != nil:
		return 0, err
	}
	ops := []any{
		&zk.SetDataRequest{Path: n.Key, Version: key.Version},
		&zk.DeleteRequest{Path: path, Version: stat.Version},
	}
	if n.Holder != "" {
		there, _, err := conn.Exists(n.Holder)
		if err != nil || there {
			return reapEvery, err
		}
		if there, line, err := conn.Exists(parent(n.Holder)); err != nil {
			return 0, err
		} else if there {
			ops = append(ops, &zk.SetDataRequest{Path: parent(n.Holder), Version: line.Version})
		}
	} else if passed := time.Duration(max(0, now-stat.Mtime)); passed < n.TTL/time.Millisecond+1 {
		return n.TTL - passed*time.Millisecond, nil
	}
	results, err := conn.Multi(ops...)
	if err == nil {
		r.x.d.sweeper.later(n.Key, results[0].Stat.Mzxid)
		if n.Holder != "" {
			r.x.d.sweeper.later(parent(n.Holder), results[0].Stat.Mzxid)
		}
	}
	if isOneOf(err, zk.ErrBadVersion, zk.ErrNoNode, zk.ErrNotEmpty) { // somebody was quicker
		return reapEvery, nil
	}
	return 0, err
}

// passing is nil for errors that say that somebody else was quicker.
func passing(err error) error {
	if isOneOf(err, zk.ErrNoNode, zk.ErrBadVersion) {
		return nil
	}
	return err
}
