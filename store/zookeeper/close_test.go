package zookeeper

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/store"
)

// TestCloseReturnsWhateverIsBegunMeanwhile has many begin requests on the
// connections that are being closed: the client hung then, see wire.Write.
func TestCloseReturnsWhateverIsBegunMeanwhile(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ZooKeeper(t).Endpoints
	settings, err := store.Settings(StoreName, nil)
	require.NoError(t, err)
	for range 15 {
		d, err := newDriver(endpoints, settings, (&Options{SessionTimeout: session}).withDefaults(""))
		require.NoError(t, err)
		g, err := d.main.ready(ctx, false)
		require.NoError(t, err)
		stop := make(chan struct{})
		var requests sync.WaitGroup
		for range 64 {
			requests.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_, _, _ = g.conn.Exists("/begun")
					}
				}
			})
		}
		closed := make(chan error, 1)
		go func() { closed <- d.Close() }()
		select {
		case err := <-closed:
			require.NoError(t, err)
		case <-ctx.Done():
			require.FailNow(t, "Close did not return")
		}
		close(stop)
		requests.Wait()
	}
}
