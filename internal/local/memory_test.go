package local

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMemoryIsAMap(t *testing.T) {
	m := NewMemory()
	model := map[string]uint64{}
	type past struct {
		view View
		want map[string]uint64
	}
	var views []past
	check := func(v View, want map[string]uint64) {
		for _, prefix := range []string{"", "a/", "a/1", "b/"} {
			keys := []string{}
			v.Scan(prefix, "", func(key string, r Record, err error) bool {
				require.NoError(t, err)
				require.Equal(t, want[key], r.Revision)
				keys = append(keys, key)
				return true
			})
			expect := slices.DeleteFunc(slices.Sorted(maps.Keys(want)), func(k string) bool { return !strings.HasPrefix(k, prefix) })
			require.Equal(t, append([]string{}, expect...), keys)
		}
	}
	for round := range 300 {
		require.NoError(t, m.Update(func(tx Tx) error {
			for range rand.IntN(20) {
				key := fmt.Sprintf("%c/%d", 'a'+rune(rand.IntN(2)), rand.IntN(60))
				if rand.IntN(3) == 0 {
					delete(model, key)
					require.NoError(t, tx.Delete(key))
					continue
				}
				r, err := tx.NextRevision()
				require.NoError(t, err)
				model[key] = r
				require.NoError(t, tx.Put(key, Record{Revision: r}))
				got, found, err := tx.Get(key)
				require.NoError(t, err)
				require.True(t, found)
				require.Equal(t, r, got.Revision)
			}
			return nil
		}))
		if round%30 == 0 {
			v, err := m.View()
			require.NoError(t, err)
			views = append(views, past{v, maps.Clone(model)})
		}
	}
	for _, p := range views {
		check(p.view, p.want) // later transactions did not touch them
	}
	errRollback := fmt.Errorf("no")
	require.ErrorIs(t, m.Update(func(tx Tx) error {
		require.NoError(t, tx.Put("a/new", Record{Revision: 1}))
		return errRollback
	}), errRollback)
	v, err := m.View()
	require.NoError(t, err)
	check(v, model)
}

func TestMemoryStaysShallow(t *testing.T) {
	m := NewMemory().(*memory)
	const n = 1 << 14
	require.NoError(t, m.Update(func(tx Tx) error {
		for i := range n { // in order, the worst case of a plain tree
			if err := tx.Put(fmt.Sprintf("%08d", i), Record{Revision: 1}); err != nil {
				return err
			}
		}
		return nil
	}))
	var depth func(*node) int
	depth = func(n *node) int {
		if n == nil {
			return 0
		}
		return 1 + max(depth(n.left), depth(n.right))
	}
	require.Less(t, depth(m.state.Load().root), 80)
}
