package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/kvtools/valkeyrie"
)

// eventsAtOnce is how many events are taken from the states at a time.
const eventsAtOnce = 256

// errWatchEnded stands in for the error that a driver should have returned.
var errWatchEnded = errors.New("the watch ended without an error")

// watcher runs a driver's watch over outages and keeps what it reports.
type watcher struct {
	*states
	s       *front
	request WatchRequest

	// patient: try again also when the first state cannot be read.
	patient bool

	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{} // closed when run has returned
	err    error         // why it ended; read after ended
}

// watch starts a watcher; stop must be called.
func (s *front) watch(ctx context.Context, r WatchRequest, keep, patient bool) (*watcher, error) {
	w := &watcher{
		states: newStates(s, r.KeysOnly, keep), s: s, request: r, patient: patient,
		ended: make(chan struct{}),
	}
	w.ctx, w.cancel = s.within(ctx)
	if !s.running.Go(w.run) {
		w.cancel()
		return nil, valkeyrie.ErrClosed
	}
	return w, nil
}

// stop ends the watcher and waits for its goroutine.
func (w *watcher) stop() {
	w.cancel()
	<-w.ended
}

// run calls the driver's watch until the watcher's context is done or there is
// no use in trying again.
func (w *watcher) run() {
	defer close(w.ended)
	var pause backoff
	for {
		began := time.Now()
		err := w.s.d.Watch(w.ctx, w.request, w.states)
		w.broken()
		if w.ctx.Err() != nil {
			w.err = context.Cause(w.ctx)
			return
		}
		if err == nil {
			err = errWatchEnded
		}
		if final(err) || (!w.patient && !w.synced()) {
			w.err = err
			if w.synced() { // the channel of Watch and WatchTree has no place for the error
				w.s.log.Warn("watch ended for good", "key", w.request.Key, "tree", w.request.Tree, "error", err)
			}
			return
		}
		if time.Since(began) > 2*longestPause {
			pause.reset()
		}
		wait := pause.next()
		w.s.log.Info("watch broken, reading again", "key", w.request.Key, "tree", w.request.Tree, "in", wait, "error", err)
		select {
		case <-time.After(wait):
		case <-w.ctx.Done():
		}
	}
}

// synced tells whether a complete state is known.
func (w *watcher) synced() bool {
	select {
	case <-w.first:
		return true
	default:
		return false
	}
}

// awaitFirst waits for the first complete state. A driver that reports nothing
// for as long as Config.ConnectionTimeout counts as not reaching its server.
func (w *watcher) awaitFirst() error {
	silence := time.NewTimer(w.s.timeout)
	defer silence.Stop()
	for {
		select {
		case <-w.first:
			return nil
		case <-w.progress:
			silence.Reset(w.s.timeout)
		case <-w.ended:
			return w.err
		case <-silence.C:
			return fmt.Errorf("%w: no answer to a watch for %v", valkeyrie.ErrNotReachable, w.s.timeout)
		}
	}
}

// Watch implements valkeyrie.Store.
func (s *front) Watch(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (<-chan *valkeyrie.KVPair, error) {
	wire, normal, err := s.enter(ctx, key)
	var states <-chan *valkeyrie.KVPair
	if err == nil {
		r := WatchRequest{Key: wire, KeysOnly: given(opts).KeysOnly}
		states, err = deliver(s, ctx, r, false, func(w *watcher) *valkeyrie.KVPair { return w.takeOne(normal) })
	}
	if err != nil {
		return nil, s.fail(ctx, "Watch", key, err)
	}
	return states, nil
}

// WatchTree implements valkeyrie.Store.
func (s *front) WatchTree(ctx context.Context, directory string, opts *valkeyrie.ReadOptions) (<-chan []*valkeyrie.KVPair, error) {
	wire, _, err := s.enterDir(ctx, directory)
	var states <-chan []*valkeyrie.KVPair
	if err == nil {
		r := WatchRequest{Key: wire, Tree: true, KeysOnly: given(opts).KeysOnly}
		states, err = deliver(s, ctx, r, true, (*watcher).takeAll)
	}
	if err != nil {
		return nil, s.fail(ctx, "WatchTree", directory, err)
	}
	return states, nil
}

// deliver watches and sends to a channel what take returns, from the first
// state on, until the watch ends.
func deliver[T *valkeyrie.KVPair | []*valkeyrie.KVPair](s *front, ctx context.Context, r WatchRequest, keep bool, take func(*watcher) T) (<-chan T, error) {
	w, err := s.watch(ctx, r, keep, false)
	if err != nil {
		return nil, err
	}
	if err := w.awaitFirst(); err != nil {
		w.stop()
		return nil, err
	}
	states := make(chan T)
	if !s.running.Go(func() {
		defer w.stop()
		defer close(states)
		for {
			select {
			case <-w.ready:
			case <-w.ended:
				return
			}
			state := take(w)
			if state == nil {
				continue
			}
			select {
			case states <- state:
			case <-w.ended:
				return
			case <-w.ctx.Done():
				return
			}
		}
	}) {
		w.stop()
		return nil, valkeyrie.ErrClosed
	}
	return states, nil
}

// Events implements valkeyrie.Store.
func (s *front) Events(ctx context.Context, key string, opts *valkeyrie.WatchOptions) iter.Seq2[valkeyrie.Event, error] {
	return func(yield func(valkeyrie.Event, error) bool) {
		o := given(opts)
		enter := s.enter
		if o.Tree {
			enter = s.enterDir
		}
		wire, _, err := enter(ctx, key)
		left := false // a loop that broke off must not be called again
		if err == nil {
			r := WatchRequest{Key: wire, Tree: o.Tree, KeysOnly: o.KeysOnly}
			err = s.events(ctx, r, func(e valkeyrie.Event) bool {
				left = !yield(e, nil)
				return !left
			})
		}
		if err != nil && !left && ctx.Err() == nil {
			yield(valkeyrie.Event{}, s.fail(ctx, "Events", key, err))
		}
	}
}

// events yields the events of a watch, until yield returns false or the watch
// ends.
func (s *front) events(ctx context.Context, r WatchRequest, yield func(valkeyrie.Event) bool) error {
	w, err := s.watch(ctx, r, false, false)
	if err != nil {
		return err
	}
	defer w.stop()
	if err := w.awaitFirst(); err != nil {
		return err
	}
	// What exists is taken at once, so that Synced comes however busy writers are.
	// A driver may have begun its next snapshot meanwhile, whose end is waited for.
	existing := w.takeEvents(math.MaxInt)
	for existing == nil {
		select {
		case <-w.ready:
			existing = w.takeEvents(math.MaxInt)
		case <-w.ended:
			return w.err
		}
	}
	if !yieldAll(w, existing, yield) ||
		!yieldAll(w, []valkeyrie.Event{{Type: valkeyrie.Synced}}, yield) {
		return context.Cause(w.ctx)
	}
	for {
		events := w.takeEvents(eventsAtOnce)
		if !yieldAll(w, events, yield) {
			return context.Cause(w.ctx)
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-w.ready:
		case <-w.ended:
			return w.err
		}
	}
}

// yieldAll is false when the loop broke off or the watch's context ended.
func yieldAll(w *watcher, events []valkeyrie.Event, yield func(valkeyrie.Event) bool) bool {
	for _, e := range events {
		if w.ctx.Err() != nil || !yield(e) {
			return false
		}
	}
	return true
}
