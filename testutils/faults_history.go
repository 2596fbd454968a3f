package testutils

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/faultproxy"
)

var historyFaults = []faultCheck{
	{"concurrent calls have an order that explains all answers, whatever the network and the server do", true, historyOfFaults},
}

func historyOfFaults(r *rig) {
	const runs = 2
	length := time.Duration(r.faults.Seconds) * time.Second
	var all tally
	for i := range runs {
		ok := r.T.Run(fmt.Sprint("run ", i+1), func(t *testing.T) {
			one := newRig(t, r.h, r.server, r.pulse).disturbedHistory(length)
			t.Log(one)
			all.add(one)
		})
		require.True(r, ok)
	}
	r.Logf("%d runs of %v: %s", runs, length, all)
}

// tally counts what became of the calls.
type tally struct {
	calls, answered, ambiguous, notReachable, otherwise, keys, kills int
}

func (a *tally) add(b tally) {
	a.calls += b.calls
	a.answered += b.answered
	a.ambiguous += b.ambiguous
	a.notReachable += b.notReachable
	a.otherwise += b.otherwise
	a.keys += b.keys
	a.kills += b.kills
}

func (a tally) String() string {
	return fmt.Sprintf("%d calls on %d keys, %d answered, %d ambiguous, %d not reachable, %d failed otherwise; the server was killed %d times",
		a.calls, a.keys, a.answered, a.ambiguous, a.notReachable, a.otherwise, a.kills)
}

// disturbedHistory records a history while the networks of two of three stores
// and the server fail, and checks it.
func (r *rig) disturbedHistory(length time.Duration) tally {
	r.Helper()
	var refused atomic.Int64
	var stores []kvstore
	proxies := []*faultproxy.Proxy{r.proxy(), r.proxy()}
	for _, p := range proxies {
		stores = append(stores, persistent{r.through(p, nil), &refused})
	}
	stores = append(stores, persistent{r.kv, &refused})
	for _, s := range stores {
		r.recovers(s)
	}

	ctx, cancel := context.WithTimeout(r.ctx, length)
	defer cancel()
	h := newHistory(r.dir)
	wait := r.start(1+len(proxies), func(i int) error {
		if i < len(proxies) {
			return disturb(ctx, proxies[i])
		}
		h.run(ctx, load{stores: stores, clients: 9, timeout: time.Second, breather: 5 * time.Millisecond})
		return nil
	})
	kills := 0
	for pauseFor(ctx, time.Second, length/2) {
		require.NoError(r, r.server.Kill())
		kills++
		pauseFor(ctx, 0, 300*time.Millisecond)
		require.NoError(r, r.server.Restart())
	}
	wait()
	for _, s := range stores {
		r.recovers(s)
	}
	h.prove(r.env)

	sum := h.tally(int(refused.Load()))
	sum.kills = kills
	require.Greater(r, sum.answered, 250*int(length/time.Second)/r.faults.Seconds, "too few calls were answered to prove anything: %s", sum)
	return sum
}

