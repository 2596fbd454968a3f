package testutils

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// soon is how long something may take that the contract wants within a second
// or at once; the rest is for a machine that is busy with the other checks.
var soon = 4 * time.Second

// pause is how long a check listens to be sure that nothing comes.
const pause = 300 * time.Millisecond

// start runs f in n goroutines. The function that it returns waits for them and
// fails the check with the first error.
func (e *env) start(n int, f func(i int) error) (wait func()) {
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	return func() {
		e.Helper()
		for range n {
			select {
			case err := <-errs:
				require.NoError(e, err)
			case <-e.ctx.Done():
				require.FailNow(e, "the goroutines of the check did not end in time")
			}
		}
	}
}

// hammer writes growing numbers to the keys in turn, one at a time, and now and
// then deletes a key before, until the function that it returns is called. The
// last thing it does is always a put: nothing follows that could show to a
// watch what it missed.
func (e *env) hammer(kv kvstore, keys ...string) (stop func()) {
	var stopped atomic.Bool
	wait := e.start(1, func(int) error {
		// Every key is written at least once, however soon it is stopped.
		for i := 1; i <= len(keys) || !stopped.Load(); i++ {
			key := keys[i%len(keys)]
			if i%7 == 0 {
				if err := kv.Delete(e.ctx, key); err != nil && !errors.Is(err, valkeyrie.ErrKeyNotFound) {
					return err
				}
			}
			if err := kv.Put(e.ctx, key, []byte(strconv.Itoa(i)), nil); err != nil {
				return err
			}
		}
		return nil
	})
	return func() {
		e.Helper()
		stopped.Store(true)
		wait()
	}
}

// flood makes n writes to the keys, many at once, as fast as they go.
func (e *env) flood(kv kvstore, n int, keys ...string) {
	e.Helper()
	const writers = 32
	var next atomic.Int64
	e.start(writers, func(int) error {
		for {
			i := int(next.Add(1))
			if i > n {
				return nil
			}
			if err := kv.Put(e.ctx, keys[i%len(keys)], []byte(strconv.Itoa(i)), nil); err != nil {
				return err
			}
		}
	})()
}

// until receives until ok holds for a value, which must come soon; it returns it.
func until[T any](e *env, ch <-chan T, what string, ok func(T) bool) T {
	e.Helper()
	silence := time.NewTimer(patience) // a stream that goes on is slow, not hung
	defer silence.Stop()
	seen := 0
	for {
		select {
		case v, open := <-ch:
			if !open {
				require.FailNow(e, fmt.Sprintf("channel closed while waiting for %s, after %d values", what, seen))
			}
			if seen++; ok(v) {
				return v
			}
			silence.Reset(patience)
		case <-silence.C:
			require.FailNow(e, fmt.Sprintf("nothing more within %s: %s; %d other values came", patience, what, seen))
		case <-e.ctx.Done():
			require.FailNow(e, fmt.Sprintf("not received before the end of the check: %s; %d other values came", what, seen))
		}
	}
}

// quiet fails when something comes out of the channel within the pause.
func quiet[T any](e *env, ch <-chan T, what string) {
	e.Helper()
	select {
	case v, open := <-ch:
		require.FailNow(e, fmt.Sprintf("%s: received %s (open: %v)", what, show(v), open))
	case <-time.After(pause):
	}
}

// show makes a received value readable.
func show(v any) string {
	switch v := v.(type) {
	case *pair:
		if v == nil {
			return "nil pair"
		}
		if v.Value == nil {
			return fmt.Sprintf("{%s nil @%d}", v.Key, v.LastIndex)
		}
		return fmt.Sprintf("{%s %.40q @%d}", v.Key, v.Value, v.LastIndex)
	case []*pair:
		s := ""
		for _, p := range v {
			s += show(p)
		}
		return "[" + s + "]"
	}
	return fmt.Sprintf("%+v", v)
}

// requireSamePair compares key, value (nil and empty are different) and revision.
func requireSamePair(e *env, want, got *pair) {
	e.Helper()
	require.NotNil(e, got)
	require.Equal(e, want.Key, got.Key)
	require.Equal(e, want.Value, got.Value, "value of %s", want.Key)
	require.Equal(e, want.LastIndex, got.LastIndex, "revision of %s", want.Key)
}

// requireGone checks the state of a key that is not there.
func requireGone(e *env, key string, lastIndex uint64, got *pair) {
	e.Helper()
	require.NotNil(e, got)
	require.Equal(e, key, got.Key)
	require.True(e, got.Value == nil, "the value of a missing key is nil, got %q", got.Value)
	require.Equal(e, lastIndex, got.LastIndex, "the revision of a missing key is the last one seen, 0 if there was none")
}

// snapshot reads a directory as WatchTree shows it: one with nothing in it is an
// empty list.
func (e *env) snapshot(kv kvstore, dir string) []*pair {
	e.Helper()
	pairs, err := kv.List(e.ctx, dir, nil)
	if errors.Is(err, valkeyrie.ErrKeyNotFound) {
		return []*pair{}
	}
	require.NoError(e, err)
	return pairs
}

// cancellable returns a context that the check ends itself.
func (e *env) cancellable() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(e.ctx)
	e.Cleanup(cancel)
	return ctx, cancel
}

// noChildren leaves a check out where a key with a value has nothing below it.
func (e *env) noChildren() {
	e.Helper()
	if e.h.NoChildrenOfValues {
		e.Skip("this backend declares that a key with a value has no keys below it")
	}
}
