package testutils

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/faultproxy"
)

// Faults tells RunFaults how to get servers that it may do anything with.
type Faults struct {
	// Start starts a server that belongs to the test and ends with it, or skips
	// the test where there is none. It is called in the test's goroutine.
	Start func(t testing.TB) *FaultServer

	// Open opens a store that talks to the server at addr, a host:port, and to
	// nothing else: also not to addresses that the server tells, as these lead
	// around the proxy that stands at addr. It is also called in a child process
	// in which Start was not called. cfg is never nil. The suite closes the store.
	Open func(t testing.TB, addr string, cfg *valkeyrie.Config) valkeyrie.Store

	// Seconds is how long a history is recorded while faults happen, and contenders
	// for a lock a little longer. A server that takes seconds to start, and is slow
	// then, needs more time for as many answers. Default 5.
	Seconds int

	// Leftovers asks the server at addr, with its own tools, what is left when all
	// stores are closed and all keys deleted: leases, sessions, records of the
	// library's own. RunSoak asks again until nothing is left, for as long as it
	// takes what only expires. nil: there is nothing but keys.
	Leftovers func(t testing.TB, addr string) []string
}

// defaultSeconds is the default of Faults.Seconds.
const defaultSeconds = 5

// FaultServer is one server. Its functions return when what they do is done.
type FaultServer struct {
	// Addr is the host:port of the server, the same after a restart.
	Addr string

	// Kill ends the server at once, with SIGKILL. Killing one that does not run
	// does nothing.
	Kill func() error

	// Restart kills the server if it runs, starts it on its data and waits until
	// it answers.
	Restart func() error

	// Compact makes the server forget all history, so that a watch that was
	// interrupted cannot go on where it was. nil: the server has no such thing.
	Compact func(ctx context.Context) error
}

// faultCheck is one sentence about what holds in spite of faults.
type faultCheck struct {
	name string
	own  bool // it kills its server, so it needs one for itself
	run  func(r *rig)
}

// faultChecks lists all of them, the long ones first.
func faultChecks() []faultCheck {
	var all []faultCheck
	for _, checks := range [][]faultCheck{historyFaults, watchFaults, lockFaults, electionFaults, ttlFaults, callFaults} {
		all = append(all, checks...)
	}
	return all
}

// RunFaults runs the tests that put faults between a store and its server: a
// network that cuts, swallows, holds and delays, a server that is killed and
// restarted, a client that is stopped. It needs Harness.Faults, and of the
// others of Harness's fields all but New and Baseline. It takes about a minute.
//
// A backend's test calls it as the first thing that it does, since RunFaults
// starts that very test in child processes, as the clients that are stopped and killed:
//
//	func TestFaults(t *testing.T) {
//		testutils.RunFaults(t, harness)
//	}
func RunFaults(t *testing.T, h Harness) {
	h = h.withDefaults()
	require.NotNil(t, h.Faults, "RunFaults needs Harness.Faults")
	faults := *h.Faults
	faults.Seconds = cmp.Or(faults.Seconds, defaultSeconds)
	h.Faults = &faults
	if role := os.Getenv(childVariable); role != "" {
		beChild(t, h, role)
		return
	}
	before := leakBaseline()
	t.Run("faults", func(t *testing.T) {
		p := startPulse()
		t.Cleanup(p.end)
		shared := h.Faults.Start(t) // for the checks that leave it alone
		for _, c := range faultChecks() {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				server := shared
				if c.own {
					server = h.Faults.Start(t)
				}
				c.run(newRig(t, h, server, p))
			})
		}
	})
	t.Run("no goroutine outlives Close", func(t *testing.T) {
		assertNoLeak(t, before, 5*time.Second)
	})
}

// rig is the env of a check with faults. Its stores, that of the env and what
// open opens, talk to the server directly and see no fault of the network.
type rig struct {
	*env
	faults *Faults
	server *FaultServer
	pulse  *pulse
	stores atomic.Int64 // numbers them
	log    *syncBuffer
}

