package testutils

import (
	"errors"
	"fmt"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var revisionChecks = []check{
	{"every write gives the key a revision it has never had, also for an identical value", revisionsEveryWrite},
	{"every write gives the key a revision it has never had, also after a delete", revisionsRecreate},
	{"every write gives the key a revision it has never had, also when many write at once", revisionsConcurrent},
	{"all stores and all reads agree on the revision", revisionsAgree},
	{"a pair from before a delete and re-create is refused", revisionsStale},
	{"a revision stays as long as its key is not written", revisionsStay},
}

// seen collects the revisions of one key.
type seen map[uint64]string

// add asserts that the revision is a new one.
func (s seen) add(e *env, revision uint64, how string) {
	e.Helper()
	require.NotZero(e, revision, "revision after %s", how)
	before, repeated := s[revision]
	require.False(e, repeated, "%s repeated revision %d of %s", how, revision, before)
	s[revision] = how
}

func revisionsEveryWrite(e *env) {
	other := e.open(nil)
	key := e.key("k")
	all := seen{}
	for i := range 50 {
		for name, s := range map[string]kvstore{"one store": e.kv, "another store": other} {
			require.NoError(e, s.Put(e.ctx, key, []byte("same"), nil))
			p := e.get(key)
			all.add(e, p.LastIndex, fmt.Sprintf("Put %d by %s", i, name))
			_, p, err := s.AtomicPut(e.ctx, key, []byte("same"), p, nil)
			require.NoError(e, err)
			all.add(e, p.LastIndex, fmt.Sprintf("AtomicPut %d by %s", i, name))
		}
	}
}

func revisionsRecreate(e *env) {
	other := e.open(nil)
	key, dir := e.key("d/k"), e.key("d")
	all := seen{}
	for i := range 50 {
		s := []kvstore{e.kv, other}[i%2]
		require.NoError(e, s.Put(e.ctx, key, nil, nil))
		p := e.get(key)
		all.add(e, p.LastIndex, fmt.Sprint("Put ", i))
		switch i % 3 { // each way to delete may forget the revision in a way of its own
		case 0:
			require.NoError(e, s.Delete(e.ctx, key))
		case 1:
			_, err := s.AtomicDelete(e.ctx, key, p)
			require.NoError(e, err)
		case 2:
			require.NoError(e, s.DeleteTree(e.ctx, dir))
		}
		_, p, err := s.AtomicPut(e.ctx, key, nil, nil, nil)
		require.NoError(e, err)
		all.add(e, p.LastIndex, fmt.Sprint("create ", i))
		require.NoError(e, s.Delete(e.ctx, key))
	}
}

func revisionsConcurrent(e *env) {
	other := e.open(nil)
	key := e.key("k")
	e.put(key, "start")
	var mu sync.Mutex
	writes := make(map[uint64]int)
	require.NoError(e, together(8, func(i int) error {
		s := []kvstore{e.kv, other}[i%2]
		for range 25 {
			p, err := s.Get(e.ctx, key, nil)
			if err != nil {
				return err
			}
			ok, p, err := s.AtomicPut(e.ctx, key, []byte("same"), p, nil)
			if errors.Is(err, valkeyrie.ErrKeyModified) {
				err = s.Put(e.ctx, key, []byte("same"), nil) // stirs, so that no writer is sure
			}
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			mu.Lock()
			writes[p.LastIndex]++
			mu.Unlock()
		}
		return nil
	}))
	for revision, n := range writes {
		require.Equal(e, 1, n, "%d writes were told that theirs is revision %d", n, revision)
	}
}

func revisionsAgree(e *env) {
	other := e.open(nil)
	key := e.key("d/k")
	check := func(want uint64) {
		e.Helper()
		for _, s := range []kvstore{e.kv, other} {
			p, err := s.Get(e.ctx, key, nil)
			require.NoError(e, err)
			require.Equal(e, want, p.LastIndex, "Get")
			listed, err := s.List(e.ctx, e.key("d"), nil)
			require.NoError(e, err)
			require.Equal(e, want, listed[0].LastIndex, "List")
			walked, err := collect(s.Walk(e.ctx, e.dir, nil))
			require.NoError(e, err)
			require.Equal(e, want, walked[0].LastIndex, "Walk")
			one, err := s.Watch(e.ctx, key, nil)
			require.NoError(e, err)
			require.Equal(e, want, receive(e, one, "Watch").LastIndex, "Watch")
			tree, err := s.WatchTree(e.ctx, e.dir, nil)
			require.NoError(e, err)
			require.Equal(e, want, receive(e, tree, "WatchTree")[0].LastIndex, "WatchTree")
			ev, err := firstEvent(s.Events(e.ctx, key, nil))
			require.NoError(e, err)
			require.Equal(e, want, ev.(valkeyrie.Event).Pair.LastIndex, "Events")
		}
	}
	_, p, err := e.kv.AtomicPut(e.ctx, key, []byte("1"), nil, nil)
	require.NoError(e, err)
	check(p.LastIndex)
	_, p, err = other.AtomicPut(e.ctx, key, []byte("2"), p, nil)
	require.NoError(e, err)
	check(p.LastIndex)
	e.put(key, "3")
	check(e.get(key).LastIndex)
	check(e.get(key).LastIndex) // reading is not writing
}

func revisionsStale(e *env) {
	other := e.open(nil)
	key := e.key("k")
	for i := range 20 {
		_, stale, err := e.kv.AtomicPut(e.ctx, key, []byte("same"), nil, nil)
		require.NoError(e, err)
		require.NoError(e, other.Delete(e.ctx, key))
		_, _, err = e.kv.AtomicPut(e.ctx, key, []byte("x"), stale, nil)
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyNotFound)
		_, fresh, err := other.AtomicPut(e.ctx, key, []byte("same"), nil, nil)
		require.NoError(e, err)

		_, _, err = e.kv.AtomicPut(e.ctx, key, []byte("x"), stale, nil)
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
		_, err = e.kv.AtomicDelete(e.ctx, key, stale)
		e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyModified)
		require.Equal(e, fresh, e.get(key), "round %d", i)
		_, err = e.kv.AtomicDelete(e.ctx, key, fresh)
		require.NoError(e, err)
	}
}

