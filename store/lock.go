package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
)

// NewLock implements valkeyrie.Store.
func (s *front) NewLock(ctx context.Context, key string, opts *valkeyrie.LockOptions) (valkeyrie.Locker, error) {
	wire, normal, err := s.enter(ctx, key)
	o := given(opts)
	switch {
	case err != nil:
	case o.TTL < 0:
		err = badOption(fmt.Sprintf("LockOptions.TTL is %v; give a positive time, or 0 for the default", o.TTL))
	default:
		err = s.info.checkSize(o.Value)
	}
	if err != nil {
		return nil, s.fail(ctx, "NewLock", key, err)
	}
	if o.TTL == 0 {
		o.TTL = valkeyrie.DefaultLockTTL
	}
	return &locker{
		s: s, key: normal, turn: make(chan struct{}, 1),
		request: LockRequest{Key: wire, Value: slices.Clone(o.Value), TTL: o.TTL, Owner: rand.Text()},
	}, nil
}

// locker is the valkeyrie.Locker over a driver.
type locker struct {
	s       *front
	key     string      // as the user sees it
	request LockRequest // of who has the turn

	// turn is taken by who acquires or holds: a Locker holds at most once.
	turn chan struct{}

	mu   sync.Mutex
	hold *hold // the current hold, nil when there is none
}

// Lock implements valkeyrie.Locker.
func (l *locker) Lock(ctx context.Context) (<-chan struct{}, error) {
	lost, err := l.lock(ctx, true)
	if err != nil {
		return nil, l.s.fail(ctx, "Lock", l.key, err)
	}
	return lost, nil
}

// TryLock implements valkeyrie.Locker.
func (l *locker) TryLock(ctx context.Context) (<-chan struct{}, error) {
	lost, err := l.lock(ctx, false)
	if err != nil {
		return nil, l.s.fail(ctx, "TryLock", l.key, err)
	}
	return lost, nil
}

func (l *locker) lock(ctx context.Context, wait bool) (<-chan struct{}, error) {
	if err := l.s.alive(ctx); err != nil {
		return nil, err
	}
	if err := l.takeTurn(ctx, wait); err != nil {
		return nil, err
	}
	a, err := l.s.attempt(ctx, l.request)
	if wait && errors.Is(err, valkeyrie.ErrLockHeld) {
		a, err = l.s.await(ctx, l.request)
	}
	if err != nil {
		if ctx.Err() != nil {
			// The attempt may go on beside us, and must not take the hold of a
			// later one for what was left over from itself.
			l.request.Owner = rand.Text()
		}
		<-l.turn
		return nil, err
	}
	return l.begin(a)
}

// takeTurn waits until this Locker neither holds nor acquires.
func (l *locker) takeTurn(ctx context.Context, wait bool) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	default:
	}
	if !wait {
		return fmt.Errorf("%w: by this Locker itself, or it is just taking it", valkeyrie.ErrLockHeld)
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.s.ctx.Done():
		return valkeyrie.ErrClosed
	}
}

// begin starts the hold of a lock that was acquired.
func (l *locker) begin(a acquired) (<-chan struct{}, error) {
	h := newHold(l, a)
	l.mu.Lock()
	l.hold = h
	l.mu.Unlock()
	l.s.holds.add(h)
	if !l.s.running.Go(h.run) { // the store was closed meanwhile
		h.stop()
		close(h.lost)
		close(h.ended)
		if l.claim(h) {
			ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
			defer cancel()
			_ = h.release(ctx)
		}
		return nil, valkeyrie.ErrClosed
	}
	return h.lost, nil
}

// claim takes a hold off the books; false when somebody else did. Of Unlock,
// Close and a loss exactly one claims a hold, and gives back the turn.
func (l *locker) claim(h *hold) bool {
	l.s.holds.remove(h)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hold != h {
		return false
	}
	l.hold = nil
	return true
}

// Unlock implements valkeyrie.Locker.
func (l *locker) Unlock(ctx context.Context) error {
	l.mu.Lock()
	h := l.hold
	l.mu.Unlock()
	err := valkeyrie.ErrLockNotHeld
	switch {
	case h != nil && l.claim(h):
		err = h.unlock(ctx)
	case l.s.ctx.Err() != nil:
		err = valkeyrie.ErrClosed
	}
	if err != nil {
		return l.s.fail(ctx, "Unlock", l.key, err)
	}
	return nil
}