// pauseFor waits for a random time; false when ctx is done.
func pauseFor(ctx context.Context, least, most time.Duration) bool {
	d := least
	if most > least {
		d += rand.N(most - least)
	}
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// disturb makes trouble on a network at random until ctx is done.
func disturb(ctx context.Context, p *faultproxy.Proxy) error {
	ways := []faultproxy.Direction{faultproxy.Both, faultproxy.ToServer, faultproxy.ToClient}
	for pauseFor(ctx, 20*time.Millisecond, 300*time.Millisecond) {
		way := ways[rand.IntN(len(ways))]
		switch rand.IntN(6) {
		case 0, 1:
			p.Cut()
		case 2:
			p.Blackhole(way)
		case 3:
			p.Hold(way)
		case 4:
			p.Delay(way, time.Millisecond+rand.N(100*time.Millisecond))
		case 5:
			refuse(p)
		}
		pauseFor(ctx, 0, 400*time.Millisecond)
		if err := restore(p); err != nil {
			return err
		}
	}
	return restore(p)
}

// persistent is a client that repeats what was not done: that is what
// ErrNotReachable is for. If it lies, a call takes effect twice, which no order
// explains. After an unknown outcome it takes a rest, as each of these makes the
// search for an order longer.
type persistent struct {
	kvstore
	refused *atomic.Int64
}

// errBoth: such an error tells its caller to repeat the call and not to.
var errBoth = errors.New("an error is both ErrNotReachable (not applied) and ErrAmbiguous (perhaps applied)")

func repeat[T any](ctx context.Context, s persistent, f func() (T, error)) (T, error) {
	for {
		v, err := f()
		away, unknown := errors.Is(err, valkeyrie.ErrNotReachable), errors.Is(err, valkeyrie.ErrAmbiguous)
		switch {
		case away && unknown:
			return v, fmt.Errorf("%w: %w", errBoth, err)
		case unknown:
			pauseFor(ctx, 0, 100*time.Millisecond)
			return v, err
		case !away:
			return v, err
		}
		s.refused.Add(1)
		if !pauseFor(ctx, 5*time.Millisecond, 30*time.Millisecond) {
			return v, err
		}
	}
}

func (s persistent) Get(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (*pair, error) {
	return repeat(ctx, s, func() (*pair, error) { return s.kvstore.Get(ctx, key, opts) })
}

func (s persistent) Put(ctx context.Context, key string, value []byte, opts *valkeyrie.WriteOptions) error {
	_, err := repeat(ctx, s, func() (any, error) { return nil, s.kvstore.Put(ctx, key, value, opts) })
	return err
}

func (s persistent) Delete(ctx context.Context, key string) error {
	_, err := repeat(ctx, s, func() (any, error) { return nil, s.kvstore.Delete(ctx, key) })
	return err
}

func (s persistent) AtomicPut(ctx context.Context, key string, value []byte, previous *pair, opts *valkeyrie.WriteOptions) (bool, *pair, error) {
	p, err := repeat(ctx, s, func() (*pair, error) {
		_, p, err := s.kvstore.AtomicPut(ctx, key, value, previous, opts)
		return p, err
	})
	return err == nil, p, err
}

func (s persistent) AtomicDelete(ctx context.Context, key string, previous *pair) (bool, error) {
	return repeat(ctx, s, func() (bool, error) { return s.kvstore.AtomicDelete(ctx, key, previous) })
}

// prove checks a history that was recorded while there were faults, and are no more.
func (h *history) prove(e *env) {
	e.Helper()
	h.readAll(e)
	for _, k := range h.keys {
		require.NoError(e, k.errorsAreTrue())
	}
	h.without(e).mustExplain(e)
}

// readAll reads every key once more: what was confirmed must still be there.
func (h *history) readAll(e *env) {
	e.Helper()
	h.mu.Lock()
	var keys []string
	for key := range h.keys {
		keys = append(keys, key)
	}
	h.mu.Unlock()
	c := client{h: h, id: -1, kv: e.kv, known: make(map[string]*pair)}
	for _, key := range keys {
		o := operation{client: c.id, kind: opGet, call: int64(time.Since(h.begin))}
		c.do(e.ctx, key, nil, &o)
		o.ret = int64(time.Since(h.begin))
		require.True(e, o.answered(), "a read after all faults: %v", o.err)
		h.add(0, key, o)
	}
}

// without returns the history without the calls that failed and, as their errors
// are not ErrAmbiguous, were not applied.
func (h *history) without(e *env) *history {
	e.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	strict := &history{dir: h.dir, begin: h.begin, keys: make(map[string]*keyHistory)}
	for key, k := range h.keys {
		for _, o := range k.ops {
			require.NotErrorIs(e, o.err, errBoth)
		}
		strict.keys[key] = &keyHistory{ops: definiteOf(k.ops), unknown: k.unknown}
	}
	return strict
}

// definiteOf leaves out the calls that were not applied by what their errors say.
func definiteOf(ops []operation) []operation {
	return slices.DeleteFunc(slices.Clone(ops), func(o operation) bool {
		return !o.answered() && !errors.Is(o.err, valkeyrie.ErrAmbiguous)
	})
}

// tally counts the calls; repeated is how many more were made and refused.
func (h *history) tally(repeated int) tally {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := tally{calls: repeated, notReachable: repeated, keys: len(h.keys)}
	for _, k := range h.keys {
		for _, o := range k.ops {
			sum.calls++
			switch {
			case o.answered():
				sum.answered++
			case errors.Is(o.err, valkeyrie.ErrAmbiguous):
				sum.ambiguous++
			case errors.Is(o.err, valkeyrie.ErrNotReachable):
				sum.calls-- // the last of its attempts, which are among the repeated
			default:
				sum.otherwise++
			}
		}
	}
	return sum
}
