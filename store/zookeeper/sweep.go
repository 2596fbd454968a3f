package zookeeper

import (
	"context"
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

const (
	// sweepersAtOnce bounds how many nodes are removed at the same time.
	sweepersAtOnce = 16

	// lastSweep is how long Close may take for what has not been removed yet.
	lastSweep = 500 * time.Millisecond
)

// sweeper removes nodes that are no keys and have no children, and then the
// parents for which the same is true: those of keys that were deleted, and those
// that were made for keys which then were not. It touches no node that has
// version 0, which another tool made, nor that of Config.Prefix and above.
type sweeper struct {
	d    *driver
	wake chan struct{}

	mu      sync.Mutex
	queue   []dirt              // the oldest first
	queued  map[string]struct{} // the paths in it
	running bool
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
	if !s.running {
		s.running = s.d.tasks.Go(s.run)
	}
	store.Poke(s.wake)
}

// next takes the node that has waited longest, if it has for long enough; else it
// tells how long to wait. With all it takes any.
func (s *sweeper) next(all bool) (d dirt, ok bool, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.queue = nil // or it would keep the memory of the longest it ever was
		return d, false, time.Hour
	}
	d = s.queue[0]
	if wait = time.Until(d.due); wait > 0 && !all {
		return d, false, wait
	}
	s.queue = s.queue[1:]
	delete(s.queued, d.path)
	return d, true, 0
}

// run removes what is due until the driver is closed.
func (s *sweeper) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	places := make(chan struct{}, sweepersAtOnce)
	for {
		d, ok, wait := s.next(false)
		if !ok {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-s.wake:
			case <-s.d.ctx.Done():
				return
			}
			continue
		}
		conn, _, err := s.d.main.ready(s.d.ctx, true)
		if err != nil {
			return // closed, or refused for good
		}
		places <- struct{}{}
		if !s.d.tasks.Go(func() {
			defer func() { <-places }()
			if err := s.sweep(conn, d, false); err != nil {
				s.later(d.path, d.mzxid)
			}
		}) {
			return
		}
	}
}

// finish removes what waits to be removed, at the driver's end.
func (s *sweeper) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), lastSweep)
	defer cancel()
	conn, _, err := s.d.main.now()
	if err != nil {
		return
	}
	waiting := func(yield func(dirt) bool) {
		for ctx.Err() == nil {
			d, ok, _ := s.next(true)
			if !ok || !yield(d) {
				return
			}
		}
	}
	done := make(chan struct{})
	if !s.d.tasks.Go(func() {
		defer close(done)
		_ = each(sweepersAtOnce, waiting, func(d dirt) error { return s.sweep(conn, d, true) })
	}) {
		return
	}
	select {
	case <-done:
	case <-ctx.Done(): // the end of the client ends them
	}
}

// sweep removes a node and its parents as far as they are empty. An error is
// that of a connection.
func (s *sweeper) sweep(conn *zk.Conn, d dirt, last bool) error {
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
