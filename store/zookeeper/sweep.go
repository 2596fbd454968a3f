package zookeeper

import (
	"errors"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie/store"
)

// sweepAfter is how long a deleted key's node stays, without data. While it does,
// its data version goes on counting, so that a write guarded by a version that was
// read less than that ago cannot hit a later node of the same name.
const sweepAfter = time.Second

// sweepersAtOnce bounds how many nodes are removed at the same time.
const sweepersAtOnce = 16

// sweeper removes nodes that are no keys and have no children, and then the
// parents for which the same is true: those of keys that were deleted, and those
// that were made for keys which then were not. It touches no node that has
// version 0, which another tool made, nor that of Config.Prefix and above.
type sweeper struct {
	d    *driver
	wake chan struct{} // capacity 1

	mu     sync.Mutex
	queue  []dirt              // the oldest first
	queued map[string]struct{} // the paths in it
}

// dirt is a node that may have to be removed.
type dirt struct {
	path  string
	mzxid int64 // of the write that made it so
	due   time.Time
}

func (s *sweeper) init(d *driver) {
	s.d, s.queued, s.wake = d, make(map[string]struct{}), make(chan struct{}, 1)
}

// later has a node looked at after a while.
func (s *sweeper) later(path string, mzxid int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.queued[path]; known {
		return // the sweep will see that it was used again
	}
	s.queued[path] = struct{}{}
	s.queue = append(s.queue, dirt{path: path, mzxid: mzxid, due: time.Now().Add(sweepAfter)})
	store.Poke(s.wake)
}

// next takes the node that has waited longest, if it has for long enough; else it
// tells how long to wait. With all it takes any.
func (s *sweeper) next(all bool) (d dirt, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.queue = nil // or it would keep the memory of the longest it ever was
		return d, time.Hour
	}
	d = s.queue[0]
	if wait = time.Until(d.due); wait > 0 && !all {
		return d, wait
	}
	s.queue = s.queue[1:]
	delete(s.queued, d.path)
	return d, 0
}

// run removes what is due, and tells how long to wait for more.
func (s *sweeper) run() time.Duration {
	g, err := s.d.main.ready(s.d.ctx, true)
	if err != nil {
		return time.Hour // closed, or refused for good
	}
	return s.sweep(g.conn, false)
}

// sweep removes the nodes that have waited for long enough, the last time all.
func (s *sweeper) sweep(conn *zk.Conn, last bool) (wait time.Duration) {
	due := func(yield func(dirt) bool) {
		for {
			var d dirt
			if d, wait = s.next(last); wait > 0 || !yield(d) {
				return
			}
		}
	}
	_ = each(sweepersAtOnce, due, func(d dirt) error {
		err := s.remove(conn, d, last)
		if err != nil && !last {
			s.later(d.path, d.mzxid)
			return nil
		}
		return err
	})
	return wait
}

// remove removes a node and its parents as far as they are empty. An error is
// that of a connection.
func (s *sweeper) remove(conn *zk.Conn, d dirt, last bool) error {
	for path := d.path; path != "/" && !s.keeps(path); path = parent(path) {
		data, stat, err := conn.Get(path)
		switch {
		case err == nil:
		case errors.Is(err, zk.ErrNoNode):
			continue // its parent may still be there
		case disconnected(err):
			return err
		default: // no right to look at it
			return nil
		}
		if data != nil || stat.NumChildren > 0 || stat.Version == 0 {
			return nil
		}
		if stat.Mzxid > d.mzxid && !last { // another key was deleted here
			s.later(path, stat.Mzxid)
			return nil
		}
		err = conn.Delete(path, stat.Version)
		switch {
		case err == nil, errors.Is(err, zk.ErrNoNode):
		case disconnected(err):
			return err
		default: // it is used again, or there is no right to remove it
			return nil
		}
	}
	return nil
}

// keeps tells whether a path is that of Config.Prefix or above it.
func (s *sweeper) keeps(path string) bool {
	return path == s.d.prefix || len(s.d.prefix) > len(path) && s.d.prefix[:len(path)+1] == path+"/"
}
