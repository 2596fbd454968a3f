package backend

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute, for an example")
	}
	server := NewServer()
	testutils.Run(t, testutils.Harness{
		Backend: StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			kv, err := New(server, cfg)
			if err != nil {
				t.Fatal(err)
			}
			return kv
		},
		Keys: 1000, // of a large directory
	})
}
