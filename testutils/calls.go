package testutils

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// call is one way to call a Store, so that a check can go through all of them.
type call struct {
	op   string // the method, as in OpError.Op
	how  string // what is particular about it, for messages
	root bool   // it takes a directory whose empty form is the root

	// run makes the call. previous is for those that take one. The first result
	// is what the call returned apart from the error.
	run func(ctx context.Context, s valkeyrie.Store, key string, previous *valkeyrie.KVPair) (any, error)
}

// String names the call in messages.
func (c call) String() string { return c.op + c.how }

// pair and kvstore only shorten the signatures of the tables.
type (
	pair    = valkeyrie.KVPair
	kvstore = valkeyrie.Store
)

// storeCalls are all calls of a Store but Close.
func storeCalls() []call { return slices.Concat(plainCalls(), lastingCalls()) }

// plainCalls are the calls that are over when they return.
func plainCalls() []call {
	value := []byte("written by a call that must fail")
	return []call{
		{op: "Put", run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return nil, s.Put(ctx, k, value, nil)
		}},
		{op: "Get", run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return s.Get(ctx, k, nil)
		}},
		{op: "Delete", run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return nil, s.Delete(ctx, k)
		}},
		{op: "Exists", run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return s.Exists(ctx, k, nil)
		}},
		{op: "List", root: true, run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return s.List(ctx, k, nil)
		}},
		{op: "Walk", root: true, run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return collect(s.Walk(ctx, k, nil))
		}},
		{op: "DeleteTree", run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return nil, s.DeleteTree(ctx, k)
		}},
		{op: "AtomicPut", how: " to create", run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return flat(s.AtomicPut(ctx, k, value, nil, nil))
		}},
		{op: "AtomicPut", how: " with previous", run: func(ctx context.Context, s kvstore, k string, p *pair) (any, error) {
			return flat(s.AtomicPut(ctx, k, value, p, nil))
		}},
		{op: "AtomicDelete", run: func(ctx context.Context, s kvstore, k string, p *pair) (any, error) {
			return s.AtomicDelete(ctx, k, p)
		}},
	}
}

// lastingCalls are the calls that start something. It ends with the call here:
// these tables are for calls that fail at once.
func lastingCalls() []call {
	events := func(ctx context.Context, s kvstore, k string, tree bool) (any, error) {
		return firstEvent(s.Events(ctx, k, &valkeyrie.WatchOptions{Tree: tree}))
	}
	return []call{
		{op: "Watch", run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return s.Watch(ctx, k, nil)
		}},
		{op: "WatchTree", root: true, run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return s.WatchTree(ctx, k, nil)
		}},
		{op: "Events", run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return events(ctx, s, k, false)
		}},
		{op: "Events", how: " of a tree", root: true, run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return events(ctx, s, k, true)
		}},
		{op: "NewLock", run: func(ctx context.Context, s kvstore, k string, _ *pair) (any, error) {
			return s.NewLock(ctx, k, nil)
		}},
	}
}

// flat folds the results of AtomicPut, which must agree with each other, into one.
func flat(ok bool, p *pair, err error) (any, error) {
	if ok != (err == nil) || (p != nil) != (err == nil) {
		return p, fmt.Errorf("AtomicPut answered %v, %v together with the error %w", ok, p, err)
	}
	return p, err
}

// collect takes all pairs of a Walk. An error must come without a pair and end it.
func collect(walk iter.Seq2[*pair, error]) ([]*pair, error) {
	var pairs []*pair
	var failed error
	for p, err := range walk {
		switch {
		case failed != nil:
			return pairs, fmt.Errorf("the Walk went on after its error %w", failed)
		case err != nil && p != nil:
			return pairs, fmt.Errorf("the Walk yielded %v together with the error %w", p, err)
		case err == nil && p == nil:
			return pairs, errors.New("the Walk yielded nil, nil")
		case err != nil:
			failed = err
		default:
			pairs = append(pairs, p)
		}
	}
	return pairs, failed
}

// firstEvent takes the first event, or the error in its place, which must end it.
func firstEvent(events iter.Seq2[valkeyrie.Event, error]) (any, error) {
	var failed error
	for ev, err := range events {
		switch {
		case failed != nil:
			return ev, fmt.Errorf("it went on after its error %w", failed)
		case err != nil:
			failed = err
		default:
			return ev, nil
		}
	}
	return nil, failed
}

