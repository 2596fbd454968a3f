package local

import (
	"context"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// Watch reports a snapshot and then what changes.
//
// It registers first and looks second. Whatever was committed before the view
// is in the snapshot, and every change that is not in it is published after the
// registration. What is in both is told by its revision, as the view knows the
// last one that it contains.
func (d *Driver) Watch(ctx context.Context, r store.WatchRequest, sink store.Sink) error {
	w := d.db.hub.add(r.Key, r.Tree)
	defer d.db.hub.remove(w)
	seen, err := d.snapshot(ctx, r, sink)
	if err != nil {
		return err
	}
	var changes []change
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.done:
			return valkeyrie.ErrClosed
		case <-w.wake:
		}
		if changes, err = w.take(changes); err != nil {
			return err
		}
		for i := range changes {
			c := &changes[i]
			switch {
			case c.seq <= seen: // in the snapshot, or forgotten
			case c.deleted:
				sink.Delete(c.key)
			default:
				sink.Put(pair(c.key, &c.record, r.KeysOnly))
			}
		}
	}
}

// snapshot reports what is there. It returns the revision up to which changes
// are in it.
func (d *Driver) snapshot(ctx context.Context, r store.WatchRequest, sink store.Sink) (uint64, error) {
	if err := d.ended(ctx); err != nil {
		return 0, err
	}
	view, err := d.db.storage.View()
	if err != nil {
		return 0, err
	}
	defer view.Close()

	put := func(key string, rec Record, e error) bool {
		if err = e; err == nil {
			err = d.ended(ctx)
		}
		if err == nil && d.db.expiries.alive(key, rec.Revision, rec.Expires) {
			sink.Put(pair(key, &rec, r.KeysOnly))
		}
		return err == nil
	}
	sink.Begin()
	if r.Tree {
		view.Scan(r.Key, r.Key, put)
	} else if rec, found, e := view.Get(r.Key); found || e != nil {
		put(r.Key, rec, e)
	}
	if err != nil {
		return 0, err
	}
	sink.Synced()
	return view.Revision(), nil
}
