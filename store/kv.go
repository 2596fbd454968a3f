package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/kvtools/valkeyrie"
)

// Put implements valkeyrie.Store.
func (s *front) Put(ctx context.Context, key string, value []byte, opts *valkeyrie.WriteOptions) error {
	wire, _, err := s.enter(ctx, key)
	if err == nil {
		_, err = s.write(ctx, Write{Key: wire, Value: value}, opts)
	}
	if err != nil {
		return s.fail(ctx, "Put", key, err)
	}
	return nil
}

// AtomicPut implements valkeyrie.Store.
func (s *front) AtomicPut(ctx context.Context, key string, value []byte, previous *valkeyrie.KVPair, opts *valkeyrie.WriteOptions) (bool, *valkeyrie.KVPair, error) {
	wire, normal, err := s.enter(ctx, key)
	var written Written
	switch {
	case err != nil:
	case previous == nil:
		written, err = s.write(ctx, Write{Key: wire, Value: value, Create: true}, opts)
	case previous.LastIndex == 0:
		err = s.neverStored(ctx, wire)
	default:
		written, err = s.write(ctx, Write{Key: wire, Value: value, IfRevision: previous.LastIndex}, opts)
	}
	if err != nil {
		return false, nil, s.fail(ctx, "AtomicPut", key, err)
	}
	return true, &valkeyrie.KVPair{Key: normal, Value: append([]byte{}, value...), LastIndex: written.Revision}, nil
}

// neverStored is the answer to a previous pair that no key ever had.
func (s *front) neverStored(ctx context.Context, wire string) error {
	if _, err := s.d.Get(ctx, wire, valkeyrie.ReadOptions{KeysOnly: true}); err != nil {
		return err
	}
	return valkeyrie.ErrKeyModified
}

// write checks the options, writes, and takes over the timing of the TTL.
func (s *front) write(ctx context.Context, w Write, opts *valkeyrie.WriteOptions) (Written, error) {
	if opts != nil {
		switch {
		case opts.TTL < 0:
			return Written{}, badOption(fmt.Sprintf("WriteOptions.TTL is %v; give a positive time, or 0 for a key that stays", opts.TTL))
		case opts.KeepAlive && opts.TTL == 0:
			return Written{}, badOption("WriteOptions.KeepAlive needs a TTL, which it renews; set WriteOptions.TTL")
		}
		w.TTL, w.KeepAlive = opts.TTL, opts.KeepAlive
	}
	if err := s.info.checkSize(w.Value); err != nil {
		return Written{}, err
	}
	begun := s.ttl.begin()
	written, err := s.d.Write(ctx, w)
	if err == nil {
		s.ttl.wrote(w, written, begun)
	}
	return written, err
}

// checkSize refuses values that the server does not take.
func (i Info) checkSize(value []byte) error {
	if i.MaxValue > 0 && len(value) > i.MaxValue {
		return fmt.Errorf("%w: %d bytes, the limit is %d", valkeyrie.ErrValueTooLarge, len(value), i.MaxValue)
	}
	return nil
}

// badOption makes an error of a bad option.
func badOption(what string) error {
	return &optionError{what}
}

// optionError says which option is bad.
type optionError struct{ what string }

func (e *optionError) Error() string { return valkeyrie.ErrInvalidOption.Error() + ": " + e.what }
func (e *optionError) Unwrap() error { return valkeyrie.ErrInvalidOption }

// Get implements valkeyrie.Store.
func (s *front) Get(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	wire, normal, err := s.enter(ctx, key)
	if err == nil {
		var p *valkeyrie.KVPair
		if p, err = s.d.Get(ctx, wire, given(opts)); err == nil {
			p.Key = normal
			return p, nil
		}
	}
	return nil, s.fail(ctx, "Get", key, err)
}

// given returns the options that a pointer stands for.
func given[T any](opts *T) (o T) {
	if opts != nil {
		o = *opts
	}
	return o
}

// Exists implements valkeyrie.Store.
func (s *front) Exists(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (bool, error) {
	wire, _, err := s.enter(ctx, key)
	if err == nil {
		o := given(opts)
		o.KeysOnly = true
		_, err = s.d.Get(ctx, wire, o)
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, valkeyrie.ErrKeyNotFound):
		return false, nil
	}
	return false, s.fail(ctx, "Exists", key, err)
}

