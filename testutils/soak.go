package testutils

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/faultproxy"
)

// RunSoak puts everything on one server at once for a long time: a mixed load of
// all calls, recorded histories, watches that stay and that come and go, locks and
// elections, over several stores, while connections are cut, networks fail and the
// server is killed. Between the faults there are calm points, at which everything
// has to have recovered, watches to show what is there, histories to have an order
// that explains them, and memory to be flat. At the end nothing may be left: no
// goroutine, no connection, no key, and what Faults.Leftovers asks for.
//
// It needs Harness.Faults for the faults; without it, only stores are opened and
// closed. It is skipped unless VALKEYRIE_SOAK_SECONDS says for how long it runs.
// VALKEYRIE_SOAK_SEED repeats the faults of an earlier run, as far as time permits.
func RunSoak(t *testing.T, h Harness) {
	seconds := setting(t, "VALKEYRIE_SOAK_SECONDS", 0)
	if seconds == 0 {
		t.Skip("takes as many seconds as VALKEYRIE_SOAK_SECONDS says; make soak sets it")
	}
	h = h.withDefaults()
	before := leakBaseline()
	t.Run("soak", func(t *testing.T) {
		p := startPulse()
		t.Cleanup(p.end)
		s := newSoak(t, h, p, time.Duration(seconds)*time.Second)
		s.begin()
		for s.next() {
			s.round()
		}
		s.finish()
		s.totals.seconds = time.Since(s.begun)
		t.Logf("totals of %s\n%s", h.Backend, &s.totals)
	})
	t.Run("no goroutine outlives Close", func(t *testing.T) {
		assertNoLeak(t, before, 5*time.Second)
	})
}

// setting reads a positive number from the environment.
func setting(t testing.TB, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err, name)
	require.Positive(t, n, name)
	return n
}

// soak is what runs. The test's goroutine makes the faults and checks at calm
// points; all others are the load.
type soak struct {
	*rig
	length  time.Duration
	begun   time.Time
	random  *rand.Rand          // of the faults alone
	proxies []*faultproxy.Proxy // one for each of the stores, none without a server
	stores  []kvstore

	ctx     context.Context // of the load: done when it stops or something is broken
	stop    context.CancelFunc
	workers sync.WaitGroup
	gate    sync.RWMutex // held for reading by each step of the load, closed at calm points

	galleries []*gallery
	locks     map[string]*holders
	office    *office

	rounds  int
	totals  totals
	journal journal

	mu     sync.Mutex
	broken error // the first thing that was found by the load
}

// clients is how many stores there are beside the one that sees no network faults.
const clients = 3

// newSoak starts the server and prepares the stores.
func newSoak(t *testing.T, h Harness, p *pulse, length time.Duration) *soak {
	t.Helper()
	server := &FaultServer{}
	if h.Faults == nil {
		open := h.New
		h.Faults = &Faults{Open: func(t testing.TB, _ string, cfg *valkeyrie.Config) valkeyrie.Store { return open(t, cfg) }}
	} else {
		server = h.Faults.Start(t)
	}
	seed := uint64(setting(t, "VALKEYRIE_SOAK_SEED", int(rand.Uint32())))
	s := &soak{
		rig: newRig(t, h, server, p), length: length, begun: time.Now(),
		random: rand.New(rand.NewPCG(seed, 0)), locks: make(map[string]*holders),
	}
	s.totals.seed, s.journal.begun = seed, s.begun
	t.Logf("%v with VALKEYRIE_SOAK_SEED=%d", length, seed)
	var cancel context.CancelFunc
	s.rig.ctx, cancel = context.WithTimeout(context.Background(), length+10*time.Minute)
	t.Cleanup(cancel)
	s.ctx, s.stop = context.WithCancel(s.rig.ctx)
	for range clients {
		if server.Kill == nil {
			s.stores = append(s.stores, s.at("", nil))
			continue
		}
		one := s.proxy()
		s.proxies = append(s.proxies, one)
		s.stores = append(s.stores, s.through(one, nil))
	}
	t.Cleanup(func() { // before the stores are closed
		if t.Failed() {
			t.Logf("VALKEYRIE_SOAK_SEED=%d, %v after the beginning; the last faults:\n%s\ntotals so far\n%s",
				seed, time.Since(s.begun).Round(time.Millisecond), &s.journal, &s.totals)
		}
		s.halt()
	})
	return s
}

