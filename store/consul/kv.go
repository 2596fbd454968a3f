package consul

import (
	"context"
	"errors"
	"iter"

	"github.com/hashicorp/consul/api"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// pair makes a pair of what Consul answers.
func pair(kv *api.KVPair, keysOnly bool) *valkeyrie.KVPair {
	p := &valkeyrie.KVPair{Key: kv.Key, LastIndex: kv.ModifyIndex}
	if !keysOnly {
		p.Value = kv.Value
		if p.Value == nil {
			p.Value = []byte{}
		}
	}
	return p
}

// Get implements store.Driver.
func (d *driver) Get(ctx context.Context, key string, opts valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	kv, err := d.get(ctx, key, opts.AllowStale)
	if err != nil {
		return nil, err
	}
	return pair(kv, opts.KeysOnly), nil
}

// get reads a key. One that cannot stand in a URL is read by a transaction, which
// costs more.
func (d *driver) get(ctx context.Context, key string, stale bool) (found *api.KVPair, err error) {
	if printable(key) != key {
		return d.getByTxn(ctx, key, stale)
	}
	_, err = d.list(ctx, listing{prefix: key, one: true, stale: stale}, func(kv *api.KVPair) bool {
		found = kv
		return true
	})
	if err == nil && found == nil {
		err = valkeyrie.ErrKeyNotFound
	}
	return found, err
}

func (d *driver) getByTxn(ctx context.Context, key string, stale bool) (*api.KVPair, error) {
	results, err := d.readTxn(ctx, mode(stale), check(api.KVGet, key, 0))
	switch c := asConflict(err); {
	case c != nil:
		return nil, store.Wrap(valkeyrie.ErrKeyNotFound, c)
	case err != nil:
		return nil, err
	case len(results) == 0:
		return nil, errFiltered
	}
	return &results[0].KV, nil
}

// Walk implements store.Driver: one request, whose answer is read as it comes.
func (d *driver) Walk(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		_, err := d.list(ctx, listing{prefix: dir, stale: opts.AllowStale}, func(kv *api.KVPair) bool {
			return yield(pair(kv, opts.KeysOnly), nil)
		})
		if err != nil && !errors.Is(err, errLeft) {
			yield(nil, err)
		}
	}
}

// Write implements store.Driver: one request. A key that belongs to a session and
// is written without TTL needs a second one, and a write with a TTL one for its
// session now and then.
func (d *driver) Write(ctx context.Context, w store.Write) (written store.Written, err error) {
	switch {
	case w.KeepAlive:
		written.Revision, err = d.writeKeptAlive(ctx, w)
		return written, err
	case w.TTL > 0:
		written.FrontExpires = true // the session alone would be late
		written.Revision, err = d.writeShared(ctx, w)
	default:
		written.Revision, err = d.put(ctx, w, "")
	}
	if err == nil {
		d.kept(w.Key, keptAlive{revision: written.Revision})
	}
	return written, err
}

// Delete implements store.Driver.
func (d *driver) Delete(ctx context.Context, key string, revision uint64) error {
	first, then := check(api.KVGet, key, 0), check(api.KVDelete, key, 0)
	if revision != 0 {
		first, then = check(api.KVCheckIndex, key, revision), check(api.KVDeleteCAS, key, revision)
	}
	_, err := d.txn(ctx, first, then)
	switch c := asConflict(err); {
	case c == nil:
		return err
	case c.failed(1):
		return store.Wrap(valkeyrie.ErrKeyModified, c)
	default:
		return store.Wrap(valkeyrie.ErrKeyNotFound, c)
	}
}

// DeleteTree implements store.Driver: it looks for a key, and deletes all on the
// condition that this one is still there, so that of two callers one succeeds.
func (d *driver) DeleteTree(ctx context.Context, dir string) error {
	for range deleteTreeTries {
		key, err := d.anyKey(ctx, dir)
		if err != nil {
			return err
		}
		_, err = d.txn(ctx, check(api.KVGet, key, 0), check(api.KVDeleteTree, dir, 0))
		if asConflict(err) == nil {
			return err
		}
	}
	_, err := d.txn(ctx, check(api.KVDeleteTree, dir, 0))
	return err
}

// deleteTreeTries bounds how often DeleteTree looks for a key. One whose name is
// not UTF-8, which only another tool can have made, is never found by its name.
const deleteTreeTries = 10
