package etcdv3

import (
	"context"
	"errors"
	"iter"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

const (
	// firstPage and largestPage bound how many pairs one request reads; pages
	// after one with large values are made smaller, towards pageBytes.
	firstPage   = 1000
	largestPage = 2000
	pageBytes   = 4 << 20
)

// pair makes a pair of what etcd answers.
func pair(kv *mvccpb.KeyValue, keysOnly bool) *valkeyrie.KVPair {
	p := &valkeyrie.KVPair{Key: string(kv.Key), LastIndex: uint64(kv.ModRevision)}
	if !keysOnly {
		p.Value = kv.Value
		if p.Value == nil {
			p.Value = []byte{}
		}
	}
	return p
}

// readOptions translates options of reads.
func readOptions(opts valkeyrie.ReadOptions, more ...clientv3.OpOption) []clientv3.OpOption {
	if opts.AllowStale {
		more = append(more, clientv3.WithSerializable())
	}
	if opts.KeysOnly {
		more = append(more, clientv3.WithKeysOnly())
	}
	return more
}

// end is where the range of the keys that begin with prefix ends; "\x00", which
// means "the last key", for all keys.
func end(prefix string) string { return clientv3.GetPrefixRangeEnd(prefix) }

// from is where that range starts.
func from(prefix string) string {
	if prefix == "" {
		return "\x00" // etcd knows no empty key
	}
	return prefix
}

// Get implements store.Driver.
func (d *driver) Get(ctx context.Context, key string, opts valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	c, err := d.client(ctx)
	if err != nil {
		return nil, err
	}
	r, err := c.Get(ctx, key, readOptions(opts)...)
	switch {
	case err != nil:
		return nil, readError(err)
	case len(r.Kvs) == 0:
		return nil, valkeyrie.ErrKeyNotFound
	}
	return pair(r.Kvs[0], opts.KeysOnly), nil
}

// Walk implements store.Driver. All pages are read at the revision of the first
// one; only when that was compacted meanwhile the rest is read as it is then.
func (d *driver) Walk(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		c, err := d.client(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		next, last := from(dir), ""
		for {
			_, err := pages(ctx, c, next, end(dir), opts, func(p *valkeyrie.KVPair) bool {
				last = p.Key
				return yield(p, nil)
			})
			if errors.Is(err, rpctypes.ErrCompacted) {
				if last != "" {
					next = last + "\x00"
				}
				continue
			}
			if err != nil {
				yield(nil, err)
			}
			return
		}
	}
}

// pages calls yield with every pair of a range, all read at one revision, until
// it returns false, and returns that revision. rpctypes.ErrCompacted: the
// revision was compacted in the middle.
func pages(ctx context.Context, c *clientv3.Client, next, end string, opts valkeyrie.ReadOptions, yield func(*valkeyrie.KVPair) bool) (int64, error) {
	limit, revision := int64(firstPage), int64(0)
	for {
		r, err := c.Get(ctx, next, readOptions(opts, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(revision))...)
		if err != nil {
			return 0, readError(err)
		}
		if revision == 0 {
			revision = r.Header.Revision
		}
		size := 0
		for _, kv := range r.Kvs {
			size += len(kv.Value) + len(kv.Key)
			if !yield(pair(kv, opts.KeysOnly)) {
				return revision, nil
			}
		}
		if !r.More || len(r.Kvs) == 0 {
			return revision, nil
		}
		next = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
		limit = max(1, min(largestPage, int64(pageBytes/(size/len(r.Kvs)+1))))
	}
}

// Write implements store.Driver: one request, after one for a lease where the
// write needs one that it cannot share.
func (d *driver) Write(ctx context.Context, w store.Write) (store.Written, error) {
	c, err := d.client(ctx)
	if err != nil {
		return store.Written{}, err
	}
	if w.TTL == 0 {
		return d.put(ctx, c, w)
	}
	if w.KeepAlive {
		return d.writeKeptAlive(ctx, c, w)
	}
	return d.writeShared(ctx, c, w)
}

// put writes a key in one request.
func (d *driver) put(ctx context.Context, c *clientv3.Client, w store.Write, opts ...clientv3.OpOption) (store.Written, error) {
	op := clientv3.OpPut(w.Key, string(w.Value), opts...)
	if !w.Create && w.IfRevision == 0 {
		r, err := write(ctx, func(ctx context.Context) (clientv3.OpResponse, error) { return c.Do(ctx, op) })
		if err != nil {
			return store.Written{}, err
		}
		return store.Written{Revision: uint64(r.Put().Header.Revision)}, nil
	}
	if w.Create {
		r, err := txn(ctx, c, clientv3.Compare(clientv3.CreateRevision(w.Key), "=", 0), op)
		switch {
		case err != nil:
			return store.Written{}, err
		case !r.Succeeded:
			return store.Written{}, valkeyrie.ErrKeyExists
		}
		return store.Written{Revision: uint64(r.Header.Revision)}, nil
	}
	r, err := ifRevision(ctx, c, w.Key, w.IfRevision, op)
	if err != nil {
		return store.Written{}, err
	}
	return store.Written{Revision: uint64(r.Header.Revision)}, nil
}

// txn runs an operation under one condition.
func txn(ctx context.Context, c *clientv3.Client, condition clientv3.Cmp, then clientv3.Op, otherwise ...clientv3.Op) (*clientv3.TxnResponse, error) {
	return write(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return c.Txn(ctx).If(condition).Then(then).Else(otherwise...).Commit()
	})
}

