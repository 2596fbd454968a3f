package testserver

import (
	"context"
	"crypto/tls"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestZooKeeperServesAgainAfterKillAndRestart(t *testing.T) {
	z := StartZooKeeper(t, ZooKeeperOptions{})
	require.NoError(t, zooKeeperServes(t.Context(), z.Endpoints[0], z.Endpoints[0]))
	require.NoError(t, z.Members[0].Kill())
	require.Error(t, zooKeeperServes(t.Context(), z.Endpoints[0], z.Endpoints[0]))
	require.NoError(t, z.Members[0].Restart())
	require.NoError(t, zooKeeperServes(t.Context(), z.Endpoints[0], z.Endpoints[0]))
	watches, err := z.Watches(t.Context(), 0)
	require.NoError(t, err)
	require.Zero(t, watches)
}

func TestZooKeeperIsShared(t *testing.T) {
	t.Setenv("VALKEYRIE_TEST_ZOOKEEPER", "")
	require.Same(t, ZooKeeper(t), ZooKeeper(t))
}

func TestZooKeeperEnsembleElectsAnotherLeader(t *testing.T) {
	z := StartZooKeeper(t, ZooKeeperOptions{Members: 3})
	require.Len(t, z.Endpoints, 3)
	leader, err := z.Leader(t.Context())
	require.NoError(t, err)
	require.NoError(t, z.Members[leader].Kill())
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		next, err := z.Leader(ctx)
		return err == nil && next != leader
	}, time.Minute, 50*time.Millisecond)
	require.NoError(t, z.Members[leader].Restart())
}

func TestZooKeeperWithTLS(t *testing.T) {
	dial := func(addr string, cfg *tls.Config, patience time.Duration) error {
		d := tls.Dialer{Config: cfg}
		c, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		// With TLS 1.3 a server that misses the client's certificate says so after
		// the handshake; one that does not waits for the client.
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 1))
		return err
	}
	one := ZooKeeperTLS(t)
	require.ErrorIs(t, dial(one.Endpoints[0], one.Certs.ClientConfig(), time.Second), os.ErrDeadlineExceeded)
	require.Error(t, dial(one.Endpoints[0], &tls.Config{MinVersion: tls.VersionTLS12}, time.Minute), "its authority is not known elsewhere")

	mutual := ZooKeeperMutualTLS(t)
	require.ErrorIs(t, dial(mutual.Endpoints[0], mutual.Certs.MutualConfig(), time.Second), os.ErrDeadlineExceeded)
	err := dial(mutual.Endpoints[0], mutual.Certs.ClientConfig(), time.Minute)
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it wants a certificate")
}
