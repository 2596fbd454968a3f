package testutils

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/faultproxy"
)

// holders is who holds a lock, as its clients see it: everybody enters with what
// Lock returned, and leaves before Unlock.
type holders struct {
	pulse *pulse // may be nil

	mu    sync.Mutex
	in    map[tokened]<-chan struct{}
	token uint64 // of the last acquisition
	count int
	fault error // the first that was found
}

// tokened is what holds: a Locker, or a leader for one term.
type tokened interface{ Token() uint64 }

// enter is an error when somebody else holds the lock still, or when the token
// does not tell the later acquisition from the earlier.
func (h *holders) enter(l tokened, lost <-chan struct{}) (err error) {
	token := l.Token()
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.fault = cmp.Or(h.fault, err) }()
	if isLost(lost) {
		return nil // before it could do anything
	}
	for other, held := range h.in {
		if !isLost(held) && !h.excused(held) {
			return fmt.Errorf("two holders at a time: the lock was acquired with token %d while the hold with token %d was not lost", token, other.Token())
		}
	}
	if token <= h.token && !isLost(lost) {
		return fmt.Errorf("token %d was given out after token %d", token, h.token)
	}
	if h.in == nil {
		h.in = make(map[tokened]<-chan struct{})
	}
	h.in[l], h.token = lost, max(token, h.token)
	h.count++
	return nil
}

// failed returns the first error of enter.
func (h *holders) failed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fault
}

// excused tells whether a hold is lost only now because this process, which runs
// its clock, did not run when it should have been.
func (h *holders) excused(held <-chan struct{}) bool {
	missed := h.pulse.missed(time.Now().Add(-5 * time.Second))
	if missed == 0 {
		return false
	}
	select {
	case <-held:
		return true
	case <-time.After(missed):
		return false
	}
}

func (h *holders) leave(l tokened) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.in, l)
}

func isLost(lost <-chan struct{}) bool {
	select {
	case <-lost:
		return true
	default:
		return false
	}
}

// locksOfFaults has several clients contend while networks fail at random and
// the server is killed twice.
func locksOfFaults(r *rig) {
	length := 8 * time.Second * time.Duration(r.faults.Seconds) / defaultSeconds
	key := r.key("lock")
	proxies := []*faultproxy.Proxy{r.proxy(), r.proxy()}
	var lockers []valkeyrie.Locker
	for i := range 6 {
		s := r.kv
		if i%3 < len(proxies) {
			s = r.through(proxies[i%3], nil)
		}
		lockers = append(lockers, r.locker(s, key, &valkeyrie.LockOptions{TTL: r.h.LockTTL}))
	}
	ctx, cancel := context.WithTimeout(r.ctx, length)
	defer cancel()
	g := holders{pulse: r.pulse}
	wait := r.start(len(lockers)+len(proxies), func(i int) error {
		if i >= len(lockers) {
			return disturb(ctx, proxies[i-len(lockers)])
		}
		for ctx.Err() == nil {
			if err := g.turn(ctx, lockers[i], lockers[i].Lock); err != nil {
				return err
			}
		}
		return nil
	})
	for range 2 {
		pauseFor(ctx, length/4, length/3)
		require.NoError(r, r.server.Kill())
		pauseFor(ctx, 0, 300*time.Millisecond)
		require.NoError(r, r.server.Restart())
	}
	wait()
	r.recovers(r.kv)
	r.lastHold(key, &g)
	require.Greater(r, g.count, len(lockers), "too few acquisitions to prove anything")
	r.Logf("%d acquisitions", g.count)
}

// lastHold takes the lock when all others are done with it.
func (r *rig) lastHold(key string, g *holders) {
	r.Helper()
	last := r.locker(r.kv, key, nil)
	ctx, cancel := context.WithTimeout(r.ctx, 2*r.h.LockTTL+r.h.CrashBound+patience)
	defer cancel()
	lost, err := last.Lock(ctx)
	require.NoError(r, err)
	require.NoError(r, g.enter(last, lost))
	g.leave(last)
	require.NoError(r, last.Unlock(r.ctx))
}

// turn takes the lock once, by Lock or TryLock, holds it for a moment or until it
// is lost, and gives it back. That it cannot be had is no error here.
func (h *holders) turn(ctx context.Context, l valkeyrie.Locker, acquire func(context.Context) (<-chan struct{}, error)) error {
	lost, err := acquire(ctx)
	if err != nil {
		var oe *valkeyrie.OpError
		if !errors.As(err, &oe) {
			return fmt.Errorf("not an *OpError: %w", err)
		}
		pauseFor(ctx, 5*time.Millisecond, 30*time.Millisecond)
		return nil
	}
	if err := h.enter(l, lost); err != nil {
		return err
	}
	select {
	case <-lost:
	case <-time.After(rand.N(100 * time.Millisecond)):
	}
	h.leave(l)
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = l.Unlock(release) // it expires otherwise
	return nil
}
