package dynamodb

import (
	"flag"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

// atOnce bounds how many checks run at a time. DynamoDB Local answers some hundred
// calls a second, whoever asks: with more, each waits for the others until it is
// too late for what it checks.
const atOnce = 4

func TestMain(m *testing.M) {
	flag.Parse()
	if n, err := strconv.Atoi(flag.Lookup("test.parallel").Value.String()); err == nil && n > atOnce {
		_ = flag.Set("test.parallel", strconv.Itoa(atOnce)) // takes any number
	}
	testserver.Main(m)
}

// harness describes a server to the suite.
func harness(addr string) testutils.Harness {
	return testutils.Harness{
		Backend: StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			t.Helper()
			return mustNew(t, addr, cfg, nil)
		},
		// Any TTL is exact, but DynamoDB Local answers only some hundred calls a
		// second, so that a renewal may take long while everything runs at once.
		LockTTL:    4 * time.Second,
		CrashBound: time.Second,
		MaxValue:   maxValue,
		// DynamoDB Local makes about 600 writes a second; TestListReadsOnlyItsTree
		// lists and deletes more than 10,000.
		Keys: 2_000,
	}
}

// mustNew opens a store on a server that looks at no credentials, but wants some.
func mustNew(t testing.TB, addr string, cfg *valkeyrie.Config, opts *Options) valkeyrie.Store {
	t.Helper()
	var with valkeyrie.Config
	if cfg != nil {
		with = *cfg
	}
	with.Username, with.Password = "test", "test"
	if opts == nil {
		opts = &Options{Create: true}
	}
	s, err := New([]string{addr}, &with, opts)
	require.NoError(t, err)
	return s
}

func TestConformance(t *testing.T) {
	testutils.Run(t, harness(testserver.DynamoDB(t)))
}
