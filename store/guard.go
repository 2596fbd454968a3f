package store

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/kvtools/valkeyrie"
)

// joined returns a context that ends with the first of the two, with the cause
// of that one.
func joined(ctx, other context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(other, func() { cancel(context.Cause(other)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// guarded returns the driver with every call bounded by its context and by the
// life of the store, as far as the driver does not do that itself, and its
// Acquire, nil when it has none.
func guarded(d Driver, how Contexts, life context.Context) (Driver, func(context.Context, LockRequest) (Hold, error)) {
	acquirer, _ := d.(Acquirer)
	if how == ContextsAndClose {
		if acquirer == nil {
			return d, nil
		}
		return d, acquirer.Acquire
	}
	g := &guard{Driver: d, life: life, detach: how == ContextsIgnored}
	if acquirer == nil {
		return g, nil
	}
	return g, func(ctx context.Context, r LockRequest) (Hold, error) {
		h, err := acquirer.Acquire(ctx, r)
		return g.wrap(h), err
	}
}

// guard bounds the calls of a driver. Watch and Acquire pass as they are: they
// are long, and every driver ends them with their context.
type guard struct {
	Driver
	life   context.Context
	detach bool
}

// answer is what a call returned.
type answer[T any] struct {
	value T
	err   error
}

// call runs f within ctx and the life of the store. With detach f runs in a
// goroutine of its own; when it comes too late, late gets its value.
func call[T any](g *guard, ctx context.Context, write bool, f func(context.Context) (T, error), late func(T)) (T, error) {
	ctx, cancel := joined(ctx, g.life)
	defer cancel()
	var a answer[T]
	if !g.detach {
		a.value, a.err = f(ctx)
	} else {
		answers := make(chan answer[T])
		go func() {
			value, err := f(ctx)
			select {
			case answers <- answer[T]{value, err}:
			case <-ctx.Done():
				if err == nil && late != nil {
					late(value)
				}
			}
		}()
		select {
		case a = <-answers:
		case <-ctx.Done():
			a.err = ctx.Err()
		}
	}
	if a.err != nil && ctx.Err() != nil && !definite(a.err) {
		a.err = ended(ctx, write, a.err)
	}
	return a.value, a.err
}

// ended adds to the error of a call whose context ended that it did, and that a
// write may have been applied, unless the driver says that it was not sent.
func ended(ctx context.Context, write bool, err error) error {
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		err = &during{cause: cause, err: err}
	}
	if write && !errors.Is(err, valkeyrie.ErrAmbiguous) && !errors.Is(err, valkeyrie.ErrNotReachable) {
		err = &during{cause: valkeyrie.ErrAmbiguous, err: err}
	}
	return err
}

// do is call for what returns only an error.
func (g *guard) do(ctx context.Context, write bool, f func(context.Context) error) error {
	_, err := call(g, ctx, write, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, f(ctx)
	}, nil)
	return err
}

func (g *guard) Get(ctx context.Context, key string, opts valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	return call(g, ctx, false, func(ctx context.Context) (*valkeyrie.KVPair, error) {
		return g.Driver.Get(ctx, key, opts)
	}, nil)
}

func (g *guard) Walk(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		ctx, cancel := joined(ctx, g.life)
		defer cancel()
		pairs := g.Driver.Walk(ctx, dir, opts)
		if g.detach {
			pairs = detached(ctx, pairs)
		}
		for p, err := range pairs {
			if err != nil {
				if ctx.Err() != nil {
					err = ended(ctx, false, err)
				}
				yield(nil, err)
				return
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

// detached runs an iterator in a goroutine of its own.
func detached(ctx context.Context, pairs iter.Seq2[*valkeyrie.KVPair, error]) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		answers := make(chan answer[*valkeyrie.KVPair], 64)
		go func() {
			defer close(answers)
			for p, err := range pairs {
				select {
				case answers <- answer[*valkeyrie.KVPair]{p, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
		for {
			select {
			case a, more := <-answers:
				if !more || !yield(a.value, a.err) {
					return
				}
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
		}
	}
}

func (g *guard) Write(ctx context.Context, w Write) (Written, error) {
	if g.detach {
		w.Value = slices.Clone(w.Value) // the caller may reuse it while a late call still runs
	}
	return call(g, ctx, true, func(ctx context.Context) (Written, error) {
		return g.Driver.Write(ctx, w)
	}, nil)
}

func (g *guard) Delete(ctx context.Context, key string, ifRevision uint64) error {
	return g.do(ctx, true, func(ctx context.Context) error {
		return g.Driver.Delete(ctx, key, ifRevision)
	})
}

func (g *guard) DeleteTree(ctx context.Context, dir string) error {
	return g.do(ctx, true, func(ctx context.Context) error {
		return g.Driver.DeleteTree(ctx, dir)
	})
}

func (g *guard) Renew(ctx context.Context, key string, revision uint64, ttl time.Duration) (Written, error) {
	return call(g, ctx, true, func(ctx context.Context) (Written, error) {
		return g.Driver.Renew(ctx, key, revision, ttl)
	}, nil)
}

func (g *guard) TryLock(ctx context.Context, r LockRequest) (Hold, error) {
	h, err := call(g, ctx, true, func(ctx context.Context) (Hold, error) {
		return g.Driver.TryLock(ctx, r)
	}, func(h Hold) { releaseLate(h) })
	return g.wrap(h), err
}

// releaseLate gives back a hold that came after its caller had left.
func releaseLate(h Hold) {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	_ = h.Release(ctx) // it expires after its TTL otherwise
}

// wrap guards the calls of a hold.
func (g *guard) wrap(h Hold) Hold {
	if h == nil {
		return nil
	}
	return &guardedHold{Hold: h, g: g, turn: make(chan struct{}, 1)}
}

// unguarded returns the driver's own hold.
func unguarded(h Hold) Hold {
	if g, ok := h.(*guardedHold); ok {
		return g.Hold
	}
	return h
}

// guardedHold bounds the calls of a Hold. A call that came too late must end
// before the next begins: turn sees to that.
type guardedHold struct {
	Hold
	g    *guard
	turn chan struct{}
}

func (h *guardedHold) Renew(ctx context.Context) error { return h.do(ctx, h.Hold.Renew) }

// Release is not ended by the end of the store's life, which is when Close
// calls it.
func (h *guardedHold) Release(ctx context.Context) error { return h.do(ctx, h.Hold.Release) }

func (h *guardedHold) do(ctx context.Context, f func(context.Context) error) error {
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	unbounded := &guard{life: context.Background(), detach: h.g.detach}
	return unbounded.do(ctx, true, func(ctx context.Context) error {
		defer func() { <-h.turn }()
		return f(ctx)
	})
}
