package store

import (
	"github.com/kvtools/valkeyrie"
)

// takeOne returns the state of the one key that is watched, nil when there is
// nothing new. An absent key is a pair without value.
func (w *states) takeOne(key string) *valkeyrie.KVPair {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.complete || w.within || !w.changed() {
		return nil
	}
	w.taken = true
	st := w.keys[key]
	if st == nil {
		return &valkeyrie.KVPair{Key: key}
	}
	if st.news {
		w.news.remove(st)
	}
	last := st.given
	st.given = st.revision
	if st.revision == 0 {
		delete(w.keys, key)
		return &valkeyrie.KVPair{Key: key, LastIndex: last}
	}
	pair := st.pair
	st.pair = nil // it belongs to the reader
	if w.keysOnly {
		pair.Value = []byte{}
	}
	return pair
}

// takeEvents returns up to most events; nil, which is not the same as none, while a
// snapshot is being taken.
func (w *states) takeEvents(most int) []valkeyrie.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.complete || w.within {
		return nil
	}
	events := []valkeyrie.Event{}
	for st := w.news.head; st != nil && len(events) < most; st = w.news.head {
		w.news.remove(st)
		switch {
		case st.revision != 0:
			events = append(events, valkeyrie.Event{Type: valkeyrie.Put, Pair: st.pair})
			st.given, st.pair = st.revision, nil
		default:
			events = append(events, valkeyrie.Event{Type: valkeyrie.Delete,
				Pair: &valkeyrie.KVPair{Key: st.key, LastIndex: st.given}})
			delete(w.keys, st.key)
		}
	}
	w.taken = true
	return events
}

// takeAll returns copies of all pairs, sorted; nil when there is nothing new.
func (w *states) takeAll() []*valkeyrie.KVPair {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.complete || w.within || !w.changed() {
		return nil
	}
	w.taken, w.gone = true, false
	for st := w.news.head; st != nil; st = w.news.head {
		w.news.remove(st)
		st.given = st.revision
	}
	w.sort()
	bytes := 0
	for _, st := range w.sorted {
		bytes += len(st.pair.Value)
	}
	// Three allocations however many pairs there are.
	pairs := make([]*valkeyrie.KVPair, len(w.sorted))
	copies := make([]valkeyrie.KVPair, len(w.sorted))
	values := make([]byte, 0, bytes)
	for i, st := range w.sorted {
		copies[i] = *st.pair
		if st.pair.Value != nil {
			from := len(values)
			values = append(values, st.pair.Value...)
			copies[i].Value = values[from:len(values):len(values)]
		}
		pairs[i] = &copies[i]
	}
	return pairs
}

// list is a list of states in the order in which they became news.
type list struct{ head, tail *state }

func (l *list) append(st *state) {
	st.news, st.prev, st.next = true, l.tail, nil
	if l.tail == nil {
		l.head = st
	} else {
		l.tail.next = st
	}
	l.tail = st
}

func (l *list) remove(st *state) {
	if st.prev == nil {
		l.head = st.next
	} else {
		st.prev.next = st.next
	}
	if st.next == nil {
		l.tail = st.prev
	} else {
		st.next.prev = st.prev
	}
	st.news, st.prev, st.next = false, nil, nil
}
