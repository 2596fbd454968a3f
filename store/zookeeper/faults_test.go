package zookeeper

import (
	"errors"
	"slices"
	"testing"

	"github.com/go-zookeeper/zk"
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
		Leftovers: leftovers,
		Open: func(t testing.TB, addr string, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			s, err := New([]string{addr}, cfg, &Options{SessionTimeout: session})
			require.NoError(t, err)
			return s
		},
	}
	return h
}

// leftovers are nodes, but for the server's own and the three above the records of
// TTLs. What expires when no store is open goes with the first call of the next one.
func leftovers(t testing.TB, addr string) []string {
	t.Helper()
	next := open(t, []string{addr}, nil)
	_, err := next.Exists(t.Context(), "k", nil)
	require.NoError(t, err)
	require.NoError(t, next.Close())
	c := raw(t, []string{addr})
	var below func(path string) []string
	below = func(path string) (all []string) {
		names, _, err := c.Children(path)
		if errors.Is(err, zk.ErrNoNode) {
			return nil // went meanwhile
		}
		require.NoError(t, err)
		for _, name := range names {
			if at := child(path, name); at != "/zookeeper" {
				all = append(append(all, at), below(at)...)
			}
		}
		return all
	}
	return slices.DeleteFunc(below("/"), func(path string) bool {
		return slices.Contains([]string{"/.valkeyrie", "/.valkeyrie/ttl", "/.valkeyrie/ttl/open"}, path)
	})
}
