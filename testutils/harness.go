// Package testutils proves that a backend keeps the contract of package
// valkeyrie. A backend's test calls Run once:
//
//	func TestConformance(t *testing.T) {
//		testutils.Run(t, testutils.Harness{
//			Backend: "memory",
//			New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
//				s, err := memory.New([]string{t.Name()}, cfg, nil)
//				require.NoError(t, err)
//				return s
//			},
//		})
//	}
//
// The subtests are named after the sentences of the contract, so that a failure
// reads as a broken promise. Backends outside this module run the same suite.
package testutils

import (
	"testing"
	"time"

	"github.com/kvtools/valkeyrie"
)

// Harness tells the suite how to reach one backend and what it declares that
// its server cannot do. The zero value of each option demands the whole contract.
type Harness struct {
	// Backend is the name that the backend's errors carry in OpError.Backend.
	Backend string

	// New opens one more store, as another process would, on the same data:
	// what one writes the others see. cfg is never nil; New adds to it what the
	// server needs. The suite closes every store it opens. It may run many
	// subtests at once, each below a directory of its own, so the server may
	// hold other data.
	New func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store

	// FIFO: waiters get a lock in the order in which they asked.
	FIFO bool

	// NoChildrenOfValues: a key that holds a value cannot have keys below it
	// (etcd v2). The suite then asserts that trying is ErrCallNotSupported, and
	// leaves out what is built on it.
	NoChildrenOfValues bool

	// LockTTL is the shortest TTL at which the server times a lock exactly; the
	// suite uses it wherever a lock has to expire. Default 1 s.
	LockTTL time.Duration

	// CrashBound is how much later than its TTL a key or a hold may still be
	// there when the process that wrote it died, as docs/compatibility.md
	// states. Default 1 s.
	CrashBound time.Duration

	// HandOver is how long after Unlock a waiter may take to hold the lock.
	// Default 500 ms, which leaves room for a busy machine.
	HandOver time.Duration

	// MaxValue is the size in bytes of the largest value that the server takes;
	// 0: it has no limit that a test should try.
	MaxValue int

	// Keys is how many keys the tests of large directories use. Default 10,000.
	Keys int

	// Baseline opens the backend's own client for Benchmark, which puts the same
	// load on it as on the store. Default: no baseline, so no ratios.
	Baseline func(b testing.TB) Native

	// Faults is what RunFaults needs; nil for a backend without a server.
	Faults *Faults
}

// withDefaults fills in what is not set.
func (h Harness) withDefaults() Harness {
	if h.LockTTL == 0 {
		h.LockTTL = time.Second
	}
	if h.CrashBound == 0 {
		h.CrashBound = time.Second
	}
	if h.HandOver == 0 {
		h.HandOver = 500 * time.Millisecond
	}
	if h.Keys == 0 {
		h.Keys = 10_000
	}
	return h
}