// causes are the sentinels that say why a call failed: an error that is two of
// them at once would send its caller down the wrong path.
var causes = []error{
	valkeyrie.ErrKeyNotFound, valkeyrie.ErrKeyModified, valkeyrie.ErrKeyExists,
	valkeyrie.ErrPreviousNotSpecified, valkeyrie.ErrInvalidKey, valkeyrie.ErrInvalidOption,
	valkeyrie.ErrValueTooLarge, valkeyrie.ErrCallNotSupported, valkeyrie.ErrLockHeld,
	valkeyrie.ErrLockNotHeld, valkeyrie.ErrUnauthorized, valkeyrie.ErrCorrupt,
}

// refused asserts that a call failed as the contract has it: with an *OpError
// that names the backend, the method and the key as the caller gave it, and that
// unwraps to the one cause.
func (e *env) refused(err error, op, key string, want error) {
	e.Helper()
	require.Error(e, err, "%s %q must fail with: %v", op, key, want)
	require.ErrorIs(e, err, want, "%s %q", op, key)
	oe, ok := err.(*valkeyrie.OpError) // not errors.As: every error is one
	require.True(e, ok, "%s %q: every error is an *OpError, this is a %T: %v", op, key, err, err)
	require.Equal(e, op, oe.Op, "OpError.Op of %v", err)
	require.Equal(e, e.h.Backend, oe.Backend, "OpError.Backend of %v", err)
	require.Equal(e, key, oe.Key, "OpError.Key is the key as the caller gave it")
	for _, other := range causes {
		if other != want {
			require.NotErrorIs(e, err, other, "%s %q failed for two reasons at once", op, key)
		}
	}
}

// absent asserts that nobody can see the key.
func (e *env) absent(s kvstore, key string) {
	e.Helper()
	p, err := s.Get(e.ctx, key, nil)
	e.refused(err, "Get", key, valkeyrie.ErrKeyNotFound)
	require.Nil(e, p)
	there, err := s.Exists(e.ctx, key, nil)
	require.NoError(e, err, "a missing key is no error of Exists")
	require.False(e, there, "Exists %q", key)
}

// list returns the keys below a directory, by List and Walk, which must agree;
// none when there is nothing.
func (e *env) list(s kvstore, dir string) []string {
	e.Helper()
	listed, err := s.List(e.ctx, dir, nil)
	if errors.Is(err, valkeyrie.ErrKeyNotFound) {
		listed, err = []*pair{}, nil
	}
	require.NoError(e, err)
	walked, err := collect(s.Walk(e.ctx, dir, nil))
	require.NoError(e, err)
	names := keysOf(walked)
	slices.Sort(names)
	require.Equal(e, keysOf(listed), names, "List and Walk of %q must yield the same keys, List sorted", dir)
	return names
}

// keysOf returns the keys of pairs, never nil.
func keysOf(pairs []*pair) []string {
	keys := make([]string, 0, len(pairs))
	for _, p := range pairs {
		keys = append(keys, p.Key)
	}
	return keys
}

// together runs f n times at once, released at the same moment, and joins the
// errors: require ends only the goroutine it is called in, so f must not use it.
func together(n int, f func(i int) error) error {
	start, done := make(chan struct{}), make(chan error, n)
	for i := range n {
		go func() {
			<-start
			done <- f(i)
		}()
	}
	close(start)
	errs := make([]error, n)
	for i := range n {
		errs[i] = <-done
	}
	return errors.Join(errs...)
}

// putAll writes keys, each with its own name as value, many at once so that
// large directories do not take long on servers that answer slowly.
func (e *env) putAll(keys []string, opts *valkeyrie.WriteOptions) {
	e.Helper()
	e.each(keys, func(key string) error { return e.kv.Put(e.ctx, key, []byte(key), opts) })
}

// each runs f for all keys, 64 at a time.
func (e *env) each(keys []string, f func(key string) error) {
	e.Helper()
	workers := min(64, len(keys))
	require.NoError(e, together(workers, func(w int) error {
		for i := w; i < len(keys); i += workers {
			if err := f(keys[i]); err != nil {
				return fmt.Errorf("%q: %w", keys[i], err)
			}
		}
		return nil
	}))
}

// sorted returns a sorted copy, in byte order.
func sorted(keys []string) []string {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	return keys
}
