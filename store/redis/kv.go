package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// bulkValue is the size in bytes from which a value goes over the connection for
// what moves much data, so that small calls do not wait behind it.
const bulkValue = 256 << 10

// milliseconds is a TTL as Redis takes it.
func milliseconds(ttl time.Duration) int64 {
	return store.RoundUp(ttl, time.Millisecond).Milliseconds()
}

// Get implements store.Driver. A primary answers in any case: AllowStale saves
// nothing.
func (d *driver) Get(ctx context.Context, key string, opts valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	if opts.KeysOnly {
		return d.getRevision(ctx, key)
	}
	reply, err := d.do(ctx, true, key, "GET", key)
	if err != nil {
		return nil, getError(key, err)
	}
	stored, ok := reply.([]byte)
	if !ok {
		return nil, valkeyrie.ErrKeyNotFound
	}
	value, revision, err := decode(key, stored)
	if err != nil {
		return nil, err
	}
	return &valkeyrie.KVPair{Key: key, Value: value, LastIndex: revision}, nil
}

// getError maps the error of a read of one key.
func getError(key string, err error) error {
	if isCode(err, "WRONGTYPE") {
		return fmt.Errorf("%w: %w", corrupt(key, "it is not a string"), err)
	}
	return readError(err)
}

// getRevision reads a key without its value: the header is enough, but for
// strings of other tools.
func (d *driver) getRevision(ctx context.Context, key string) (*valkeyrie.KVPair, error) {
	reply, err := d.do(ctx, true, key, "GETRANGE", key, 0, headerSize-1)
	if err != nil {
		return nil, getError(key, err)
	}
	head, _ := reply.([]byte)
	if hasMagic(head) {
		revision, err := decodeHeader(key, head)
		if err != nil {
			return nil, err
		}
		return &valkeyrie.KVPair{Key: key, LastIndex: revision}, nil
	}
	p, err := d.Get(ctx, key, valkeyrie.ReadOptions{})
	if err != nil {
		return nil, err
	}
	p.Value = nil
	return p, nil
}

// Write implements store.Driver.
func (d *driver) Write(ctx context.Context, w store.Write) (store.Written, error) {
	stored, revision := encode(w.Value, d.opts.PlainStrings)
	bulk := len(stored) >= bulkValue
	if w.IfRevision != 0 {
		outcome, err := d.run(ctx, updateScript, []string{w.Key}, bulk, revisionBytes(w.IfRevision), stored, milliseconds(w.TTL))
		if err = conditional(outcome, err); err != nil {
			return store.Written{}, err
		}
		return store.Written{Revision: revision}, nil
	}
	var c *call
	switch {
	case w.Create && w.TTL != 0:
		c = newCall(false, "SET", w.Key, stored, "NX", "PX", milliseconds(w.TTL))
	case w.Create:
		c = newCall(false, "SET", w.Key, stored, "NX")
	case w.TTL != 0:
		c = newCall(false, "SET", w.Key, stored, "PX", milliseconds(w.TTL))
	default:
		c = newCall(false, "SET", w.Key, stored)
	}
	reply, err := d.send(ctx, w.Key, bulk, c)
	switch {
	case err != nil:
		return store.Written{}, writeError(err)
	case reply == nil: // NX found it there
		return store.Written{}, valkeyrie.ErrKeyExists
	}
	return store.Written{Revision: revision}, nil
}

// conditional maps the outcome of a script that acts on one condition.
func conditional(outcome int64, err error) error {
	switch {
	case err != nil:
		return err
	case outcome == absent:
		return valkeyrie.ErrKeyNotFound
	case outcome == modified:
		return valkeyrie.ErrKeyModified
	}
	return nil
}

// Delete implements store.Driver.
func (d *driver) Delete(ctx context.Context, key string, ifRevision uint64) error {
	if ifRevision != 0 {
		outcome, err := d.run(ctx, deleteScript, []string{key}, false, revisionBytes(ifRevision))
		return conditional(outcome, err)
	}
	reply, err := d.do(ctx, false, key, "DEL", key)
	switch {
	case err != nil:
		return writeError(err)
	case reply == int64(0):
		return valkeyrie.ErrKeyNotFound
	}
	return nil
}

// Renew implements store.Driver.
func (d *driver) Renew(ctx context.Context, key string, revision uint64, ttl time.Duration) (store.Written, error) {
	outcome, err := d.run(ctx, renewScript, []string{key}, false, revisionBytes(revision), milliseconds(ttl))
	if err = conditional(outcome, err); err != nil {
		return store.Written{}, err
	}
	return store.Written{Revision: revision}, nil
}
