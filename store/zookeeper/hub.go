package zookeeper

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-zookeeper/zk"
)

// A watch of ZooKeeper fires once, and this client cannot take one back. So that
// they do not pile up, all watches of a client share those on the server: there
// is at most one for each node and kind, and it is left where it is when nobody
// is interested any more, to be used again by the next who is. Whoever is
// interested in a node is given what is read of it, in order: first when he
// begins, then after each time that the watch has fired. Reading arms the watch
// again, which leaves no gap.

// watchable is what can be watched of a node.
type watchable struct {
	path     string
	children bool // their names; otherwise the data
}

// reading is what was read of it.
type reading struct {
	exists   bool
	data     []byte
	stat     *zk.Stat
	children []string
	shared   bool // others were given it, too
}

// follower is interested in nodes. Its methods do not block, and are not called
// with the hub's lock held.
type follower interface {
	// follow gets a reading.
	follow(w watchable, r reading)
	// broken says that there will be no more readings.
	broken(err error)
}

// hub is the watches of one client.
type hub struct {
	c       *client
	watched atomic.Bool // the server may ever have had a watch

	mu      sync.Mutex
	cells   map[watchable]*cell
	queue   []*cell // to be read
	readers int
}

// cell is one watchable that somebody is or was interested in.
type cell struct {
	watchable
	armed     bool // the server watches it, or will when it has been read
	queued    bool // to be read, again if it is being read
	reading   bool // it is being read and its followers told
	followers []interest
}

// interest is that of one follower.
type interest struct {
	follower
	absent bool // also in the node's creation
}

// readersAtOnce bounds how many requests of watches are under way.
const readersAtOnce = 64

func newHub(c *client) *hub { return &hub{c: c, cells: make(map[watchable]*cell)} }

// join declares a follower's interest. With absent it is also told when a node
// that does not exist is created; without, somebody else tells it.
func (h *hub) join(w watchable, f follower, absent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.cells[w]
	if c == nil {
		c = &cell{watchable: w}
		h.cells[w] = c
	}
	c.followers = append(c.followers, interest{f, absent})
	h.enqueue(c)
}

// leave ends an interest.
func (h *hub) leave(w watchable, f follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.cells[w]; c != nil {
		c.followers = slices.DeleteFunc(c.followers, func(i interest) bool { return i.follower == f })
		h.tidy(c)
	}
}

// look has something read again that somebody follows.
func (h *hub) look(w watchable) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.cells[w]; c != nil && len(c.followers) > 0 {
		h.enqueue(c)
	}
}

// tidy forgets a cell that means nothing any more; h.mu is held.
func (h *hub) tidy(c *cell) {
	if len(c.followers) == 0 {
		c.followers = nil
		if !c.armed && !c.reading {
			delete(h.cells, c.watchable)
		}
	}
}

// event is called for each watch that fires.
func (h *hub) event(e zk.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch e.Type {
	case zk.EventNodeDataChanged:
		h.fire(watchable{path: e.Path}, e.Type)
	case zk.EventNodeChildrenChanged:
		h.fire(watchable{path: e.Path, children: true}, e.Type)
	case zk.EventNodeCreated, zk.EventNodeDeleted:
		h.fire(watchable{path: e.Path}, e.Type)
		h.fire(watchable{path: e.Path, children: true}, e.Type)
	}
}

// fire notes that a watch has fired; h.mu is held.
func (h *hub) fire(w watchable, why zk.EventType) {
	c := h.cells[w]
	if c == nil {
		return
	}
	if why == zk.EventNodeDeleted {
		c.followers = slices.DeleteFunc(c.followers, waitsForThat)
	}
	c.armed = false
	if len(c.followers) > 0 {
		h.enqueue(c)
	}
	h.tidy(c)
}

// waitsForThat ends a follower that waits for nothing but that its node goes:
// nothing has to be read for it.
func waitsForThat(i interest) bool {
	w, waits := i.follower.(*waiter)
	if waits {
		w.broken(nil)
	}
	return waits
}

// forgetAll is called when the session has ended, and all watches with it.
func (h *hub) forgetAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.cells {
		c.armed = false
		h.tidy(c)
	}
}

// fail tells all followers that the connection broke. What they have not heard
// of meanwhile they read again when there is another one. The watches go on if
// the session does; the client registers them anew.
func (h *hub) fail(err error) {
	h.mu.Lock()
	var all []interest
	for _, c := range h.cells {
		all = append(all, c.followers...)
	}
	h.mu.Unlock()
	for _, i := range all {
		i.broken(err)
	}
}

// enqueue has a cell read, after the reading that is under way; h.mu is held.
func (h *hub) enqueue(c *cell) {
	if c.queued {
		return
	}
	c.queued = true
	if c.reading {
		return
	}
	h.queue = append(h.queue, c)
	if h.readers < readersAtOnce && h.c.d.tasks.Go(h.read) {
		h.readers++
	}
}

// read reads what is queued.
func (h *hub) read() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.queue) > 0 {
		c := h.queue[0]
		h.queue[0] = nil
		h.queue = h.queue[1:]
		c.queued = false
		if len(c.followers) > 0 {
			h.readOne(c)
		}
	}
	h.queue = nil // or it would keep the memory of the longest it ever was
	h.readers--
}

// readOne reads a cell and tells those who followed it before; h.mu is held and
// given up meanwhile. If the watch fires in that time, perhaps the one that is
// being armed, or the session ends, then armed is false afterwards.
func (h *hub) readOne(c *cell) {
	arm, followers := !c.armed, slices.Clone(c.followers)
	c.armed, c.reading = true, true
	h.mu.Unlock()
	absent := slices.ContainsFunc(followers, func(i interest) bool { return i.absent })
	r, armed, err := h.request(c.watchable, arm, absent)
	r.shared = len(followers) > 1
	for _, f := range followers {
		if err != nil {
			f.broken(err)
		} else {
			f.follow(c.watchable, r)
		}
	}
	h.mu.Lock()
	c.reading = false
	if arm && !armed {
		c.armed = false
	}
	if c.queued {
		c.queued = false
		h.enqueue(c)
	}
	h.tidy(c)
}

// request reads, with a watch if arm is set, and tells whether there is one now.
func (h *hub) request(w watchable, arm, absent bool) (reading, bool, error) {
	g := h.c.gate.Load()
	if !g.open {
		return reading{}, false, errSessionLost
	}
	conn := g.conn
	if arm {
		h.watched.Store(true)
	}
	for {
		r, err := fetch(conn, w, arm)
		if err == nil {
			return r, arm, nil
		}
		if !errors.Is(err, zk.ErrNoNode) {
			return reading{}, false, readError(err)
		}
		if !arm || !absent {
			return reading{}, false, nil
		}
		exists, _, _, err := conn.ExistsW(w.path)
		if err != nil {
			return reading{}, false, readError(err)
		}
		if !exists {
			return reading{}, true, nil
		}
	}
}

// fetch reads once. The channels that the client returns are not used: its
// callback is told of all events.
func fetch(conn *zk.Conn, w watchable, arm bool) (r reading, err error) {
	r.exists = true
	switch {
	case w.children && arm:
		r.children, r.stat, _, err = conn.ChildrenW(w.path)
	case w.children:
		r.children, r.stat, err = conn.Children(w.path)
	case arm:
		r.data, r.stat, _, err = conn.GetW(w.path)
	default:
		r.data, r.stat, err = conn.Get(w.path)
	}
	return r, err
}
