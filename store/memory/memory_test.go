package memory_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/memory"
	"github.com/kvtools/valkeyrie/testutils"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) { testutils.Run(t, harness(t)) }

func TestSoak(t *testing.T) { testutils.RunSoak(t, harness(t)) }

// harness describes a database of the test's own to the suite.
func harness(t testing.TB) testutils.Harness {
	name := t.Name()
	return testutils.Harness{
		Backend: memory.StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			s, err := memory.New([]string{name}, cfg, nil)
			require.NoError(t, err)
			return s
		},
	}
}

func open(t testing.TB, endpoints ...string) valkeyrie.Store {
	t.Helper()
	s, err := memory.New(endpoints, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it
	return s
}

func TestStoresWithTheSameNameShare(t *testing.T) {
	ctx := context.Background()
	a, b, other, alone := open(t, t.Name()), open(t, t.Name()), open(t, t.Name()+"2"), open(t)
	require.NoError(t, a.Put(ctx, "k", []byte("v"), nil))
	p, err := b.Get(ctx, "k", nil)
	require.NoError(t, err)
	require.Equal(t, "v", string(p.Value))
	for _, s := range []valkeyrie.Store{other, alone, open(t)} {
		_, err = s.Get(ctx, "k", nil)
		require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	}

	require.NoError(t, a.Close())
	_, err = a.Get(ctx, "k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrClosed)
	_, err = b.Get(ctx, "k", nil)
	require.NoError(t, err, "closing one leaves the others alone")
	require.NoError(t, b.Close())
	_, err = open(t, t.Name()).Get(ctx, "k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound, "the data goes with the last store")
}

func TestBadInput(t *testing.T) {
	for name, c := range map[string]struct {
		endpoints []string
		cfg       *valkeyrie.Config
		field     string
	}{
		"two names":          {[]string{"a", "b"}, nil, "endpoints"},
		"empty name":         {[]string{""}, nil, "endpoints"},
		"wrong options type": {nil, &valkeyrie.Config{Backend: 7}, "Config.Backend"},
		"wrong prefix":       {nil, &valkeyrie.Config{Prefix: "a/../b"}, "Config.Prefix"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := valkeyrie.NewStore(memory.StoreName, c.endpoints, c.cfg)
			var bad *valkeyrie.InvalidConfigError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, memory.StoreName, bad.Backend)
			require.Equal(t, c.field, bad.Field)
		})
	}
}
