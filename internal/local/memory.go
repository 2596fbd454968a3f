package local

import (
	"hash/maphash"
	"strings"
	"sync/atomic"

	"github.com/kvtools/valkeyrie"
)

// NewMemory returns a storage in memory, that of store/memory.
//
// Its state is a tree that never changes: a transaction makes a new one, which
// shares with the old one what it has not touched. A view is then a pointer,
// and readers need no lock.
func NewMemory() Storage {
	m := &memory{}
	m.state.Store(&memoryState{})
	return m
}

type memory struct {
	state atomic.Pointer[memoryState] // nil: closed
}

type memoryState struct {
	root     *node
	revision uint64
}

func (m *memory) MaxValue() int { return 0 }

func (m *memory) Close() error {
	m.state.Store(nil)
	return nil
}

func (m *memory) View() (View, error) {
	s := m.state.Load()
	if s == nil {
		return nil, valkeyrie.ErrClosed
	}
	return s, nil
}

func (m *memory) Get(key string, values bool) (Record, bool, error) {
	s := m.state.Load()
	if s == nil {
		return Record{}, false, valkeyrie.ErrClosed
	}
	r, found := s.root.get(key)
	if values {
		r.Value = append(make([]byte, 0, len(r.Value)), r.Value...)
	} else {
		r.Value = nil
	}
	return r, found, nil
}

func (m *memory) Update(fn func(Tx) error) error {
	s := m.state.Load()
	if s == nil {
		return valkeyrie.ErrClosed
	}
	tx := &memoryTx{memoryState: *s}
	if err := fn(tx); err != nil {
		return err
	}
	m.state.Store(&tx.memoryState)
	return nil
}

// The methods of a View.

func (s *memoryState) Revision() uint64 { return s.revision }
func (s *memoryState) Close()           {}

func (s *memoryState) Get(key string) (Record, bool, error) {
	r, found := s.root.get(key)
	return r, found, nil
}

func (s *memoryState) Scan(prefix, from string, yield func(string, Record, error) bool) {
	s.root.ascend(max(prefix, from), func(n *node) bool {
		return strings.HasPrefix(n.key, prefix) && yield(n.key, n.record, nil)
	})
}

// memoryTx is a state that is being made.
type memoryTx struct{ memoryState }

func (t *memoryTx) Put(key string, r Record) error {
	t.root = t.root.put(&node{key: key, record: r, rank: maphash.String(rankSeed, key)})
	return nil
}

func (t *memoryTx) Delete(key string) error {
	t.root = t.root.without(key)
	return nil
}

func (t *memoryTx) NextRevision() (uint64, error) {
	t.revision++
	return t.revision, nil
}

// node is a node of a treap: ordered by key, and a heap by rank, which keeps it
// balanced as ranks are random. Nodes that were published never change.
type node struct {
	key         string
	record      Record
	rank        uint64
	left, right *node
}

// rankSeed makes ranks that nobody can choose keys by.
var rankSeed = maphash.MakeSeed()

func (n *node) get(key string) (Record, bool) {
	for n != nil {
		switch c := strings.Compare(key, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n.record, true
		}
	}
	return Record{}, false
}

// ascend calls yield for the nodes from a key on, in order, until it returns false.
func (n *node) ascend(from string, yield func(*node) bool) bool {
	if n == nil {
		return true
	}
	if n.key >= from && (!n.left.ascend(from, yield) || !yield(n)) {
		return false
	}
	return n.right.ascend(from, yield)
}

// put returns the tree with the node in it, instead of one with the same key.
func (n *node) put(x *node) *node {
	if n == nil {
		return x
	}
	if n.key == x.key {
		x.left, x.right = n.left, n.right
		return x
	}
	if x.rank > n.rank {
		x.left, x.right = n.split(x.key)
		return x
	}
	c := *n
	if x.key < n.key {
		c.left = n.left.put(x)
	} else {
		c.right = n.right.put(x)
	}
	return &c
}

// split returns the nodes before a key and those after it.
func (n *node) split(key string) (before, after *node) {
	if n == nil {
		return nil, nil
	}
	c := *n
	switch {
	case n.key < key:
		c.right, after = n.right.split(key)
		return &c, after
	case n.key > key:
		before, c.left = n.left.split(key)
		return before, &c
	default: // not reached: the same key has the same rank
		return n.left, n.right
	}
}

// without returns the tree without a key.
func (n *node) without(key string) *node {
	if n == nil {
		return nil
	}
	if n.key == key {
		return merge(n.left, n.right)
	}
	c := *n
	if key < n.key {
		c.left = n.left.without(key)
	} else {
		c.right = n.right.without(key)
	}
	return &c
}

// merge joins two trees, all keys of the first being before those of the second.
func merge(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.rank > b.rank:
		c := *a
		c.right = merge(a.right, b)
		return &c
	default:
		c := *b
		c.left = merge(a, b.left)
		return &c
	}
}
