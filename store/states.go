package store

import (
	"slices"
	"strings"
	"sync"

	"github.com/kvtools/valkeyrie"
)

// states is the Sink of a watch: it keeps the latest state of each key and what
// of it the reader has not been given yet. Its size is bounded by the number of
// keys that exist, or that the reader still believes to exist.
type states struct {
	s        *front
	keysOnly bool
	keep     bool // the reader is given all pairs each time: keep them, in order

	mu       sync.Mutex
	keys     map[string]*state
	sorted   []*state // with keep: what exists, by key
	unsorted bool     // sorted has to be sorted first
	news     list     // states that the reader has not been given
	taken    bool     // the reader has been given something
	gone     bool     // with keep: a key that the reader was given is gone since
	round    uint64   // the snapshot that is being taken, or was last
	within   bool     // a snapshot is being taken
	complete bool     // there has been a complete one

	ready    chan struct{} // capacity 1: there is something to take
	first    chan struct{} // closed at the first Synced
	progress chan struct{} // capacity 1: the driver reported something before that
}

// state is what is known of one key.
type state struct {
	key      string
	pair     *valkeyrie.KVPair // nil when it was given away and is not kept
	revision uint64            // the latest, 0: absent
	given    uint64            // the revision that the reader knows, 0: none
	round    uint64            // the snapshot that it was last seen in

	news       bool // in the list
	prev, next *state
}

func newStates(s *front, keysOnly, keep bool) *states {
	return &states{
		s: s, keysOnly: keysOnly, keep: keep,
		keys:  make(map[string]*state),
		ready: make(chan struct{}, 1), first: make(chan struct{}), progress: make(chan struct{}, 1),
	}
}

// Begin implements Sink.
func (w *states) Begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.round++
	w.within = true
}

// Put implements Sink.
func (w *states) Put(pair *valkeyrie.KVPair) {
	key, ok := w.s.userKey(pair.Key)
	if !ok {
		return
	}
	pair.Key = key
	if w.keysOnly {
		pair.Value = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.complete {
		Poke(w.progress)
	}
	st := w.keys[key]
	if st == nil {
		st = &state{key: key}
		w.keys[key] = st
	}
	st.round = w.round
	if st.revision == pair.LastIndex {
		return
	}
	if st.revision == 0 && w.keep {
		w.insert(st)
	}
	st.revision, st.pair = pair.LastIndex, pair
	w.note(st)
}

// Delete implements Sink.
func (w *states) Delete(wire string) {
	key, ok := w.s.userKey(wire)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if st := w.keys[key]; st != nil {
		w.remove(st)
	}
}

// Synced implements Sink.
func (w *states) Synced() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, st := range w.keys {
		if st.round != w.round {
			w.remove(st)
		}
	}
	w.within = false
	if !w.complete {
		w.complete = true
		close(w.first)
	}
	if w.changed() {
		Poke(w.ready)
	}
}

// broken notes that the driver's watch ended, perhaps within a snapshot. What it
// had reported is true all the same.
func (w *states) broken() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.within = false
	if w.complete && w.changed() {
		Poke(w.ready)
	}
}

// changed tells whether there is something that the reader does not know; w.mu is
// held. A key that came and went meanwhile is nothing to tell.
func (w *states) changed() bool { return !w.taken || w.gone || w.news.head != nil }

// remove notes that a key is gone; w.mu is held.
func (w *states) remove(st *state) {
	if st.revision == 0 {
		return
	}
	if w.keep {
		w.sort()
		at, _ := slices.BinarySearchFunc(w.sorted, st.key, compareKey)
		w.sorted = slices.Delete(w.sorted, at, at+1)
	}
	st.revision, st.pair = 0, nil
	w.note(st)
	if st.given == 0 || w.keep {
		w.gone = w.gone || st.given != 0
		w.forget(st) // the reader never knew it, or is given what exists
	}
}

// insert puts a key that was absent into the order; w.mu is held. Within a
// snapshot many come, so that sorting once at its end is cheaper.
func (w *states) insert(st *state) {
	if w.unsorted || len(w.sorted) == 0 || w.sorted[len(w.sorted)-1].key < st.key {
		w.sorted = append(w.sorted, st)
		return
	}
	if w.within {
		w.sorted = append(w.sorted, st)
		w.unsorted = true
		return
	}
	at, _ := slices.BinarySearchFunc(w.sorted, st.key, compareKey)
	w.sorted = slices.Insert(w.sorted, at, st)
}

func (w *states) sort() {
	if w.unsorted {
		slices.SortFunc(w.sorted, func(a, b *state) int { return strings.Compare(a.key, b.key) })
		w.unsorted = false
	}
}

func compareKey(st *state, key string) int { return strings.Compare(st.key, key) }

// note marks a state as news; w.mu is held.
func (w *states) note(st *state) {
	if !st.news {
		w.news.append(st)
	}
	if w.complete && !w.within {
		Poke(w.ready)
	}
}

// forget drops a state of which the reader need not hear; w.mu is held.
func (w *states) forget(st *state) {
	if st.news {
		w.news.remove(st)
	}
	delete(w.keys, st.key)
}

// revision returns the latest revision of a key, 0 when it is absent; false
// while no complete state is known.
func (w *states) revision(key string) (uint64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.complete || w.within {
		return 0, false
	}
	if st := w.keys[key]; st != nil {
		return st.revision, true
	}
	return 0, true
}
