package zookeeper

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestFaults(t *testing.T) { testutils.RunFaults(t, withFaults()) }

func TestSoak(t *testing.T) { testutils.RunSoak(t, withFaults()) }

// withFaults describes servers of a test's own to the suite.
func withFaults() testutils.Harness {
	h := harness(nil)
	h.Faults = &testutils.Faults{
		Seconds: 10, // a Java server takes a second to start, and is slow until it is warm
		Start: func(t testing.TB) *testutils.FaultServer {
			t.Helper()
			server := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{}).Members[0]
			return &testutils.FaultServer{Addr: server.Addr(), Kill: server.Kill, Restart: server.Restart}
		},
		Open: func(t testing.TB, addr string, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			s, err := New([]string{addr}, cfg, &Options{SessionTimeout: session})
			require.NoError(t, err)
			return s
		},
	}
	return h
}
