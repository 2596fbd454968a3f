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

	expiries expiries

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
	w := &watcher{d: d, ctx: ctx, r: r, sink: sink, marked: make(map[string]struct{}), wake: make(chan struct{}, 1)}
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
	expiry := time.NewTimer(w.expiries.next(time.Now()))
	defer expiry.Stop()
	for {
		var err error
		select {
		case <-all.C:
			err = w.readAll()
			all.Reset(interval)
		case <-w.wake:
			err = w.readMarked()
		case <-expiry.C:
			for _, key := range w.expiries.due(time.Now()) {
				w.mark(key)
			}
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
		expiry.Reset(w.expiries.next(time.Now()))
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
	poke(w.wake)
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
			w.expiries.set(s.key, time.Time{})
			gone(s.key)
			continue
		}
		w.put(s)
	}
	return err
}

// put reports a key that is there and notes when it expires. Redis tells of an
// expiry when it deletes the key, which may be long after the TTL, unless
// somebody reads it: this watch does.
func (w *watcher) put(s state) {
	due := time.Time{}
	if s.ttl > 0 {
		due = time.Now().Add(s.ttl + time.Millisecond)
	}
	w.expiries.set(s.key, due)
	w.sink.Put(s.pair)
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