// ifRevision runs an operation if the key is at a revision. A failed condition
// alone does not tell whether the key is at another one or gone: its else does.
func ifRevision(ctx context.Context, c *clientv3.Client, key string, revision uint64, then clientv3.Op) (*clientv3.TxnResponse, error) {
	r, err := txn(ctx, c, clientv3.Compare(clientv3.ModRevision(key), "=", int64(revision)), then, clientv3.OpGet(key, clientv3.WithKeysOnly()))
	switch {
	case err != nil:
		return nil, err
	case r.Succeeded:
		return r, nil
	case len(r.Responses[0].GetResponseRange().Kvs) == 0:
		return nil, valkeyrie.ErrKeyNotFound
	}
	return nil, valkeyrie.ErrKeyModified
}

// Delete implements store.Driver.
func (d *driver) Delete(ctx context.Context, key string, revision uint64) error {
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	if revision != 0 {
		_, err = ifRevision(ctx, c, key, revision, clientv3.OpDelete(key))
		return err
	}
	r, err := write(ctx, func(ctx context.Context) (*clientv3.DeleteResponse, error) { return c.Delete(ctx, key) })
	switch {
	case err != nil:
		return err
	case r.Deleted == 0:
		return valkeyrie.ErrKeyNotFound
	}
	return nil
}

// DeleteTree implements store.Driver, in one atomic request. It leaves out the
// line of waiters of a lock whose key is the directory's own name, which is not
// below the directory.
func (d *driver) DeleteTree(ctx context.Context, dir string) error {
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	own := dir + store.Reserved + "/"
	r, err := write(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return c.Txn(ctx).Then(
			clientv3.OpDelete(dir, clientv3.WithRange(own)),
			clientv3.OpDelete(end(own), clientv3.WithRange(end(dir))),
		).Commit()
	})
	if err != nil {
		return err
	}
	deleted := int64(0)
	for _, answer := range r.Responses {
		deleted += answer.GetResponseDeleteRange().Deleted
	}
	if deleted == 0 {
		return valkeyrie.ErrKeyNotFound
	}
	return nil
}

// Renew implements store.Driver.
func (d *driver) Renew(ctx context.Context, key string, revision uint64, _ time.Duration) (store.Written, error) {
	c, err := d.client(ctx)
	if err != nil {
		return store.Written{}, err
	}
	return d.renewKeptAlive(ctx, c, key, revision)
}
