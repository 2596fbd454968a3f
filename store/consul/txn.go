package consul

import (
	"context"
	"math/rand/v2"

	"github.com/hashicorp/consul/api"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// check is an operation that only looks at a key.
func check(verb api.KVOp, key string, index uint64) *api.KVTxnOp {
	return &api.KVTxnOp{Verb: verb, Key: key, Index: index}
}

// txn applies all operations or none. All that it writes gets the same index.
// Errors are mapped; that a condition does not hold is a *conflict.
func (d *driver) txn(ctx context.Context, ops ...*api.KVTxnOp) (api.TxnResults, error) {
	return d.transact(ctx, true, new(api.QueryOptions), ops)
}

// readTxn is a transaction that only reads.
func (d *driver) readTxn(ctx context.Context, stale bool, op *api.KVTxnOp) (api.TxnResults, error) {
	return d.transact(ctx, false, &api.QueryOptions{AllowStale: stale, RequireConsistent: !stale}, []*api.KVTxnOp{op})
}

func (d *driver) transact(ctx context.Context, write bool, q *api.QueryOptions, ops []*api.KVTxnOp) (api.TxnResults, error) {
	request := make(api.TxnOps, len(ops))
	for i, op := range ops {
		op.Namespace, op.Partition = d.opts.Namespace, d.opts.Partition
		request[i] = &api.TxnOp{KV: op}
	}
	ok, answer, _, err := d.client.Txn().Txn(request, q.WithContext(ctx))
	switch {
	case err != nil:
		return nil, mapError(ctx, err, write)
	case !ok:
		return nil, conflictError(answer.Errors)
	}
	return answer.Results, nil
}

// indexOf runs a transaction that writes and returns its index.
func (d *driver) indexOf(ctx context.Context, ops ...*api.KVTxnOp) (uint64, error) {
	results, err := d.txn(ctx, ops...)
	switch {
	case err != nil:
		return 0, err
	case len(results) == 0:
		return 0, wrap(valkeyrie.ErrAmbiguous, errFiltered)
	}
	return results[len(results)-1].KV.ModifyIndex, nil
}

// put writes a key; with a session the key belongs to that, without one to none
// any more. Writing what is there already would not change the index, so that
// each write has other flags.
func (d *driver) put(ctx context.Context, w store.Write, session string) (uint64, error) {
	set := api.KVTxnOp{Verb: api.KVSet, Key: w.Key, Value: w.Value, Flags: rand.Uint64(), Session: session}
	if session != "" {
		set.Verb = api.KVLock
	} else if !w.Create {
		index, err := d.putUnowned(ctx, w, set)
		c := asConflict(err)
		switch {
		case c == nil:
			return index, err
		case !c.failed(1):
			return 0, wrap(valkeyrie.ErrKeyModified, c) // it is there, and belongs to no session
		}
	}
	// Deleting it in the same transaction takes it out of any session.
	var ops []*api.KVTxnOp
	switch {
	case w.Create:
		ops = []*api.KVTxnOp{check(api.KVCheckNotExists, w.Key, 0), &set}
	case w.IfRevision != 0:
		ops = []*api.KVTxnOp{check(api.KVCheckIndex, w.Key, w.IfRevision), check(api.KVDeleteCAS, w.Key, w.IfRevision), &set}
	default:
		ops = []*api.KVTxnOp{check(api.KVDelete, w.Key, 0), &set}
	}
	index, err := d.indexOf(ctx, ops...)
	if c := asConflict(err); c != nil {
		err = refusal(w, c)
	}
	return index, err
}

// putUnowned writes a key on the condition that it belongs to no session, its
// second operation, as most keys do not: a delete costs more and leaves a
// tombstone, which lists and watches have to pass over.
func (d *driver) putUnowned(ctx context.Context, w store.Write, set api.KVTxnOp) (uint64, error) {
	if w.IfRevision != 0 {
		set.Verb, set.Index = api.KVCAS, w.IfRevision
	}
	return d.indexOf(ctx, &set, check(api.KVCheckSession, w.Key, 0))
}

// refusal says which condition of a write did not hold.
func refusal(w store.Write, c *conflict) error {
	switch {
	case w.Create && c.failed(0):
		return wrap(valkeyrie.ErrKeyExists, c)
	case w.IfRevision != 0 && c.failed(1): // deleting what is not there succeeds
		return wrap(valkeyrie.ErrKeyModified, c)
	case w.IfRevision != 0 && c.failed(0):
		return wrap(valkeyrie.ErrKeyNotFound, c)
	}
	return wrap(errLockRefused, c)
}
