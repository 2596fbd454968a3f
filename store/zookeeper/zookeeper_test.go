package zookeeper

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestMain(m *testing.M) { testserver.Main(m) }

// session is that of the tests' stores.
const session = 4 * time.Second

// harness describes a server to the suite.
func harness(endpoints []string) testutils.Harness {
	return testutils.Harness{
		Backend: StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			s, err := New(endpoints, cfg, &Options{SessionTimeout: session})
			require.NoError(t, err)
			return s
		},
		FIFO:    true,
		LockTTL: 2 * time.Second,
		// A key outlives a store that died by that of its session, which the server
		// notices a tick later, and the time until somebody looks, or two if that
		// was the one whose turn it was.
		CrashBound: session + testserver.ZooKeeperTick + 2*reapEvery,
		MaxValue:   defaultMaxValue,
	}
}

func TestConformance(t *testing.T) {
	testutils.Run(t, harness(testserver.ZooKeeper(t).Endpoints))
}
