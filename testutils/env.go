package testutils

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/kvtools/valkeyrie"
)

// patience is how long a check waits for something that must happen soon. It is
// generous: a check that fails by it has seen a hang, not a slow machine.
var patience = 20 * time.Second

// env is what one check works with: a store, a directory of its own and a
// context that ends long before the test binary does.
type env struct {
	*testing.T
	h   Harness
	ctx context.Context
	kv  valkeyrie.Store
	dir string // unique, so that checks do not meet on a shared server
}

// newEnv opens the store of a check.
func newEnv(t *testing.T, h Harness) *env {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	e := &env{T: t, h: h, ctx: ctx, dir: fmt.Sprintf("conf-%016x", rand.Uint64())}
	e.kv = e.open(nil)
	return e
}

// open opens one more store on the same data, closed at the end of the check.
func (e *env) open(cfg *valkeyrie.Config) valkeyrie.Store {
	e.Helper()
	if cfg == nil {
		cfg = &valkeyrie.Config{}
	}
	s := e.h.New(e.T, cfg)
	e.Cleanup(func() { _ = s.Close() }) // a check of Close may have closed it already
	return s
}

// key returns a key below the directory of the check.
func (e *env) key(name string) string { return e.dir + "/" + name }

// put writes a value that the check needs to be there.
func (e *env) put(key, value string) {
	e.Helper()
	require.NoError(e, e.kv.Put(e.ctx, key, []byte(value), nil))
}

// get reads a pair that must be there.
func (e *env) get(key string) *valkeyrie.KVPair {
	e.Helper()
	p, err := e.kv.Get(e.ctx, key, nil)
	require.NoError(e, err)
	require.NotNil(e, p)
	return p
}

// eventually polls until ok is true, for at most the given time.
func (e *env) eventually(within time.Duration, what string, ok func() bool) {
	e.Helper()
	end := time.Now().Add(within)
	for !ok() {
		if time.Now().After(end) {
			require.FailNow(e, "not within "+within.String()+": "+what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// receive takes the next value of a channel, which must come soon.
func receive[T any](e *env, ch <-chan T, what string) T {
	e.Helper()
	select {
	case v, open := <-ch:
		if !open {
			require.FailNow(e, "channel closed while waiting for "+what)
		}
		return v
	case <-time.After(patience):
		require.FailNow(e, "nothing received within "+patience.String()+": "+what)
	}
	panic("not reached")
}

// closes waits until a channel is closed, reading what is still in it.
func closes[T any](e *env, ch <-chan T, within time.Duration, what string) {
	e.Helper()
	timeout := time.After(within)
	for {
		select {
		case _, open := <-ch:
			if !open {
				return
			}
		case <-timeout:
			require.FailNow(e, "not closed within "+within.String()+": "+what)
		}
	}
}

// leakBaseline remembers the goroutines that are there before the suite.
func leakBaseline() goleak.Option { return goleak.IgnoreCurrent() }

// assertNoLeak fails when goroutines are left that were not there before.
func assertNoLeak(t *testing.T, before goleak.Option, within time.Duration) {
	t.Helper()
	end := time.Now().Add(within)
	for {
		err := goleak.Find(before)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
