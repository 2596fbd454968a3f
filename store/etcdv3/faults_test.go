package etcdv3

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

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
			server := testserver.StartEtcdV3(t, testserver.EtcdOptions{}).Members[0]
			return &testutils.FaultServer{
				Addr:    server.Addr(),
				Kill:    server.Kill,
				Restart: server.Restart,
				Compact: func(ctx context.Context) error { return compact(ctx, server.Addr()) },
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

// compact makes a server forget all revisions but the current one.
func compact(ctx context.Context, addr string) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer c.Close()
	status, err := c.Status(ctx, addr)
	if err != nil {
		return err
	}
	_, err = c.Compact(ctx, status.Header.Revision, clientv3.WithCompactPhysical())
	return err
}

// leftovers are keys and leases.
func leftovers(t testing.TB, addr string) (left []string) {
	t.Helper()
	c, ctx := raw(t, []string{addr}), t.Context()
	keys, err := c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	for _, kv := range keys.Kvs {
		left = append(left, fmt.Sprintf("key %s, lease %x", kv.Key, kv.Lease))
	}
	leases, err := c.Leases(ctx)
	require.NoError(t, err)
	for _, l := range leases.Leases {
		left = append(left, fmt.Sprintf("lease %x", l.ID))
	}
	return left
}