// Token implements valkeyrie.Locker.
func (l *locker) Token() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hold == nil {
		return 0
	}
	return l.hold.token
}

// acquired is a hold with the time from which its TTL counts: before the request
// that acquired or renewed it was sent.
type acquired struct {
	hold Hold
	sent instant
}

// clearingUp is how long a call whose context ended waits for a driver to leave
// the line, so that usually nothing is in others' way when it returns.
const clearingUp = 100 * time.Millisecond

// detached runs f, which acquires a lock, beside the caller: who leaves when ctx
// ends does not wait for f any longer than linger, and what f gets is given back.
func (s *front) detached(ctx context.Context, linger time.Duration, f func() (acquired, error)) (acquired, error) {
	answers, left := make(chan answer[acquired]), make(chan struct{})
	defer close(left)
	if !s.running.Go(func() {
		got, err := f()
		select {
		case answers <- answer[acquired]{got, err}:
		case <-left:
			if err == nil {
				releaseLate(got.hold)
			}
		}
	}) {
		return acquired{}, valkeyrie.ErrClosed
	}
	ctx, cancel := s.within(ctx)
	defer cancel()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-answers:
		return a.value, a.err
	case <-time.After(linger):
		return acquired{}, context.Cause(ctx)
	}
}

// attempt tries once to take the lock. The attempt is not cut off when ctx ends,
// as nobody would know then whether it succeeded.
func (s *front) attempt(ctx context.Context, r LockRequest) (acquired, error) {
	return s.detached(ctx, 0, func() (acquired, error) {
		own, cancel := context.WithTimeout(s.ctx, s.timeout)
		defer cancel()
		sent := s.clock()
		h, err := s.d.TryLock(own, r)
		if err != nil && own.Err() != nil && s.ctx.Err() == nil && !definite(err) {
			err = fmt.Errorf("%w: no answer for %v: %w", valkeyrie.ErrNotReachable, s.timeout, err)
		}
		return acquired{hold: h, sent: sent}, err
	})
}

// await waits for the lock over outages of the server.
func (s *front) await(ctx context.Context, r LockRequest) (acquired, error) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	next := s.inLine
	if s.acquire == nil {
		w, err := s.watch(ctx, WatchRequest{Key: r.Key, KeysOnly: true}, false, true)
		if err != nil {
			return acquired{}, err
		}
		defer w.stop()
		next = w.whenFree
	}
	var pause backoff
	for {
		a, err := next(ctx, r)
		switch {
		case err == nil:
			return a, nil
		case ctx.Err() != nil:
			return acquired{}, context.Cause(ctx)
		case errors.Is(err, valkeyrie.ErrLockHeld):
			pause.reset()
			continue
		case final(err):
			return acquired{}, err
		}
		wait := pause.next()
		s.log.Info("waiting for a lock: trying again", "key", r.Key, "in", wait, "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// inLine waits in the server's line.
func (s *front) inLine(ctx context.Context, r LockRequest) (acquired, error) {
	return s.detached(ctx, clearingUp, func() (acquired, error) {
		h, err := s.acquire(ctx, r)
		if err != nil {
			return acquired{}, err
		}
		// It may have waited for long: who does not know when the hold was
		// confirmed last has it confirmed again.
		if c, ok := unguarded(h).(Confirmed); ok {
			at := c.Confirmed()
			last := instant{mono: at, wall: at.Round(0)}
			if s.clock().since(last) < r.TTL/2 { // not after an outage
				return acquired{hold: h, sent: last}, nil
			}
		}
		sent := s.clock()
		if err := h.Renew(ctx); err != nil {
			releaseLate(h)
			return acquired{}, err
		}
		return acquired{hold: h, sent: sent}, nil
	})
}

// whenFree waits until the watch shows the key absent, and tries.
func (w *watcher) whenFree(ctx context.Context, r LockRequest) (acquired, error) {
	key, _ := w.s.userKey(r.Key)
	for {
		select {
		case <-w.ready:
		case <-w.ended:
			return acquired{}, w.err
		}
		if revision, known := w.revision(key); !known || revision != 0 {
			continue
		}
		a, err := w.s.attempt(ctx, r)
		if err != nil && !errors.Is(err, valkeyrie.ErrLockHeld) {
			Poke(w.ready) // the key may still be free when the next attempt is due
		}
		return a, err
	}
}
