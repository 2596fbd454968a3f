// Package store is the portable front of every backend. A backend fills in a
// Driver, which says what is particular to its server; New makes a
// valkeyrie.Store of it that keeps the contract of package valkeyrie.
//
// The front checks and normalises keys, adds and removes Config.Prefix, wraps
// errors, keeps the closed state, bounds every call by its context, makes Watch,
// WatchTree and Events of one stream of states and changes, renews holds and
// tells in time when they are lost, renews and expires TTLs where the server
// does not. docs/backends.md shows how to write a backend, and examples/backend
// is a small one. Users of a store need nothing of this package.
package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/kvtools/valkeyrie"
)

// front is the valkeyrie.Store over a driver.
type front struct {
	d       Driver // guarded
	acquire func(ctx context.Context, r LockRequest) (Hold, error)
	info    Info
	prefix  string
	timeout time.Duration // Config.ConnectionTimeout
	log     *slog.Logger
	clock   clock

	ctx    context.Context // ends when the store is closed, with ErrClosed as its cause
	cancel context.CancelCauseFunc

	running Group // the goroutines of the front: watches, holds, attempts

	ttl   *timekeeper
	holds holdSet
}

// New makes a store of a driver. The caller has filled cfg by Settings; New does
// it again for those that did not. It takes over the driver, which Close closes, or
// New itself if it returns an error.
func New(d Driver, cfg *valkeyrie.Config) (valkeyrie.Store, error) {
	return newFront(d, cfg)
}

func newFront(d Driver, cfg *valkeyrie.Config) (*front, error) {
	info := d.Info()
	c, err := Settings(info.Name, cfg)
	if err != nil {
		_ = d.Close() // the first error says more
		return nil, err
	}
	s := &front{
		info:    info,
		prefix:  wirePrefix(c.Prefix, info.LeadingSlash),
		timeout: c.ConnectionTimeout,
		log:     c.Logger.With("backend", info.Name),
		clock:   systemClock,
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.d, s.acquire = guarded(d, info.Contexts, s.ctx)
	s.ttl = newTimekeeper(s)
	return s, nil
}

// enter is the first step of every call on a key.
func (s *front) enter(ctx context.Context, key string) (wire, normal string, err error) {
	if s.ctx.Err() != nil {
		return "", "", valkeyrie.ErrClosed
	}
	if wire, normal, err = s.wireKey(key); err != nil {
		return "", "", err
	}
	return wire, normal, ctx.Err()
}

// enterDir is the first step of every call on a directory.
func (s *front) enterDir(ctx context.Context, dir string) (wire, normal string, err error) {
	if s.ctx.Err() != nil {
		return "", "", valkeyrie.ErrClosed
	}
	if wire, normal, err = s.wireDir(dir); err != nil {
		return "", "", err
	}
	return wire, normal, ctx.Err()
}

// fail makes an OpError, with what the front knows beyond the driver's error:
// that the store was closed or the context ended meanwhile.
func (s *front) fail(ctx context.Context, op, key string, err error) error {
	switch {
	case s.ctx.Err() != nil && !errors.Is(err, valkeyrie.ErrClosed):
		err = &during{cause: valkeyrie.ErrClosed, err: err}
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()) && !definite(err):
		err = &during{cause: ctx.Err(), err: err}
	}
	return &valkeyrie.OpError{Op: op, Backend: s.info.Name, Key: key, Err: err}
}

// during is an error that came about because of another one.
type during struct{ cause, err error }

func (e *during) Error() string   { return e.cause.Error() + " (" + e.err.Error() + ")" }
func (e *during) Unwrap() []error { return []error{e.cause, e.err} }

// definite tells whether the server has answered: retrying changes nothing, and
// the end of a context is not the cause.
func definite(err error) bool {
	for _, answer := range []error{
		valkeyrie.ErrKeyNotFound, valkeyrie.ErrKeyModified, valkeyrie.ErrKeyExists,
		valkeyrie.ErrValueTooLarge, valkeyrie.ErrLockHeld, valkeyrie.ErrLockNotHeld,
	} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return final(err)
}

// final tells whether the server or the library refuses for good.
func final(err error) bool {
	for _, refusal := range []error{
		valkeyrie.ErrUnauthorized, valkeyrie.ErrInvalidKey, valkeyrie.ErrInvalidOption,
		valkeyrie.ErrCallNotSupported, valkeyrie.ErrClosed,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// within returns a context that also ends when the store is closed.
func (s *front) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return joined(ctx, s.ctx)
}

// closeGrace is how long Close lets holds be released and a driver's calls end
// by themselves.
const closeGrace = time.Second

// Close implements valkeyrie.Store.
func (s *front) Close() error {
	if !s.running.Stop() {
		return nil
	}
	s.cancel(valkeyrie.ErrClosed)
	grace, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	s.holds.releaseAll(grace)
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-grace.Done(): // a call of a client that ignores its context: closing the driver ends it
	}
	err := s.d.Close()
	<-ended
	if err != nil {
		return &valkeyrie.OpError{Op: "Close", Backend: s.info.Name, Err: err}
	}
	return nil
}
