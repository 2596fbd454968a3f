package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
)

// hold is a lock while it is held: it renews it, and tells in time when it can
// no longer be proven to be held.
type hold struct {
	l     *locker
	s     *front
	h     Hold
	token uint64
	ttl   time.Duration // the shorter of what was asked and what the server keeps
	sent  instant       // when the last confirmed renewal was sent

	ctx   context.Context // ends with stop, by Unlock or Close
	stop  context.CancelFunc
	lost  chan struct{} // closed when the hold ends
	ended chan struct{} // closed after that, when run no longer uses h
}

// maxMargin bounds the margin for long TTLs.
const maxMargin = 2 * time.Second

// margin is how long before the end of the TTL the hold counts as lost: it
// leaves the holder time to notice, and covers late timers.
func margin(ttl time.Duration) time.Duration { return min(ttl/10, maxMargin) }

func newHold(l *locker, a acquired) *hold {
	h := &hold{
		l: l, s: l.s, h: a.hold, token: a.hold.Token(), sent: a.sent,
		ttl: l.request.TTL, lost: make(chan struct{}), ended: make(chan struct{}),
	}
	if kept := a.hold.TTL(); kept > 0 && kept < h.ttl {
		h.ttl = kept
	}
	h.ctx, h.stop = context.WithCancel(l.s.ctx)
	return h
}

// run owns the hold until it ends.
func (h *hold) run() {
	defer close(h.ended)
	watch, err := h.s.watch(h.ctx, WatchRequest{Key: h.l.request.Key, KeysOnly: true}, false, true)
	if err != nil { // the store is closed
		close(h.lost)
		return
	}
	defer watch.stop()
	renewals := make(chan renewal, 1)
	renewing, why := h.keep(watch, renewals)

	// Whoever learns of the end must find the lock not held, and nothing may
	// delay it: a renewal that hangs is waited for after that.
	claimed := why != nil && h.l.claim(h)
	close(h.lost)
	h.stop()
	if renewing {
		<-renewals // h must not be used by two
	}
	if why != nil {
		h.s.log.Warn("lock lost", "key", h.l.key, "error", why)
	}
	if !claimed {
		return // Unlock or Close goes on
	}
	if errors.Is(why, valkeyrie.ErrLockNotHeld) {
		releaseLate(h.h) // what belongs to the hold beside the key
	}
	<-h.l.turn
}

// errUnconfirmed: renewals were not confirmed in time.
var errUnconfirmed = errors.New("no renewal was confirmed in time")

// recheckPause is how long after a renewal that changed less than the watch shows
// the hold is checked again.
const recheckPause = 10 * time.Millisecond

// renewal is the outcome of one Renew.
type renewal struct {
	sent instant
	err  error
}

// keep renews the hold until it is lost, and returns why, or has to end, and
// returns nil. Renewals run beside it, so that the deadline depends on nothing
// but the clocks; it tells whether one is still on its way.
func (h *hold) keep(watch *watcher, renewals chan renewal) (renewing bool, why error) {
	due := h.sent.mono.Add(h.ttl / renewalsPerTTL)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var pause backoff
	told := false // the watch had news while a renewal was on its way
	for {
		now := h.s.clock()
		left := h.ttl - margin(h.ttl) - now.since(h.sent)
		if left <= 0 {
			return renewing, errUnconfirmed
		}
		// Waking within the margin notices a wall clock that went on while the
		// machine was suspended, which timers do not.
		wake := min(left, margin(h.ttl)/2)
		if !renewing {
			wait := due.Sub(now.mono)
			if wait <= 0 {
				renewing = true
				go h.renew(renewals)
				continue
			}
			wake = min(wake, wait)
		}
		timer.Reset(wake)
		select {
		case <-timer.C:
		case <-h.ctx.Done():
			return renewing, nil
		case <-watch.ready:
			if told = renewing; !told && h.changed(watch) {
				due = now.mono
			}
		case r := <-renewals:
			renewing = false
			switch {
			case errors.Is(r.err, valkeyrie.ErrLockNotHeld):
				return false, r.err
			case r.err != nil:
				due = h.s.clock().mono.Add(min(pause.next(), h.ttl/10))
				continue
			}
			h.sent = r.sent
			pause.reset()
			due = r.sent.mono.Add(h.ttl / renewalsPerTTL)
			if told && h.changed(watch) {
				// The news may be the renewal's own, on a server where it changes
				// the revision: without a pause the two could chase each other.
				due = h.s.clock().mono.Add(recheckPause)
			}
		}
	}
}

// changed tells whether the watch shows the key at another revision than the
// hold's: a renewal then tells whether the hold lasts.
func (h *hold) changed(watch *watcher) bool {
	revision, known := watch.revision(h.l.key)
	return known && revision != h.h.Revision()
}

// renew confirms the hold once. It gives up after a third of the TTL, so that a
// connection that went silent leaves time for another try.
func (h *hold) renew(renewals chan<- renewal) {
	ctx, cancel := context.WithTimeout(h.ctx, max(h.ttl/renewalsPerTTL, firstPause))
	defer cancel()
	r := renewal{sent: h.s.clock()}
	r.err = h.h.Renew(ctx)
	renewals <- r // has room for the one renewal there is at a time
}

// unlock ends a claimed hold and releases the lock. The release is not cut off
// when ctx ends: who unlocks with a context that is done wants the lock free.
func (h *hold) unlock(ctx context.Context) error {
	done := make(chan error, 1)
	if !h.s.running.Go(func() {
		own, cancel := context.WithTimeout(context.Background(), h.s.timeout)
		defer cancel()
		done <- h.release(own)
	}) {
		return h.release(ctx) // the store is being closed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ended(ctx, true, ctx.Err())
	}
}

// release ends a claimed hold, releases the lock within ctx and gives back the turn.
func (h *hold) release(ctx context.Context) error {
	defer func() { <-h.l.turn }()
	h.stop()
	<-h.ended
	return h.h.Release(ctx)
}

// holdSet is the holds of a store.
type holdSet struct {
	mu    sync.Mutex
	holds map[*hold]struct{}
}

func (s *holdSet) add(h *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds == nil {
		s.holds = make(map[*hold]struct{})
	}
	s.holds[h] = struct{}{}
}

func (s *holdSet) remove(h *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.holds, h)
}

// releaseAll releases all holds side by side, within ctx.
func (s *holdSet) releaseAll(ctx context.Context) {
	s.mu.Lock()
	holds := slices.Collect(maps.Keys(s.holds))
	s.mu.Unlock()
	var releasing sync.WaitGroup
	for _, h := range holds {
		if h.l.claim(h) {
			releasing.Go(func() { _ = h.release(ctx) })
		}
	}
	releasing.Wait()
}