// Delete implements valkeyrie.Store.
func (s *front) Delete(ctx context.Context, key string) error {
	wire, _, err := s.enter(ctx, key)
	if err == nil {
		err = s.d.Delete(ctx, wire, 0)
	}
	if err != nil {
		return s.fail(ctx, "Delete", key, err)
	}
	return nil
}

// AtomicDelete implements valkeyrie.Store.
func (s *front) AtomicDelete(ctx context.Context, key string, previous *valkeyrie.KVPair) (bool, error) {
	wire, _, err := s.enter(ctx, key)
	switch {
	case err != nil:
	case previous == nil:
		err = valkeyrie.ErrPreviousNotSpecified
	case previous.LastIndex == 0:
		err = s.neverStored(ctx, wire)
	default:
		err = s.d.Delete(ctx, wire, previous.LastIndex)
	}
	if err != nil {
		return false, s.fail(ctx, "AtomicDelete", key, err)
	}
	return true, nil
}

// List implements valkeyrie.Store.
func (s *front) List(ctx context.Context, directory string, opts *valkeyrie.ReadOptions) ([]*valkeyrie.KVPair, error) {
	wire, normal, err := s.enterDir(ctx, directory)
	pairs := []*valkeyrie.KVPair{}
	if err == nil {
		pairs, err = s.collect(ctx, wire, given(opts), pairs)
	}
	if err == nil && len(pairs) == 0 {
		err = s.directoryExists(ctx, normal, given(opts))
	}
	if err != nil {
		return nil, s.fail(ctx, "List", directory, err)
	}
	return pairs, nil
}

// collect appends the pairs below a directory, sorted.
func (s *front) collect(ctx context.Context, wire string, opts valkeyrie.ReadOptions, pairs []*valkeyrie.KVPair) ([]*valkeyrie.KVPair, error) {
	sorted := true
	for p, err := range s.d.Walk(ctx, wire, opts) {
		if err != nil {
			return nil, err
		}
		key, ok := s.userKey(p.Key)
		if !ok {
			continue
		}
		p.Key = key
		if n := len(pairs); n > 0 && pairs[n-1].Key > key {
			sorted = false
		}
		pairs = append(pairs, p)
	}
	if !sorted {
		slices.SortFunc(pairs, func(a, b *valkeyrie.KVPair) int { return strings.Compare(a.Key, b.Key) })
	}
	return pairs, nil
}

// directoryExists is nil when a directory with nothing below it is a key itself.
func (s *front) directoryExists(ctx context.Context, normal string, opts valkeyrie.ReadOptions) error {
	if normal == "" {
		return valkeyrie.ErrKeyNotFound
	}
	opts.KeysOnly = true
	_, err := s.d.Get(ctx, s.prefix+normal, opts)
	return err
}

// Walk implements valkeyrie.Store.
func (s *front) Walk(ctx context.Context, directory string, opts *valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		wire, _, err := s.enterDir(ctx, directory)
		if err != nil {
			yield(nil, s.fail(ctx, "Walk", directory, err))
			return
		}
		for p, err := range s.d.Walk(ctx, wire, given(opts)) {
			if err == nil {
				err = s.alive(ctx)
			}
			if err != nil {
				yield(nil, s.fail(ctx, "Walk", directory, err))
				return
			}
			key, ok := s.userKey(p.Key)
			if !ok {
				continue
			}
			p.Key = key
			if !yield(p, nil) {
				return
			}
		}
	}
}

// alive is nil while the store is open and ctx not done.
func (s *front) alive(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return valkeyrie.ErrClosed
	}
	return ctx.Err()
}

// DeleteTree implements valkeyrie.Store.
func (s *front) DeleteTree(ctx context.Context, directory string) error {
	wire, normal, err := s.enterDir(ctx, directory)
	if err == nil && normal == "" {
		err = invalid("is the root, which DeleteTree refuses")
	}
	if err == nil {
		err = s.d.DeleteTree(ctx, wire)
	}
	if err != nil {
		return s.fail(ctx, "DeleteTree", directory, err)
	}
	return nil
}
