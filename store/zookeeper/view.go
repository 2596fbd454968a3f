package zookeeper

import (
	"bytes"
	"strings"
	"sync"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// view is one watch while its connection lasts: that of the one key's node, or of
// the data and the children of each node of a tree.
type view struct {
	ending
	hub      *hub
	sink     store.Sink
	keysOnly bool

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
	key      string
	path     string
	parent   *node            // nil for the root
	children map[string]*node // by name
	there    bool             // it was reported
	absent   bool             // it was found missing, although its parent has it
	dropped  bool

	// The snapshot needs a reading of it.
	data, names bool
}

// begin declares the view's interest.
func (v *view) begin(r store.WatchRequest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waiting = 1
	v.root = &node{v: v, key: strings.TrimSuffix(r.Key, "/"), data: !r.Tree, names: r.Tree}
	v.root.path = pathOf(v.root.key)
	v.hub.join(watchable{path: v.root.path, children: r.Tree}, v.root, true)
}

// stop ends the view's interest. Afterwards the sink is not called.
func (v *view) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stopped = true
	v.drop(v.root)
}

// drop ends the interest in a node that is gone, and in all below it.
func (v *view) drop(n *node) {
	n.dropped = true
	v.hub.leave(watchable{path: n.path}, n)
	v.hub.leave(watchable{path: n.path, children: true}, n)
	v.arrived(&n.data)
	v.arrived(&n.names)
	v.noteGone(n)
	for _, below := range n.children {
		v.drop(below)
	}
}

// broken implements follower.
func (n *node) broken(err error) { n.v.broken(err) }

// follow implements follower.
func (n *node) follow(w watchable, r reading) {
	v := n.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if n.dropped {
		return
	}
	if w.children {
		v.noteChildren(n, r, v.arrived(&n.names))
	} else {
		v.arrived(&n.data)
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

// arrived notes that a reading need not be waited for any more, and tells whether
// the snapshot needed it.
func (v *view) arrived(needed *bool) bool {
	was := *needed
	if *needed = false; was {
		v.waiting--
	}
	return was
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
	if !n.there || v.stopped {
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
	path, key, ok := below(to.path, to.key, name)
	if !ok {
		return
	}
	n := &node{v: v, key: key, path: path, parent: to, data: first, names: first}
	if to.children == nil {
		to.children = make(map[string]*node)
	}
	to.children[name] = n
	if first {
		v.waiting += 2
	}
	v.hub.join(watchable{path: n.path}, n, false)
	v.hub.join(watchable{path: n.path, children: true}, n, false)
}
