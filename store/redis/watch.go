package redis

import (
	"context"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// watcher is one watch: which keys have to be read again, and when keys expire.
type watcher struct {
	d    *driver
	ctx  context.Context
	r    store.WatchRequest
	sink store.Sink

	timers map[string]*time.Timer // by key: marks it when it expires

	mu     sync.Mutex
	marked map[string]struct{}
	wake   chan struct{} // capacity 1: something was marked
}

// Watch implements store.Driver. It subscribes first and reads second. A
// notification is only a hint that a key has to be read again, so it does not
// matter if there are more of them than changes, or when they come; that none
// comes too few is why everything is read again now and then.
func (d *driver) Watch(ctx context.Context, r store.WatchRequest, sink store.Sink) error {
	f, err := d.hub.feed(ctx)
	if err != nil {
		return readError(err)
	}
	w := &watcher{d: d, ctx: ctx, r: r, sink: sink, timers: make(map[string]*time.Timer), marked: make(map[string]struct{}), wake: make(chan struct{}, 1)}
	defer func() {
		for _, t := range w.timers {
			t.Stop()
		}
	}()
	name := d.channelOf(r.Key)
	if r.Tree {
		name = d.channelOf("")
		name = glob(name + r.Key)
	}
	defer f.unsubscribe(w, name)
	told := !f.polled
	if err := f.subscribe(ctx, w, name, r.Tree); err != nil {
		if !isCode(err, "NOPERM") {
			return readError(err)
		}
		told = false // the server's ACL forbids the channel
		d.log.Warn("no right to the channel of notifications: this watch polls", "key", r.Key, "interval", d.opts.PollInterval, "error", err)
	}
	interval := d.opts.ResyncInterval
	if !told {
		interval = d.opts.PollInterval
	}
	return w.follow(f, interval)
}

// follow reads everything, then what is marked, and everything again at the interval.
func (w *watcher) follow(f *feed, interval time.Duration) error {
	if err := w.readAll(); err != nil { // a watch begins with a snapshot, whatever is marked
		return err
	}
	all := time.NewTimer(interval)
	defer all.Stop()
	for {
		var err error
		select {
		case <-all.C:
			err = w.readAll()
			all.Reset(interval)
		case <-w.wake:
			err = w.readMarked()
		case <-f.over:
			return readError(f.overErr)
		case <-w.d.ctx.Done():
			return valkeyrie.ErrClosed
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// mark notes that a key has to be read again.
func (w *watcher) mark(key string) {
	if w.r.Tree && isReserved(key) {
		return
	}
	w.mu.Lock()
	w.marked[key] = struct{}{}
	w.mu.Unlock()
	store.Poke(w.wake)
}

// takeMarked returns what has to be read again.
func (w *watcher) takeMarked() []any {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys := make([]any, 0, len(w.marked))
	for key := range w.marked {
		keys = append(keys, key)
	}
	clear(w.marked)
	return keys
}

// readAll reports a snapshot.
func (w *watcher) readAll() error {
	w.sink.Begin()
	if w.r.Tree {
		walk := walk{d: w.d, ctx: w.ctx, dir: w.r.Key, keysOnly: w.r.KeysOnly, withTTL: true, take: func(s state) bool {
			if s.pair != nil {
				w.put(s)
			}
			return true
		}}
		if err := walk.run(); err != nil {
			return err
		}
	} else if err := w.readSome([]any{w.r.Key}, func(string) {}); err != nil {
		return err
	}
	w.sink.Synced()
	return nil
}

// readMarked reports the keys that were marked.
func (w *watcher) readMarked() error {
	keys := w.takeMarked()
	for len(keys) > 0 {
		n := min(len(keys), firstKeys)
		if err := w.readSome(keys[:n], w.sink.Delete); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// readSome reports the states of some keys.
func (w *watcher) readSome(keys []any, gone func(key string)) error {
	states, err := w.d.readKeys(w.ctx, keys, w.r.KeysOnly)
	for _, s := range states {
		if s.pair == nil {
			w.expires(s.key, 0)
			gone(s.key)
			continue
		}
		w.put(s)
	}
	return err
}

// put reports a key that is there.
func (w *watcher) put(s state) {
	w.expires(s.key, s.ttl)
	w.sink.Put(s.pair)
}

// expires sees to it that a key is read again when it expires; 0: never. Redis tells
// of an expiry when it deletes the key, which may be long after the TTL, unless
// somebody reads it.
func (w *watcher) expires(key string, ttl time.Duration) {
	t := w.timers[key]
	switch {
	case ttl == 0 && t != nil:
		t.Stop()
		delete(w.timers, key)
	case ttl == 0:
	case t != nil:
		t.Reset(ttl + time.Millisecond)
	default:
		w.timers[key] = time.AfterFunc(ttl+time.Millisecond, func() { w.mark(key) })
	}
}

// readKeys reads some keys with their TTLs, each from the server that has it.
func (d *driver) readKeys(ctx context.Context, keys []any, keysOnly bool) ([]state, error) {
	var states []state
	for s, own := range d.servers.split(keys) {
		r, err := d.startRead(ctx, s, own, keysOnly, true)
		if err != nil {
			return states, err
		}
		some, err := r.states(ctx)
		states = append(states, some...)
		if err != nil {
			return states, err
		}
	}
	return states, nil
}
