package consul

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestMain(m *testing.M) { testserver.Main(m) }

// harness describes a server to the suite.
func harness(endpoints []string) testutils.Harness {
	return testutils.Harness{
		Backend: StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			s, err := New(endpoints, cfg, nil)
			require.NoError(t, err)
			return s
		},
		LockTTL:    2 * time.Second,
		CrashBound: 22 * time.Second, // a session lasts for up to twice 10 s
		MaxValue:   defaultMaxValue,
	}
}

func TestConformance(t *testing.T) {
	testutils.Run(t, harness(testserver.ConsulServer(t).Endpoints))
}
