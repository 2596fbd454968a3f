package zookeeper

import (
	"bytes"
	"sync"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// view is one watch while its connection lasts: that of the one key's node, or of
// the data and the children of each node of a tree.
type view struct {
	hub      *hub
	sink     store.Sink
	keysOnly bool
	end      chan error // capacity 1: why it broke

	mu      sync.Mutex
	root    *node
	stopped bool
	waiting int // readings that the snapshot needs
	synced  bool
	gone    map[string]struct{} // keys that went during the snapshot
}

// node is one node of a view, and the follower of its data and children. One
// that is dropped and comes again is another node, which gets no readings of
// the time before.
type node struct {
	v        *view
	key      string // with what the directory's keys begin, for the directory itself
	path     string
	parent   *node
	children map[string]*node // by name
	there    bool             // it was reported
	absent   bool             // it was found missing, although its parent has it
	dropped  bool
	data     pending
	names    pending
}

// pending tells what of a node has not been read yet.
type pending int8

const (
	notWaited  pending = iota // for a first reading that the snapshot does not need
	waited                    // for one that it needs
	wasRead                   // there was one
	notWatched                // there is none of the kind
)

// begin declares the view's interest.
func (v *view) begin(r store.WatchRequest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waiting = 1
	if r.Tree {
		v.root = &node{v: v, key: r.Key, path: dirOf(r.Key), data: notWatched, names: waited}
	} else {
		v.root = &node{v: v, key: r.Key, path: pathOf(r.Key), data: waited, names: notWatched}
	}
	v.hub.join(watchable{path: v.root.path, children: r.Tree}, v.root, true)
}

// stop ends the view's interest. Afterwards the sink is not called.
func (v *view) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stopped = true
	v.unfollow(v.root)
}

// unfollow ends the interest in a node and all below it.
func (v *view) unfollow(n *node) {
	n.dropped = true
	if n.data != notWatched {
		v.hub.leave(watchable{path: n.path}, n)
	}
	if n.names != notWatched {
		v.hub.leave(watchable{path: n.path, children: true}, n)
	}
	for _, below := range n.children {
		v.unfollow(below)
	}
}

// broken implements follower.
func (n *node) broken(err error) { n.v.broken(err) }

func (v *view) broken(err error) {
	select {
	case v.end <- err:
	default:
	}
}

// follow implements follower.
func (n *node) follow(w watchable, r reading) {
	v := n.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stopped || n.dropped {
		return
	}
	if w.children {
		first := v.wasRead(&n.names)
		v.noteChildren(n, r, first)
	} else {
		v.wasRead(&n.data)
		v.noteData(n, r)
	}
	if !r.exists && n.parent != nil {
		// Either its parent's children tell that it is gone, or it was made again
		// meanwhile and has to be read again.
		n.absent = true
		v.hub.look(watchable{path: n.parent.path, children: true})
	}
	if v.waiting == 0 && !v.synced {
		v.synced = true
		v.sink.Synced()
		for key := range v.gone {
			v.sink.Delete(key)
		}
		v.gone = nil
	}
}

// wasRead notes a reading and tells whether the snapshot needed it.
func (v *view) wasRead(p *pending) bool {
	was := *p
	*p = wasRead
	if was == waited {
		v.waiting--
	}
	return was == waited
}

// noteData reports the data of a node.
func (v *view) noteData(n *node, r reading) {
	if r.data == nil {
		v.noteGone(n)
		return
	}
	p := &valkeyrie.KVPair{Key: n.key, LastIndex: uint64(r.stat.Mzxid)}
	switch {
	case v.keysOnly:
	case r.shared:
		p.Value = bytes.Clone(r.data)
	default:
		p.Value = r.data
	}
	n.there = true
	delete(v.gone, n.key)
	v.sink.Put(p)
}

// noteGone reports that a key is gone.
func (v *view) noteGone(n *node) {
	if !n.there {
		return
	}
	n.there = false
	if v.synced {
		v.sink.Delete(n.key)
		return
	}
	if v.gone == nil {
		v.gone = make(map[string]struct{})
	}
	v.gone[n.key] = struct{}{}
}

// noteChildren compares the children of a node with those that are known. Those
// that the first reading of a node shows belong to the snapshot, if the node does.
func (v *view) noteChildren(n *node, r reading, first bool) {
	names := make(map[string]struct{}, len(r.children))
	for _, name := range r.children {
		names[name] = struct{}{}
	}
	for name, old := range n.children {
		if _, there := names[name]; !there {
			v.drop(old)
			delete(n.children, name)
		}
	}
	for _, name := range r.children {
		switch old := n.children[name]; {
		case old == nil:
			v.add(n, name, first)
		case old.absent:
			old.absent = false
			v.hub.look(watchable{path: old.path})
			v.hub.look(watchable{path: old.path, children: true})
		}
	}
}

// add begins to follow a child.
func (v *view) add(to *node, name string, first bool) {
	segment, ok := unescape(name, to.path == "/")
	if !ok {
		return
	}
	n := &node{v: v, key: to.key + segment, path: child(to.path, name), parent: to}
	if to.parent != nil {
		n.key = to.key + "/" + segment
	}
	if to.children == nil {
		to.children = make(map[string]*node)
	}
	to.children[name] = n
	if first {
		n.data, n.names = waited, waited
		v.waiting += 2
	}
	v.hub.join(watchable{path: n.path}, n, false)
	v.hub.join(watchable{path: n.path, children: true}, n, false)
}

// drop forgets a node that is gone, and all below it.
func (v *view) drop(n *node) {
	v.unfollow(n)
	v.forget(n)
}

func (v *view) forget(n *node) {
	for _, p := range []pending{n.data, n.names} {
		if p == waited {
			v.waiting--
		}
	}
	v.noteGone(n)
	for _, below := range n.children {
		v.forget(below)
	}
}
