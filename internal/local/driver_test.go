package local

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

func TestConditions(t *testing.T) {
	e := newEnv(t)
	one := e.put("k", "1", 0)
	_, err := e.Write(e.ctx, store.Write{Key: "k", Create: true})
	require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
	_, err = e.Write(e.ctx, store.Write{Key: "k", IfRevision: one + 1})
	require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
	_, err = e.Write(e.ctx, store.Write{Key: "none", IfRevision: one})
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	require.ErrorIs(t, e.Delete(e.ctx, "k", one+1), valkeyrie.ErrKeyModified)
	require.ErrorIs(t, e.Delete(e.ctx, "none", one), valkeyrie.ErrKeyNotFound)
	require.ErrorIs(t, e.Delete(e.ctx, "none", 0), valkeyrie.ErrKeyNotFound)
	_, err = e.Renew(e.ctx, "k", one+1, time.Hour)
	require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
	_, err = e.Renew(e.ctx, "none", one, time.Hour)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)

	w, err := e.Write(e.ctx, store.Write{Key: "k", Value: []byte{}, IfRevision: one})
	require.NoError(t, err)
	p, err := e.Get(e.ctx, "k", valkeyrie.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, &valkeyrie.KVPair{Key: "k", Value: []byte{}, LastIndex: w.Revision}, p)
	require.NoError(t, e.Delete(e.ctx, "k", w.Revision))
	_, err = e.Write(e.ctx, store.Write{Key: "k", Create: true})
	require.NoError(t, err)
}

func TestRevisionsNeverRepeat(t *testing.T) {
	e := newEnv(t)
	seen := map[uint64]bool{}
	for range 50 {
		for _, key := range []string{"a", "b"} {
			r := e.put(key, "same", 0)
			require.NotZero(t, r)
			require.False(t, seen[r])
			seen[r] = true
		}
		require.NoError(t, e.Delete(e.ctx, "a", 0))
	}
}

func TestDeleteTree(t *testing.T) {
	e := newEnv(t)
	for _, key := range []string{"d", "d/a", "d/b/c", "da", "d0"} {
		e.put(key, "", 0)
	}
	require.ErrorIs(t, e.DeleteTree(e.ctx, "none/"), valkeyrie.ErrKeyNotFound)
	require.ErrorIs(t, e.DeleteTree(e.ctx, "da/"), valkeyrie.ErrKeyNotFound)
	before := e.f.count()
	require.NoError(t, e.DeleteTree(e.ctx, "d/"))
	require.Equal(t, before+1, e.f.count())
	require.Equal(t, []string{"d", "d0", "da"}, e.keys(""))
}

func TestWalk(t *testing.T) {
	e := newEnv(t)
	const n = 3*pageKeys + 7
	var want []string
	for i := range n {
		key := fmt.Sprintf("d/%05d", i)
		want = append(want, key)
		e.put(key, "v", 0)
	}
	require.Equal(t, want, e.keys("d/"))
	require.Empty(t, e.keys("d/00001/"))

	// What exists from start to end is in it, whatever happens meanwhile.
	var got []string
	for p, err := range e.Walk(e.ctx, "d/", valkeyrie.ReadOptions{}) {
		require.NoError(t, err)
		if len(got)%100 == 0 {
			e.put(p.Key+"/new", "", 0)
			require.NoError(t, e.Delete(e.ctx, p.Key, 0))
		}
		if len(p.Value) > 0 {
			got = append(got, p.Key)
		}
	}
	require.Equal(t, want, got)

	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	var last error
	for _, err := range e.Walk(ctx, "d/", valkeyrie.ReadOptions{}) {
		cancel()
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
}

func TestWalkHoldsFewBytes(t *testing.T) {
	e := newEnv(t)
	for i := range 4 {
		e.put(fmt.Sprint("d/", i), string(make([]byte, pageBytes)), 0)
	}
	page, more, err := e.page("d/", "d/", false, nil)
	require.NoError(t, err)
	require.True(t, more)
	require.Len(t, page, 1)
	require.Len(t, e.keys("d/"), 4)
}
