package testutils

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// totals is what a soak has done, for its report.
type totals struct {
	seed     uint64
	seconds  time.Duration
	recovery time.Duration // the longest until all stores worked after a fault was over
	settled  time.Duration // the longest until all watches showed the last state after that
	written  int           // by the scribes
	terms    int
	repeated atomic.Int64 // calls of histories that were not reachable, and repeated

	acquisitions int
	histories    int // keys
	recorded     int // calls
	heap         []uint64
	goroutines   []int

	mu     sync.Mutex
	calls  map[string]*callCounts
	faults map[string]int
	watch  struct{ watches, states int }
}

// callCounts counts what became of calls of one kind.
type callCounts struct{ answered, ambiguous, failed int }

// call counts a call.
func (t *totals) call(kind string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls == nil {
		t.calls = make(map[string]*callCounts)
	}
	o := t.calls[kind]
	if o == nil {
		o = new(callCounts)
		t.calls[kind] = o
	}
	switch {
	case operation{err: err}.answered() || errors.Is(err, valkeyrie.ErrLockHeld):
		o.answered++
	case errors.Is(err, valkeyrie.ErrAmbiguous):
		o.ambiguous++
	default:
		o.failed++
	}
}

// fault counts a fault.
func (t *totals) fault(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.faults == nil {
		t.faults = make(map[string]int)
	}
	t.faults[kind]++
}

// watched counts what a watch has shown.
func (t *totals) watched(watches, states int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watch.watches += watches
	t.watch.states += states
}

// addHistory counts a history that was checked.
func (t *totals) addHistory(h *history) {
	sum := h.tally(0)
	t.histories += sum.keys
	t.recorded += sum.calls
}

// String is the table.
func (t *totals) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	line := func(name string, cells ...any) {
		fmt.Fprintf(&b, "  %-45s", name)
		for _, c := range cells {
			fmt.Fprintf(&b, " %11v", c)
		}
		b.WriteByte('\n')
	}
	line("seconds", int(t.seconds.Seconds()))
	line("seed", t.seed)
	line("", "answered", "ambiguous", "failed")
	var sum callCounts
	for _, kind := range slices.Sorted(maps.Keys(t.calls)) {
		o := t.calls[kind]
		line(kind, o.answered, o.ambiguous, o.failed)
		sum = callCounts{sum.answered + o.answered, sum.ambiguous + o.ambiguous, sum.failed + o.failed}
	}
	line("all calls of the load", sum.answered, sum.ambiguous, sum.failed)
	line("calls in histories", t.recorded)
	line("keys of histories, all linearizable", t.histories)
	line("calls of histories repeated, not reachable", t.repeated.Load())
	line("writes under watch", t.written)
	line("watches opened", t.watch.watches)
	line("states and events received", t.watch.states)
	line("acquisitions of locks", t.acquisitions)
	line("terms of leaders", t.terms)
	kinds := 0
	for _, kind := range slices.Sorted(maps.Keys(t.faults)) {
		line("fault: "+kind, t.faults[kind])
		kinds += t.faults[kind]
	}
	line("faults", kinds)
	line("longest until all stores worked again", t.recovery.Round(time.Millisecond))
	line("longest until all watches were equal then", t.settled.Round(time.Millisecond))
	if n := len(t.heap); n > 0 {
		line("heap in KiB, after warming up and at the end", t.heap[min(warm, n-1)]/1024, t.heap[n-1]/1024)
		line("goroutines, after warming up and at the end", t.goroutines[min(warm, n-1)], t.goroutines[n-1])
	}
	return b.String()
}

// The first calm points do not count for memory: pools and caches fill up. After
// them it may grow by a quarter and 8 MiB, and goroutines, most of which are those
// of connections, by a quarter and 20.
const (
	warm           = 2
	moreHeap       = 8 << 20
	moreGoroutines = 20
)

// measure notes what is in use at a calm point.
func (s *soak) measure() {
	runtime.GC()
	runtime.GC() // what finalizers and pools had kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.totals.heap = append(s.totals.heap, m.HeapAlloc)
	s.totals.goroutines = append(s.totals.goroutines, runtime.NumGoroutine())
}

// flat checks that memory did not grow: the least of the last calm points against
// that of the first ones, as a single one may meet something unusual.
func (s *soak) flat() {
	s.Helper()
	t := &s.totals
	if len(t.heap) < warm+6 {
		return // too short to tell
	}
	heap, goroutines := t.heap[warm:], t.goroutines[warm:]
	n := len(heap) - 3
	first, last := slices.Min(heap[:3]), slices.Min(heap[n:])
	require.LessOrEqual(s, last, first+first/4+moreHeap, "the heap has grown; in bytes at all calm points: %v", t.heap)
	before, after := slices.Min(goroutines[:3]), slices.Min(goroutines[n:])
	require.LessOrEqual(s, after, before+before/4+moreGoroutines, "goroutines have piled up; at all calm points: %v", t.goroutines)
}

// finish ends everything and checks that nothing is left.
func (s *soak) finish() {
	s.Helper()
	s.halt()
	s.sound()
	s.flat()
	for key, g := range s.locks {
		s.lastHold(key, g)
		s.becomesFree(s.kv, key)
		s.totals.acquisitions += g.terms()
	}
	s.totals.terms = s.office.close()
	for _, g := range s.galleries {
		for _, rec := range g.all() {
			seen, err := rec.judge(g.scr)
			require.NoError(s, err, rec.name)
			s.totals.watched(1, seen)
		}
	}
	s.closeStores()
	s.nothingLeft()
}

// closeStores closes all but the one that sees no faults.
func (s *soak) closeStores() {
	s.Helper()
	for i, kv := range s.stores {
		begun := time.Now()
		require.NoError(s, kv.Close())
		require.Less(s, time.Since(begun), 5*time.Second, "Close of store %d", 2+i)
	}
	for i, p := range s.proxies {
		s.eventually(soon, fmt.Sprintf("store %d has no connection any more", 2+i), func() bool { return p.Clients() == 0 })
	}
	for i, p := range s.proxies {
		s.eventually(patience, fmt.Sprintf("the server has ended the connections of store %d", 2+i), func() bool { return p.Connections() == 0 })
	}
}

// lifetime is the longest TTL of the load.
const lifetime = 8 * time.Second

// nothingLeft deletes the data and waits until the server has nothing of ours.
func (s *soak) nothingLeft() {
	s.Helper()
	bound := 2*lifetime + s.h.LockTTL + s.h.CrashBound + patience
	s.cleared(s.dir)
	s.eventually(bound, "no key is left", func() bool {
		ctx, cancel := context.WithTimeout(s.rig.ctx, patience)
		defer cancel()
		pairs, err := s.kv.List(ctx, "", &valkeyrie.ReadOptions{KeysOnly: true})
		if err != nil && !errors.Is(err, valkeyrie.ErrKeyNotFound) {
			require.NoError(s, err)
		}
		return len(pairs) == 0
	})
	require.NoError(s, s.kv.Close())
	if s.faults.Leftovers == nil {
		return
	}
	for end := time.Now().Add(bound); ; time.Sleep(time.Second) {
		left := s.faults.Leftovers(s.T, s.server.Addr)
		if len(left) == 0 {
			return
		}
		require.True(s, time.Now().Before(end), "left at the server after %v:\n%s", bound, strings.Join(left, "\n"))
	}
}
