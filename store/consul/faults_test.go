package consul

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
		Start: func(t testing.TB) *testutils.FaultServer {
			t.Helper()
			server := testserver.StartConsul(t, testserver.ConsulOptions{}).Members[0]
			return &testutils.FaultServer{Addr: server.Addr(), Kill: server.Kill, Restart: server.Restart}
		},
		Leftovers: leftovers,
		Open: func(t testing.TB, addr string, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			s, err := New([]string{addr}, cfg, nil)
			require.NoError(t, err)
			return s
		},
	}
	return h
}

// leftovers are keys and sessions.
func leftovers(t testing.TB, addr string) (left []string) {
	t.Helper()
	c := raw(t, []string{addr})
	keys, _, err := c.KV().Keys("", "", nil)
	require.NoError(t, err)
	for _, key := range keys {
		left = append(left, "key "+key)
	}
	for id := range sessions(t, c) {
		left = append(left, "session "+id)
	}
	return left
}
