package etcdv2

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	client "go.etcd.io/etcd/client/v2"

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
			server := testserver.StartEtcdV2(t, testserver.EtcdOptions{}).Members[0]
			keys := raw(t, server.Addr())
			return &testutils.FaultServer{
				Addr:    server.Addr(),
				Kill:    server.Kill,
				Restart: server.Restart,
				Compact: func(ctx context.Context) error { return forget(ctx, keys) },
			}
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

// forget makes a server forget all events that there were: it keeps 1,000.
func forget(ctx context.Context, keys client.KeysAPI) error {
	var writers sync.WaitGroup
	failed := make(chan error, 16)
	for range cap(failed) {
		writers.Go(func() {
			for range 1024 / cap(failed) {
				if _, err := keys.Set(ctx, "/history", "", nil); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	writers.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	_, err := keys.Delete(ctx, "/history", nil)
	return err
}

// leftovers are values. Directories stay when they become empty; see docs/compatibility.md.
func leftovers(t testing.TB, addr string) []string {
	t.Helper()
	all, err := raw(t, addr).Get(t.Context(), "/", &client.GetOptions{Recursive: true, Quorum: true})
	require.NoError(t, err)
	var below func(n *client.Node) []string
	below = func(n *client.Node) (left []string) {
		if !n.Dir {
			return []string{"value " + n.Key}
		}
		for _, one := range n.Nodes {
			left = append(left, below(one)...)
		}
		return left
	}
	return below(all.Node)
}
