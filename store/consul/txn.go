package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"

	"github.com/hashicorp/consul/api"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// op is an operation of a transaction. The client's own type sends each field that
// has no value, too, which costs a write a tenth of its time.
type op struct {
	Verb                 api.KVOp
	Key                  string
	Value                []byte `json:",omitempty"`
	Flags, Index         uint64 `json:",omitempty"`
	Session              string `json:",omitempty"`
	Namespace, Partition string `json:",omitempty"`
}

// check is an operation that only looks at a key, or deletes it.
func check(verb api.KVOp, key string, index uint64) op {
	return op{Verb: verb, Key: key, Index: index}
}

// results are those of the operations that have one: a delete has none.
type results []struct{ KV api.KVPair }

// txn applies all operations or none. All that it writes gets the same index.
// Errors are mapped; that a condition does not hold is a *conflict.
func (d *driver) txn(ctx context.Context, ops ...op) (results, error) {
	return d.transact(ctx, true, "", ops)
}

// readTxn is a transaction that only reads.
func (d *driver) readTxn(ctx context.Context, mode string, o op) (results, error) {
	return d.transact(ctx, false, mode, []op{o})
}

func (d *driver) transact(ctx context.Context, write bool, mode string, ops []op) (results, error) {
	type kv struct{ KV op }
	request := make([]kv, len(ops))
	for i, o := range ops {
		o.Namespace, o.Partition = d.opts.Namespace, d.opts.Partition
		request[i] = kv{o}
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "/v1/txn", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = d.query(mode)
	resp, err := d.transport.RoundTrip(req)
	if err != nil {
		return nil, mapError(ctx, err, write)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound { // a reverse proxy's
		return nil, foreign(resp.Status)
	}
	var answer struct {
		Results results
		Errors  api.TxnErrors
	}
	if b, err := io.ReadAll(resp.Body); err != nil {
		return nil, mapError(ctx, err, write)
	} else if err := json.Unmarshal(b, &answer); err != nil {
		return nil, mapError(ctx, fmt.Errorf("answer to a transaction: %w", err), write)
	}
	if resp.StatusCode != http.StatusOK || len(answer.Errors) > 0 {
		return nil, conflictError(answer.Errors)
	}
	return answer.Results, nil
}

// indexOf runs a transaction that writes and returns its index.
func (d *driver) indexOf(ctx context.Context, ops ...op) (uint64, error) {
	results, err := d.txn(ctx, ops...)
	switch {
	case err != nil:
		return 0, err
	case len(results) == 0:
		return 0, store.Wrap(valkeyrie.ErrAmbiguous, errFiltered)
	}
	return results[len(results)-1].KV.ModifyIndex, nil
}

// put writes a key; with a session the key belongs to that, without one to none
// any more. Writing what is there already would not change the index, so that
// each write has other flags.
func (d *driver) put(ctx context.Context, w store.Write, session string) (uint64, error) {
	set := op{Verb: api.KVSet, Key: w.Key, Value: w.Value, Flags: rand.Uint64(), Session: session}
	if session != "" {
		set.Verb = api.KVLock
	} else {
		// Most keys belong to no session. A delete, which takes a key out of any,
		// costs more and leaves a tombstone, which lists and watches pass over.
		index, err := d.putUnowned(ctx, w, set)
		c := asConflict(err)
		switch {
		case c == nil:
			return index, err
		case w.Create:
			return 0, store.Wrap(valkeyrie.ErrKeyExists, c)
		case !c.failed(1):
			return 0, store.Wrap(valkeyrie.ErrKeyModified, c) // it is there, and belongs to no session
		}
	}
	var index uint64
	var err error
	switch {
	case w.Create:
		index, err = d.indexOf(ctx, check(api.KVCheckNotExists, w.Key, 0), set)
	case w.IfRevision != 0:
		index, err = d.indexOf(ctx, check(api.KVCheckIndex, w.Key, w.IfRevision), check(api.KVDeleteCAS, w.Key, w.IfRevision), set)
	default:
		index, err = d.batches.apply(ctx, check(api.KVDelete, w.Key, 0), set)
	}
	if c := asConflict(err); c != nil {
		err = refusal(w, c)
	}
	return index, err
}

// putUnowned writes a key on the condition that it belongs to no session, its
// second operation.
func (d *driver) putUnowned(ctx context.Context, w store.Write, set op) (uint64, error) {
	unowned := check(api.KVCheckSession, w.Key, 0)
	switch {
	case w.Create:
		set.Verb = api.KVCAS // with index 0: the key is absent
		return d.indexOf(ctx, set)
	case w.IfRevision != 0:
		set.Verb, set.Index = api.KVCAS, w.IfRevision
		return d.indexOf(ctx, set, unowned)
	}
	return d.batches.apply(ctx, set, unowned)
}

// refusal says which condition of a write did not hold.
func refusal(w store.Write, c *conflict) error {
	switch {
	case w.Create && c.failed(0):
		return store.Wrap(valkeyrie.ErrKeyExists, c)
	case w.IfRevision != 0 && c.failed(1): // deleting what is not there succeeds
		return store.Wrap(valkeyrie.ErrKeyModified, c)
	case w.IfRevision != 0 && c.failed(0):
		return store.Wrap(valkeyrie.ErrKeyNotFound, c)
	}
	return store.Wrap(errLockRefused, c)
}
