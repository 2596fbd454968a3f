package memory_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/memory"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	name := t.Name()
	testutils.Run(t, testutils.Harness{
		Backend: memory.StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			s, err := memory.New([]string{name}, cfg, nil)
			require.NoError(t, err)
			return s
		},
	})
}
