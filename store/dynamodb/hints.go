package dynamodb

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// maxHints bounds how many keys a subscription keeps for who has not looked yet;
// with more, everything is looked at.
const maxHints = 10_000

// subscription collects the keys that may have changed, for one watch or one
// waiter. Without a stream it says when to look again.
type subscription struct {
	r      store.WatchRequest
	d      *driver
	reader *reader // nil without a stream

	ready chan struct{} // capacity 1: there is something to take

	mu   sync.Mutex
	keys map[string]struct{}
	all  bool
}

// subscribe begins to collect: everything that changes after it returned.
func (d *driver) subscribe(ctx context.Context, r store.WatchRequest) (*subscription, error) {
	s := &subscription{r: r, d: d, ready: make(chan struct{}, 1), keys: make(map[string]struct{})}
	if d.opts.NoStream {
		return s, nil
	}
	var err error
	if s.reader, err = d.join(ctx, s); err != nil {
		return nil, err
	}
	select {
	case <-s.reader.positioned:
		return s, nil
	case <-s.reader.ctx.Done():
		if err := context.Cause(s.reader.ctx); !errors.Is(err, errNoStream) {
			return nil, err
		}
		s.reader = nil
		return s, nil
	case <-ctx.Done():
		s.close()
		return nil, ctx.Err()
	}
}

// join adds a subscription to the reader of the stream, which it starts if there
// is none.
func (d *driver) join(ctx context.Context, s *subscription) (*reader, error) {
	var r *reader
	select {
	case r = <-d.readers:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.ctx.Done():
		return nil, valkeyrie.ErrClosed
	}
	if r == nil || !r.add(s) {
		r = newReader(d)
		r.add(s)
		if !d.running.Go(r.run) {
			d.readers <- nil
			return nil, valkeyrie.ErrClosed
		}
	}
	d.readers <- r
	return r, nil
}

// close ends a subscription.
func (s *subscription) close() {
	if s.reader != nil {
		s.reader.remove(s)
	}
}

// ended returns a channel that is closed when the reader of the stream ends, for
// the reason that err returns.
func (s *subscription) ended() <-chan struct{} {
	if s.reader == nil {
		return nil
	}
	return s.reader.ctx.Done()
}

func (s *subscription) err() error { return context.Cause(s.reader.ctx) }

// poll returns a channel that says when to look at everything again, which is
// never where a stream tells of changes, and a function that frees it.
func (s *subscription) poll() (<-chan time.Time, func() bool) {
	if s.reader != nil {
		return nil, func() bool { return false }
	}
	// Not all at the same time.
	interval := s.d.opts.PollInterval
	timer := time.NewTimer(interval - rand.N(interval/4+1))
	return timer.C, timer.Stop
}

// hint notes that a key may have changed.
func (s *subscription) hint(key string) {
	if key != s.r.Key && !(s.r.Tree && strings.HasPrefix(key, s.r.Key)) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[key] = struct{}{}
	if len(s.keys) > maxHints {
		s.all = true
		clear(s.keys)
	}
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// take returns the keys that may have changed since the last take; true: all may.
func (s *subscription) take() (map[string]struct{}, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, all := s.keys, s.all
	s.keys, s.all = make(map[string]struct{}), false
	return keys, all
}