func revisionsStay(e *env) {
	key := e.key("d/k")
	e.put(key, "v")
	want := e.get(key)
	siblings := []string{e.key("d/a"), e.key("d/z"), e.key("d/k2"), e.key("e")}
	if !e.h.NoChildrenOfValues {
		siblings = append(siblings, e.key("d"), key+"/below", key+"/below/it")
	}
	for range 3 {
		for _, sibling := range siblings {
			e.put(sibling, "v")
			require.Equal(e, want, e.get(key), "after Put of %q", sibling)
			_, _, err := e.kv.AtomicPut(e.ctx, sibling, nil, e.get(sibling), nil)
			require.NoError(e, err)
			require.Equal(e, want, e.get(key), "after AtomicPut of %q", sibling)
		}
		for _, sibling := range siblings {
			require.NoError(e, e.kv.Delete(e.ctx, sibling))
			require.Equal(e, want, e.get(key), "after Delete of %q", sibling)
		}
	}
	// What is refused writes nothing either.
	_, _, err := e.kv.AtomicPut(e.ctx, key, nil, nil, nil)
	e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyExists)
	_, _, err = e.kv.AtomicPut(e.ctx, key, nil, &pair{LastIndex: want.LastIndex + 1}, nil)
	e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
	_, err = e.kv.AtomicDelete(e.ctx, key, &pair{LastIndex: want.LastIndex + 1})
	e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyModified)
	_, p, err := e.kv.AtomicPut(e.ctx, key, []byte("w"), want, nil)
	require.NoError(e, err)
	require.NotEqual(e, want.LastIndex, p.LastIndex)
}
