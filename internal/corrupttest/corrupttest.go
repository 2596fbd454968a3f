// Package corrupttest says what every backend does with a key whose stored data
// cannot be read.
package corrupttest

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// patience bounds everything.
const patience = 30 * time.Second

// Run damages a key of a store that is open, in a way after the other, and checks
// that every read says which key it is, and that the library can repair it. No
// prefix is set. Nothing else is below the directory.
func Run(t *testing.T, s valkeyrie.Store, dir string, damages map[string]func(key string)) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	key, other := dir+"/damaged", dir+"/other"
	require.NoError(t, s.Put(ctx, other, []byte("whole"), nil))
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			states, err := s.WatchTree(ctx, dir, nil)
			require.NoError(t, err)
			require.Len(t, <-states, 1)
			damage(key)
			refused(ctx, t, s, dir, key)
			p, err := s.Get(ctx, other, nil)
			require.NoError(t, err)
			assert.Equal(t, "whole", string(p.Value), "the others can be read")

			require.NoError(t, s.Put(ctx, key, []byte("repaired"), nil))
			p, err = s.Get(ctx, key, nil)
			require.NoError(t, err)
			assert.Equal(t, "repaired", string(p.Value))
			awaitLen(ctx, t, states, 2, "a watch outlives the damage")

			damage(key)
			require.NoError(t, s.Delete(ctx, key))
			there, err := s.Exists(ctx, key, nil)
			require.NoError(t, err)
			assert.False(t, there)
			awaitLen(ctx, t, states, 1, "a watch outlives the damage")

			damage(dir + "/tree/damaged")
			require.NoError(t, s.DeleteTree(ctx, dir+"/tree"))
			require.ErrorIs(t, s.DeleteTree(ctx, dir+"/tree"), valkeyrie.ErrKeyNotFound)
		})
	}
}

// refused makes each call that reads the key.
func refused(ctx context.Context, t *testing.T, s valkeyrie.Store, dir, key string) {
	t.Helper()
	for name, call := range map[string]func() error{
		"Get":       func() error { _, err := s.Get(ctx, key, nil); return err },
		"List":      func() error { _, err := s.List(ctx, dir, nil); return err },
		"Watch":     func() error { _, err := s.Watch(ctx, key, nil); return err },
		"WatchTree": func() error { _, err := s.WatchTree(ctx, dir, nil); return err },
		"Walk": func() (last error) {
			for _, err := range s.Walk(ctx, dir, nil) {
				last = err
			}
			return last
		},
		"Events": func() (last error) {
			for _, err := range s.Events(ctx, dir, &valkeyrie.WatchOptions{Tree: true}) {
				last = err
			}
			return last
		},
	} {
		err := call()
		require.ErrorIs(t, err, valkeyrie.ErrCorrupt, name)
		assert.ErrorContains(t, err, strconv.Quote(key), "%s says which key it is", name)
		var op *valkeyrie.OpError
		require.ErrorAs(t, err, &op)
		assert.Equal(t, name, op.Op)
	}
	for name, call := range map[string]func() error{
		"AtomicPut of nothing": func() error { _, _, err := s.AtomicPut(ctx, key, nil, nil, nil); return err },
		"AtomicPut": func() error {
			_, _, err := s.AtomicPut(ctx, key, nil, &valkeyrie.KVPair{Key: key, LastIndex: 1}, nil)
			return err
		},
		"AtomicDelete": func() error {
			_, err := s.AtomicDelete(ctx, key, &valkeyrie.KVPair{Key: key, LastIndex: 1})
			return err
		},
		"TryLock": func() error {
			l, err := s.NewLock(ctx, key, nil)
			require.NoError(t, err)
			_, err = l.TryLock(ctx)
			return err
		},
	} {
		err := call()
		// Redis' scripts take it for somebody else's data; nobody takes it for nothing.
		require.Error(t, err, name)
		assert.NotErrorIs(t, err, valkeyrie.ErrKeyNotFound, name)
		assert.ErrorContains(t, err, strconv.Quote(key), name)
	}
}

// awaitLen waits until a watch shows so many keys.
func awaitLen(ctx context.Context, t *testing.T, states <-chan []*valkeyrie.KVPair, n int, why string) {
	t.Helper()
	for {
		select {
		case state, more := <-states:
			require.True(t, more, why)
			if len(state) == n {
				return
			}
		case <-ctx.Done():
			require.Fail(t, "not seen in time", why)
		}
	}
}
