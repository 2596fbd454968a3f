package etcdv2

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
		NoChildrenOfValues: true,
		CrashBound:         3 * time.Second,
		MaxValue:           maxValue,
	}
}

func TestConformance(t *testing.T) {
	testutils.Run(t, harness(testserver.EtcdV2(t).Endpoints))
}
