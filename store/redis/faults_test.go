package redis

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

// TestFaults runs as a user of the ACL: each new connection must authenticate, and
// see TestLocksOutliveARestartWhereTheDefaultUserIsOff.
func TestFaults(t *testing.T) { testutils.RunFaults(t, withFaults()) }

func TestSoak(t *testing.T) { testutils.RunSoak(t, withFaults()) }

// withFaults describes servers of a test's own to the suite.
func withFaults() testutils.Harness {
	h := harness(nil, nil)
	h.Faults = &testutils.Faults{
		Start: func(t testing.TB) *testutils.FaultServer {
			t.Helper()
			one := testserver.StartRedis(t, testserver.RedisOptions{Durable: true, Args: onlyAnn}).Members[0]
			return &testutils.FaultServer{Addr: one.Addr(), Kill: one.Kill, Restart: one.Restart}
		},
		Open: func(t testing.TB, addr string, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			own := *cfg
			own.Username, own.Password = "ann", "ann"
			s, err := New([]string{addr}, &own, nil)
			require.NoError(t, err)
			return s
		},
	}
	return h
}

// onlyAnn are arguments of a server that ann alone may use.
var onlyAnn = []string{"--user", "ann", "on", ">ann", "~*", "&*", "+@all", "--user", "default", "off"}