// syncBuffer keeps the end of what is written to it.
type syncBuffer struct {
	mu    sync.Mutex
	lines []string
}

func (b *syncBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, string(line))
	if len(b.lines) > 200 {
		b.lines = b.lines[100:]
	}
	return len(line), nil
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.lines, "")
}

// newRig makes the rig of a check.
func newRig(t *testing.T, h Harness, server *FaultServer, p *pulse) *rig {
	t.Helper()
	r := &rig{faults: h.Faults, server: server, pulse: p, log: new(syncBuffer)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of what the stores logged (1 talks to the server directly):\n%s", r.log)
		}
	})
	h.New = func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
		t.Helper()
		return r.openAt(t, server.Addr, cfg)
	}
	r.env = newEnv(t, h)
	return r
}

// openAt opens a store that logs to where a failure shows it.
func (r *rig) openAt(t testing.TB, addr string, cfg *valkeyrie.Config) valkeyrie.Store {
	t.Helper()
	with := *cfg
	with.Logger = slog.New(slog.NewTextHandler(r.log, nil)).With("store", r.stores.Add(1))
	return r.faults.Open(t, addr, &with)
}

// at opens a store that reaches the server through what stands at addr.
func (r *rig) at(addr string, cfg *valkeyrie.Config) kvstore {
	r.Helper()
	if cfg == nil {
		cfg = &valkeyrie.Config{}
	}
	s := r.openAt(r.T, addr, cfg)
	r.Cleanup(func() { _ = s.Close() })
	return s
}

// through opens a store that reaches the server through the proxy.
func (r *rig) through(p *faultproxy.Proxy, cfg *valkeyrie.Config) kvstore {
	r.Helper()
	return r.at(p.Addr(), cfg)
}

// sub runs a part of a check with a rig of its own, beside the other parts.
func (r *rig) sub(name string, run func(r *rig)) {
	r.T.Run(name, func(t *testing.T) {
		t.Parallel()
		run(newRig(t, r.h, r.server, r.pulse))
	})
}

// proxy puts a proxy in front of the server, closed at the end of the check.
func (r *rig) proxy() *faultproxy.Proxy {
	r.Helper()
	p, err := faultproxy.New(r.server.Addr)
	require.NoError(r, err)
	r.Cleanup(p.Close)
	return p
}

// outage is a way in which a network fails.
type outage struct {
	name   string
	resets bool // connections, on which requests may be under way
	begin  func(p *faultproxy.Proxy)
}

// outages are those that last until Pass.
var outages = []outage{
	{"everything is lost", false, func(p *faultproxy.Proxy) { p.Blackhole(faultproxy.Both) }},
	{"requests are lost", false, func(p *faultproxy.Proxy) { p.Blackhole(faultproxy.ToServer) }},
	{"answers are lost", false, func(p *faultproxy.Proxy) { p.Blackhole(faultproxy.ToClient) }},
	{"everything is late", false, func(p *faultproxy.Proxy) { p.Hold(faultproxy.Both) }},
	{"connections are reset, new ones refused", true, refuse},
	{"connections are reset, new ones are silent", true, func(p *faultproxy.Proxy) {
		p.Blackhole(faultproxy.Both)
		p.Cut()
	}},
}

// refuse makes the server look gone.
func refuse(p *faultproxy.Proxy) {
	p.Refuse()
	p.Cut()
}

// restore ends all faults of a network. Something else on the machine may have the
// port for a moment that the proxy had let go of to refuse connections.
func restore(p *faultproxy.Proxy) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := p.Pass(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// recovers waits until the store works again after the network or the server
// was away: by itself, and without a new store.
func (r *rig) recovers(s kvstore) {
	r.Helper()
	key := r.key("recovered")
	var last error
	end := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(r.ctx, time.Second)
		last = s.Put(ctx, key, []byte("v"), nil)
		cancel()
		if last == nil {
			break
		}
		if time.Now().After(end) {
			require.FailNow(r, "the store does not work again "+patience.String()+" after the fault was over", "%v", last)
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, err := s.Get(r.ctx, key, nil)
	require.NoError(r, err)
}
