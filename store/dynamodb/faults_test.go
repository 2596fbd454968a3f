package dynamodb

import (
	"testing"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestFaults(t *testing.T) { testutils.RunFaults(t, withFaults()) }

func TestSoak(t *testing.T) { testutils.RunSoak(t, withFaults()) }

// withFaults describes servers of a test's own to the suite.
func withFaults() testutils.Harness {
	h := harness("")
	h.LockTTL = 2 * time.Second // these servers have less to do
	// More of these servers at a time would leave each too little of a small
	// machine, as a Java that was just started is slow. The first is shared.
	places := make(chan struct{}, 3)
	h.Faults = &testutils.Faults{
		Seconds: 10,
		Start: func(t testing.TB) *testutils.FaultServer {
			t.Helper()
			places <- struct{}{}
			t.Cleanup(func() { <-places })
			server := testserver.StartDynamoDB(t)
			return &testutils.FaultServer{Addr: server.Addr(), Kill: server.Kill, Restart: server.Restart}
		},
		Open: func(t testing.TB, addr string, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			return mustNew(t, addr, cfg, nil)
		},
	}
	return h
}
