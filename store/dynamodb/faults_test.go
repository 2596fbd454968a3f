package dynamodb

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestFaults(t *testing.T) { testutils.RunFaults(t, withFaults()) }

func TestSoak(t *testing.T) { testutils.RunSoak(t, withFaults()) }

// withFaults describes servers of a test's own to the suite.
func withFaults() testutils.Harness {
	h := harness("")
	h.LockTTL = 2 * time.Second // these servers have less to do
	// More of these servers at a time would leave each too little of a small
	// machine, as a Java that was just started is slow. The first is shared.
	places := make(chan struct{}, 3)
	h.Faults = &testutils.Faults{
		Seconds: 10,
		Start: func(t testing.TB) *testutils.FaultServer {
			t.Helper()
			places <- struct{}{}
			t.Cleanup(func() { <-places })
			server := testserver.StartDynamoDB(t)
			return &testutils.FaultServer{Addr: server.Addr(), Kill: server.Kill, Restart: server.Restart}
		},
		Leftovers: leftovers,
		Open: func(t testing.TB, addr string, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			return mustNew(t, addr, cfg, nil)
		},
	}
	return h
}

// leftovers are items, but for those that have expired, as the server sweeps these a day later.
func leftovers(t testing.TB, addr string) (left []string) {
	t.Helper()
	c := raw(t, addr)
	pages := dynamodb.NewScanPaginator(c, &dynamodb.ScanInput{TableName: aws.String("valkeyrie"), ConsistentRead: aws.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, a := range page.Items {
			i, err := decode(a)
			require.NoError(t, err)
			if i.expires == 0 || i.expires > time.Now().UnixMilli() {
				left = append(left, "item "+i.key)
			}
		}
	}
	return left
}
