package local

import (
	"strings"
	"sync"
	"time"
)

// change is what a commit did to one key.
type change struct {
	key     string
	record  Record
	ttl     time.Duration // 0: the record does not expire
	seq     uint64        // grows from change to change of a key; a revision
	deleted bool
	silent  bool // only the TTL was renewed, which is no news to watchers
}

// hub hands committed changes to the watchers whom they concern.
type hub struct {
	mu    sync.Mutex
	keys  map[string]watchers // by the key that they watch
	trees map[string]watchers // by the directory, "" or ending in "/"
}

type watchers map[*watcher]struct{}

func newHub() *hub {
	return &hub{keys: make(map[string]watchers), trees: make(map[string]watchers)}
}

// index returns the map that a watcher belongs in.
func (h *hub) index(w *watcher) map[string]watchers {
	if w.tree {
		return h.trees
	}
	return h.keys
}

// add registers a watcher: it gets every change that is published from now on.
func (h *hub) add(key string, tree bool) *watcher {
	w := &watcher{key: key, tree: tree, wake: make(chan struct{}, 1), index: make(map[string]int)}
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.index(w)
	if m[key] == nil {
		m[key] = make(watchers)
	}
	m[key][w] = struct{}{}
	return w
}

// remove ends the registration.
func (h *hub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.index(w)
	delete(m[w.key], w)
	if len(m[w.key]) == 0 {
		delete(m, w.key)
	}
}

// publish hands the changes of one commit out. It does not wait for anybody.
func (h *hub) publish(changes []change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.keys) == 0 && len(h.trees) == 0 {
		return
	}
	for i := range changes {
		c := &changes[i]
		if c.silent {
			continue
		}
		h.keys[c.key].push(c)
		h.trees[""].push(c)
		// The work is that of the depth of the key, not that of the number of
		// watchers elsewhere.
		for at := 0; ; {
			slash := strings.IndexByte(c.key[at:], '/')
			if slash < 0 {
				break
			}
			at += slash + 1
			h.trees[c.key[:at]].push(c)
		}
	}
}

// fail ends every watch with an error: it is not known what has changed.
func (h *hub) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range []map[string]watchers{h.keys, h.trees} {
		for _, ws := range m {
			for w := range ws {
				w.fail(err)
			}
		}
	}
}

func (ws watchers) push(c *change) {
	for w := range ws {
		w.push(c)
	}
}

// watcher holds what one watch has not taken yet: the last change of each key,
// in the order of the commits.
type watcher struct {
	key  string
	tree bool
	wake chan struct{} // holds a token when there is something to take

	mu      sync.Mutex
	pending []change
	index   map[string]int // where the last change of a key is in pending
	err     error
}

// push adds a change and forgets an earlier one of the same key.
func (w *watcher) push(c *change) {
	w.mu.Lock()
	if i, ok := w.index[c.key]; ok {
		w.pending[i] = change{}
	}
	w.index[c.key] = len(w.pending)
	w.pending = append(w.pending, *c)
	if len(w.pending) > 2*len(w.index)+64 {
		w.compact()
	}
	w.mu.Unlock()
	w.signal()
}

// compact removes what was forgotten, so that memory is bounded by the number
// of keys, however slow the watch is.
func (w *watcher) compact() {
	kept := w.pending[:0]
	for _, c := range w.pending {
		if c.seq != 0 {
			w.index[c.key] = len(kept)
			kept = append(kept, c)
		}
	}
	clear(w.pending[len(kept):])
	w.pending = kept
}

func (w *watcher) fail(err error) {
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
	w.signal()
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns what is pending; changes with seq 0 were forgotten. The slice
// that the last call returned is given back in spare.
func (w *watcher) take(spare []change) ([]change, error) {
	clear(spare)
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.pending
	w.pending = spare[:0]
	clear(w.index)
	return out, w.err
}
