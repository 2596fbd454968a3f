package testutils

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/faultproxy"
)

// disturb makes one fault after the other, with some peace between them for work
// to be done, until ctx is done.
func (s *soak) disturb(ctx context.Context) {
	s.Helper()
	for {
		peace := 300*time.Millisecond + time.Duration(s.random.Int64N(int64(1500*time.Millisecond)))
		if !pauseFor(ctx, peace, 0) {
			return
		}
		if len(s.proxies) > 0 {
			s.fault(ctx)
		}
	}
}

// fault makes one fault, drawn from the seed, and ends it.
func (s *soak) fault(ctx context.Context) {
	s.Helper()
	hit := []*faultproxy.Proxy{s.proxies[s.random.IntN(len(s.proxies))]}
	where := fmt.Sprint("store ", 2+s.number(hit[0])) // as their log counts them
	if s.random.IntN(4) == 0 {
		hit, where = s.proxies, "all stores"
	}
	switch kind := s.random.IntN(10); {
	case kind < 3:
		s.note("connections cut", where)
		each(hit, (*faultproxy.Proxy).Cut)
	case kind < 6:
		o := outages[s.random.IntN(len(outages))]
		s.note(o.name, where)
		each(hit, o.begin)
		pauseFor(ctx, s.away(), 0)
		s.restored(hit)
	case kind < 7:
		by := time.Millisecond + time.Duration(s.random.Int64N(int64(200*time.Millisecond)))
		s.note("delays", fmt.Sprintf("%s, %v", where, by.Round(time.Millisecond)))
		each(hit, func(p *faultproxy.Proxy) { p.Delay(faultproxy.Both, by) })
		pauseFor(ctx, s.away(), 0)
		s.restored(hit)
	case kind < 8 && s.server.Compact != nil:
		s.compact()
	default:
		away := time.Duration(s.random.Int64N(int64(300 * time.Millisecond)))
		if s.random.IntN(4) == 0 {
			away = s.away()
		}
		s.note("server killed", fmt.Sprint("away for ", away.Round(time.Millisecond)))
		require.NoError(s, s.server.Kill())
		pauseFor(s.rig.ctx, away, 0)
		require.NoError(s, s.server.Restart())
	}
	s.back()
}

// back waits until all stores work after a fault, and keeps how long the slowest took.
func (s *soak) back() {
	s.Helper()
	begun := time.Now()
	s.journal.add("over")
	for _, kv := range s.everyStore() {
		s.recovers(kv)
	}
	took := time.Since(begun)
	s.journal.add(fmt.Sprintf("all stores work again, %v later", took.Round(time.Millisecond)))
	s.totals.recovery = max(s.totals.recovery, took)
}

// away is how long an outage lasts: 0.2 to 8 s, mostly short.
func (s *soak) away() time.Duration {
	x := s.random.Float64()
	return 200*time.Millisecond + time.Duration(x*x*x*float64(7800*time.Millisecond))
}

// compact makes the server forget its history while a network is away, so that
// its watches cannot go on where they were.
func (s *soak) compact() {
	s.Helper()
	s.note("history compacted", "with all stores away")
	each(s.proxies, refuse)
	for _, g := range s.galleries {
		require.NoError(s, must(s.rig.ctx, g.scr.put, g.dir+"/recreated"))
	}
	require.NoError(s, s.server.Compact(s.rig.ctx))
	for _, g := range s.galleries {
		require.NoError(s, must(s.rig.ctx, g.scr.put, g.dir+"/recreated"))
	}
	s.restored(s.proxies)
}

// restored ends what was done to the networks.
func (s *soak) restored(hit []*faultproxy.Proxy) {
	s.Helper()
	for _, p := range hit {
		require.NoError(s, restore(p))
	}
}

func each(hit []*faultproxy.Proxy, do func(*faultproxy.Proxy)) {
	for _, p := range hit {
		do(p)
	}
}

// number is the place of a proxy among all.
func (s *soak) number(p *faultproxy.Proxy) int {
	for i, one := range s.proxies {
		if one == p {
			return i
		}
	}
	return -1
}

// note counts a fault and writes it down.
func (s *soak) note(kind, details string) {
	s.totals.fault(kind)
	s.journal.add(kind + ": " + details)
}

// tolerable tells whether an error is one that a call may have while there are
// faults, as opposed to an answer.
func tolerable(err error) error {
	var oe *valkeyrie.OpError
	away, unknown := errors.Is(err, valkeyrie.ErrNotReachable), errors.Is(err, valkeyrie.ErrAmbiguous)
	switch {
	case !errors.As(err, &oe):
		return fmt.Errorf("not an *OpError: %w", err)
	case away && unknown:
		return fmt.Errorf("%w: %w", errBoth, err)
	case away || unknown || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		return nil
	}
	return fmt.Errorf("an error that no fault explains: %w", err)
}

// journal keeps the last of what was done, for who has to find out why.
type journal struct {
	begun time.Time

	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	j.lines = append(j.lines, fmt.Sprintf("  %s  %10v  %s", now.Format("15:04:05.000"), now.Sub(j.begun).Round(time.Millisecond), line))
	if len(j.lines) > 60 {
		j.lines = j.lines[20:]
	}
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}
