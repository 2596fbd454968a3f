package dynamodb

import (
	"container/heap"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// Watch implements store.Driver: a snapshot, and then the state of each key of
// which the table's stream, or the end of its TTL, says that it may have changed.
// These are only hints, so that records that are late, early or repeated do no
// harm. Without a stream another snapshot is taken at every interval.
func (d *driver) Watch(ctx context.Context, r store.WatchRequest, sink store.Sink) error {
	var err error
	if r.Tree {
		err = d.ready(ctx)
	} else {
		err = d.enter(ctx, r.Key)
	}
	if err != nil {
		return err
	}
	hints, err := d.subscribe(ctx, r) // before the snapshot, so that nothing falls between
	if err != nil {
		return err
	}
	defer hints.close()
	w := watch{d: d, r: r, sink: sink, hints: hints, expires: make(map[string]int64)}
	for {
		if err := w.snapshot(ctx); err != nil {
			return err
		}
		if err := w.follow(ctx); err != nil {
			return err
		}
	}
}

// watch is one run of Watch.
type watch struct {
	d     *driver
	r     store.WatchRequest
	sink  store.Sink
	hints *subscription

	expires map[string]int64 // when the keys that expire do
	due     dueKeys          // the same in order; entries that expires does not have are outdated
}

// snapshot reports all there is.
func (w *watch) snapshot(ctx context.Context) error {
	w.sink.Begin()
	clear(w.expires)
	w.due = nil
	if w.r.Tree {
		for i, err := range w.d.items(ctx, w.r.Key, valkeyrie.ReadOptions{KeysOnly: w.r.KeysOnly}) {
			if err != nil {
				return err
			}
			w.exists(i)
		}
	} else {
		i, err := w.d.get(ctx, w.r.Key, valkeyrie.ReadOptions{KeysOnly: w.r.KeysOnly})
		if err != nil {
			return err
		}
		w.exists(i)
	}
	w.sink.Synced()
	return nil
}

// exists reports an item and tells whether there is one.
func (w *watch) exists(i *item) bool {
	if i == nil || i.expired(time.Now()) {
		return false
	}
	if i.expires == 0 {
		delete(w.expires, i.key)
	} else if i.expires != w.expires[i.key] {
		w.expires[i.key] = i.expires
		heap.Push(&w.due, dueKey{i.key, i.expires})
	}
	w.sink.Put(i.pair(w.r.KeysOnly))
	return true
}

// follow reports changes until the next snapshot is due.
func (w *watch) follow(ctx context.Context) error {
	again, stop := w.hints.poll()
	defer stop()
	for {
		expiry := time.NewTimer(w.untilDue())
		select {
		case <-again:
			expiry.Stop()
			return nil
		case <-w.hints.ready:
		case <-expiry.C:
		case <-w.hints.ended():
			expiry.Stop()
			return w.hints.err()
		case <-ctx.Done():
			expiry.Stop()
			return ctx.Err()
		}
		expiry.Stop()
		keys, all := w.hints.take()
		if all {
			return nil
		}
		w.addDue(keys)
		if err := w.look(ctx, slices.Collect(maps.Keys(keys))); err != nil {
			return err
		}
	}
}

// look reports the state of keys as it is now.
func (w *watch) look(ctx context.Context, keys []string) error {
	var items map[string]*item
	var err error
	if len(keys) == 1 {
		var i *item
		i, err = w.d.get(ctx, keys[0], valkeyrie.ReadOptions{KeysOnly: w.r.KeysOnly})
		items = map[string]*item{keys[0]: i}
	} else {
		items, err = w.d.getAll(ctx, keys, w.r.KeysOnly)
	}
	if err != nil {
		return err
	}
	for _, key := range keys {
		if !w.exists(items[key]) {
			delete(w.expires, key)
			w.sink.Delete(key)
		}
	}
	return nil
}

// untilDue is how long it is until the first TTL is over.
func (w *watch) untilDue() time.Duration {
	for len(w.due) > 0 && w.expires[w.due[0].key] != w.due[0].at {
		heap.Pop(&w.due)
	}
	if len(w.due) == 0 {
		return time.Hour
	}
	return min(time.Until(time.UnixMilli(w.due[0].at)), time.Hour)
}

// addDue adds the keys whose TTL is over. They are looked at like others, as it
// may have been renewed.
func (w *watch) addDue(keys map[string]struct{}) {
	for now := time.Now().UnixMilli(); len(w.due) > 0 && w.due[0].at <= now; {
		d := heap.Pop(&w.due).(dueKey)
		if w.expires[d.key] == d.at {
			delete(w.expires, d.key)
			keys[d.key] = struct{}{}
		}
	}
}

// dueKey is when a key expires, in Unix milliseconds.
type dueKey struct {
	key string
	at  int64
}

// dueKeys is a heap of them, the first on top.
type dueKeys []dueKey

func (q dueKeys) Len() int           { return len(q) }
func (q dueKeys) Less(i, j int) bool { return q[i].at < q[j].at }
func (q dueKeys) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *dueKeys) Push(x any) { *q = append(*q, x.(dueKey)) }

// Pop implements heap.Interface.
func (q *dueKeys) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	*q = (*q)[:last]
	return d
}