// begin starts all that lasts, while there are no faults yet.
func (s *soak) begin() {
	s.Helper()
	for _, kv := range s.stores {
		s.recovers(kv)
	}
	for i, kv := range s.stores[:2] {
		dir := s.key(fmt.Sprint("watched-", i))
		s.galleries = append(s.galleries, s.watchAll(kv, dir, dir+"/busy", dir+"/a", dir+"/recreated"))
	}
	s.startMixed()
	s.startLocks()
	s.startOffice()
	s.startVisitors()
}

// next tells whether there is time for another round.
func (s *soak) next() bool { return time.Since(s.begun) < s.length }

// round is some seconds with faults and the calm after them.
func (s *soak) round() {
	s.Helper()
	s.rounds++
	ctx, cancel := context.WithTimeout(s.ctx, s.roundLength())
	defer cancel()
	var quills []func() // stop the scribes
	for _, g := range s.galleries {
		quills = append(quills, g.scr.work(s.env, g.dir+"/busy", g.dir+"/a", g.dir+"/b/c", g.dir+"/recreated"))
	}
	h := newHistory(s.key(fmt.Sprint("histories-", s.rounds)))
	recorded := make(chan struct{})
	go func() {
		defer close(recorded)
		h.run(ctx, load{stores: s.persistent(), clients: 6, timeout: time.Second, breather: 20 * time.Millisecond})
	}()
	s.disturb(ctx)
	<-recorded
	for _, stop := range quills {
		stop()
	}
	s.sound()
	s.calm(h)
}

// roundLength is about 12 s, and less where the whole is short.
func (s *soak) roundLength() time.Duration {
	most := min(18*time.Second, s.length/3)
	return min(most/2+time.Duration(s.random.Int64N(int64(most)/2)), max(time.Second, s.length-time.Since(s.begun)))
}

// everyStore is all stores, the one that sees no network faults last.
func (s *soak) everyStore() []kvstore { return append(slices.Clone(s.stores), s.kv) }

// persistent are the stores for histories.
func (s *soak) persistent() []kvstore {
	var all []kvstore
	for _, kv := range s.everyStore() {
		all = append(all, persistent{kv, &s.totals.repeated})
	}
	return all
}

// work repeats a step of the load until it stops. A step takes some seconds at most.
func (s *soak) work(name string, step func(ctx context.Context) error) {
	s.workers.Go(func() {
		for pauseFor(s.ctx, 0, 10*time.Millisecond) {
			s.gate.RLock()
			err := step(s.ctx)
			s.gate.RUnlock()
			if err != nil {
				s.fail(fmt.Errorf("%s: %w", name, err))
				return
			}
		}
	})
}

// fail notes that something is broken, which ends the soak.
func (s *soak) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = fmt.Errorf("%v after the beginning: %w", time.Since(s.begun).Round(time.Millisecond), err)
	}
	s.stop()
}

// sound fails the test when the load has found something.
func (s *soak) sound() {
	s.Helper()
	for key, g := range s.locks {
		if err := g.failed(); err != nil {
			s.fail(fmt.Errorf("%s: %w", key, err))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NoError(s, s.broken)
}

// halt stops the load and waits for it.
func (s *soak) halt() {
	s.stop()
	s.workers.Wait()
}

// calm checks everything when the faults are over.
func (s *soak) calm(h *history) {
	s.Helper()
	for _, kv := range s.everyStore() {
		s.recovers(kv)
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	for _, g := range s.galleries {
		s.settle(g)
	}
	h.prove(s.env)
	s.totals.addHistory(h)
	s.cleared(h.dir)
	s.office.shown()
	s.sound()
	s.measure()
}

// settle compares what watches show, and drops what they have shown before.
func (s *soak) settle(g *gallery) {
	s.Helper()
	for _, key := range g.scr.keys() { // the last word on each key is one that was confirmed
		require.NoError(s, must(s.rig.ctx, g.scr.put, key))
	}
	begun := time.Now()
	g.settle(2 * patience)
	s.totals.settled = max(s.totals.settled, time.Since(begun)-pause)
	s.totals.written = 0
	for _, g := range s.galleries {
		s.totals.written += g.scr.next
	}
	g.scr.forget()
	for _, rec := range g.all() {
		rec.forget()
	}
}

// cleared deletes a directory.
func (s *soak) cleared(dir string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.rig.ctx, time.Minute)
	defer cancel()
	if err := s.kv.DeleteTree(ctx, dir); !errors.Is(err, valkeyrie.ErrKeyNotFound) {
		require.NoError(s, err)
	}
}
