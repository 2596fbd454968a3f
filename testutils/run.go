package testutils

import (
	"testing"
	"time"
)

// check is one sentence of the contract.
type check struct {
	name string
	run  func(e *env)
}

// area is a part of the contract; its checks run side by side.
type area struct {
	name   string
	checks []check
}

// areas is the whole contract, in the order of package valkeyrie's documentation.
func areas() []area {
	return []area{
		{"Keys", keyChecks},
		{"Values", valueChecks},
		{"Revisions", revisionChecks},
		{"Atomic", atomicChecks},
		{"Lists", listChecks},
		{"TTL", ttlChecks},
		{"Watch", watchChecks},
		{"WatchTree", watchTreeChecks},
		{"Events", eventsChecks},
		{"Locks", lockChecks},
		{"Elections", electionChecks},
		{"Contexts", contextChecks},
		{"Close", closeChecks},
		{"Linearizability", historyChecks},
	}
}

// Run runs the conformance suite. It needs about a minute, most of which is
// waiting for TTLs; its subtests run in parallel, so -parallel shortens it.
func Run(t *testing.T, h Harness) {
	h = h.withDefaults()
	before := leakBaseline()
	t.Run("contract", func(t *testing.T) {
		for _, a := range areas() {
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				for _, c := range a.checks {
					t.Run(c.name, func(t *testing.T) {
						t.Parallel()
						c.run(newEnv(t, h))
					})
				}
			})
		}
	})
	t.Run("no goroutine outlives Close", func(t *testing.T) {
		assertNoLeak(t, before, 5*time.Second)
	})
}
