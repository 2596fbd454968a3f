package testutils

import (
	"fmt"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

func treeKeepAlive(e *env) {
	dir, ttl := e.key("d"), 2*time.Second
	keys := []string{dir + "/a", dir + "/b/c", dir + "/d"}
	e.putAll(keys, &valkeyrie.WriteOptions{TTL: ttl, KeepAlive: true})
	ch := e.watchTree(dir)
	e.nextTree(ch, dir, "the state at the start")
	select {
	case got := <-ch:
		require.FailNow(e, "keys that are kept alive changed", show(got))
	case <-time.After(2 * ttl):
	}
	require.NoError(e, e.kv.Delete(e.ctx, keys[0]))
	require.Len(e, e.nextTree(ch, dir, "the deletion"), 2)
}

func treeSeesIdenticalValue(e *env) {
	dir := e.key("d")
	e.put(dir+"/a", "same")
	ch := e.watchTree(dir)
	last := receive(e, ch, "the state at the start")[0].LastIndex
	for range 3 {
		e.put(dir+"/a", "same")
		got := e.nextTree(ch, dir, "an identical value written again")[0].LastIndex
		require.True(e, got != last, "the revision of an identical value must differ")
		last = got
	}
}

func treeSeesEmptyValue(e *env) {
	dir := e.key("d")
	e.put(dir+"/a", "")
	ch := e.watchTree(dir)
	got := receive(e, ch, "the state at the start")
	require.Len(e, got, 1)
	require.True(e, got[0].Value != nil && len(got[0].Value) == 0, "got %s", show(got))
	require.NoError(e, e.kv.Put(e.ctx, dir+"/b", nil, nil))
	got = receive(e, ch, "the change")
	require.Len(e, got, 2)
	require.True(e, got[1].Value != nil && len(got[1].Value) == 0, "got %s", show(got))
}

func treeKeysOnly(e *env) {
	dir := e.key("d")
	e.put(dir+"/a", "v")
	ch := e.watchTreeOn(e.ctx, e.kv, dir, &valkeyrie.ReadOptions{KeysOnly: true})
	for _, name := range []string{"b", "c"} {
		got := receive(e, ch, "a state")
		want := e.snapshot(e.kv, dir)
		require.Equal(e, keysOf(want), keysOf(got))
		for i, p := range got {
			require.True(e, p.Value == nil, "KeysOnly leaves the values out, got %s", show(p))
			require.Equal(e, want[i].LastIndex, p.LastIndex)
		}
		e.put(dir+"/"+name, "v")
	}
}

func treeOfRoot(e *env) {
	prefix := e.key("app")
	e.put(prefix+"beside", "not below the prefix")
	inside := e.open(&valkeyrie.Config{Prefix: prefix})
	ch := e.watchTreeOn(e.ctx, inside, "", nil)
	require.Empty(e, receive(e, ch, "the state at the start"))
	require.NoError(e, inside.Put(e.ctx, "a", []byte("v"), nil))
	require.Equal(e, []string{"a"}, keysOf(receive(e, ch, "the first key")))
	e.put(prefix+"/b/c", "v")
	require.Equal(e, []string{"a", "b/c"}, keysOf(receive(e, ch, "a put by a store without the prefix")))
	e.put(prefix+"beside2", "not below the prefix")
	slash := e.watchTreeOn(e.ctx, inside, "//", nil)
	require.Equal(e, []string{"a", "b/c"}, keysOf(receive(e, slash, "the state at the start of //")))
	require.NoError(e, e.kv.DeleteTree(e.ctx, prefix))
	until(e, ch, "the empty root", func(got []*pair) bool { return len(got) == 0 })
}

func treeSlicesBelongToReceiver(e *env) {
	dir := e.key("d")
	e.put(dir+"/a", "v")
	e.put(dir+"/b", "v")
	spoiled, clean := e.watchTree(dir), e.watchTree(dir)
	for i := range 4 {
		got := e.nextTree(spoiled, dir, "a state")
		for _, p := range got {
			for j := range p.Value {
				p.Value[j] = '!'
			}
			p.Key, p.LastIndex = "spoiled", 0
		}
		clear(got)
		_ = append(got[:0], &pair{Key: "spoiled"})
		e.nextTree(clean, dir, "the same state in another watch")
		e.put(dir+"/b", strconv.Itoa(i))
	}
}

func treeInvalidDirectory(e *env) {
	for _, dir := range []string{"a/../b", ".", ".valkeyrie", "a/.valkeyrie/b", "a\x00b", "\xff"} {
		ch, err := e.kv.WatchTree(e.ctx, dir, nil)
		require.ErrorIs(e, err, valkeyrie.ErrInvalidKey, "%q", dir)
		require.Nil(e, ch)
	}
}

func treeOfManyKeys(e *env) {
	dir := e.key("d")
	keys := make([]string, e.h.Keys/2)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s/%02d/%05d", dir, i%20, i)
	}
	e.putAll(keys, nil)
	ch := e.watchTree(dir)
	e.nextTree(ch, dir, "the state at the start")
	e.put(keys[len(keys)/2], "changed")
	e.nextTree(ch, dir, "one change among many keys")
}

// treeKeys are some keys below a directory, at several depths.
func treeKeys(dir string) []string {
	return []string{dir + "/a", dir + "/b", dir + "/c/d", dir + "/c/e", dir + "/f/g/h", dir + "/i", dir + "/j/k", dir + "/l"}
}

func treeMissesNothing(e *env) {
	dir, other := e.key("d"), e.open(nil)
	stop := e.hammer(other, treeKeys(dir)...)
	var watches []<-chan []*pair
	for i := range 30 {
		kv := e.kv
		if i%2 == 1 {
			kv = other
		}
		watches = append(watches, e.watchTreeOn(e.ctx, kv, dir, nil))
	}
	stop()
	e.lastTreeArrives(watches, dir)
}

// lastTreeArrives checks that the last thing every watch sends is what List returns.
func (e *env) lastTreeArrives(watches []<-chan []*pair, dir string) {
	e.Helper()
	want := e.snapshot(e.kv, dir)
	for _, ch := range watches {
		e.requireTree(dir, until(e, ch, "the last state "+show(want), func(got []*pair) bool { return sameRevisions(want, got) }))
	}
	quiet(e, merge(e, watches), "sent after the last state")
}

// sameRevisions compares keys and revisions.
func sameRevisions(a, b []*pair) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key || a[i].LastIndex != b[i].LastIndex {
			return false
		}
	}
	return true
}

// growing remembers the largest number seen of each key.
type growing map[string]int

// check fails when the number of a key went back.
func (g growing) check(e *env, got []*pair) {
	e.Helper()
	for _, p := range got {
		n, err := strconv.Atoi(string(p.Value))
		require.NoError(e, err)
		require.GreaterOrEqual(e, n, g[p.Key], "the state of %s went back", p.Key)
		g[p.Key] = n
	}
}

func treeNeverGoesBack(e *env) {
	dir, other := e.key("d"), e.open(nil)
	watches := []<-chan []*pair{e.watchTree(dir), e.watchTreeOn(e.ctx, other, dir, nil)}
	seen := []growing{{}, {}}
	stop := e.hammer(other, treeKeys(dir)...)
	end := time.Now().Add(time.Second)
	for i := 0; i < 100 || time.Now().Before(end); i++ {
		w := i % len(watches)
		seen[w].check(e, receive(e, watches[w], "a state"))
		if i == 50 {
			watches, seen = append(watches, e.watchTree(dir)), append(seen, growing{})
		}
	}
	stop()
}

func treeSlowReader(e *env) {
	dir := e.key("d")
	ch := e.watchTree(dir)
	keys := treeKeys(dir)
	wait := e.start(1, func(int) error {
		for i := range 500 {
			if err := e.kv.Put(e.ctx, keys[i%len(keys)], []byte(strconv.Itoa(i)), nil); err != nil {
				return err
			}
		}
		return nil
	})
	seen := growing{}
	until(e, ch, "the last state", func(got []*pair) bool {
		seen.check(e, got)
		time.Sleep(5 * time.Millisecond) // the reader is slower than the writer
		// Nothing is promised of the order in which the keys get there.
		for i := 500 - len(keys); i < 500; i++ {
			if seen[keys[i%len(keys)]] != i {
				return false
			}
		}
		return len(got) == len(keys)
	})
	wait()
	quiet(e, ch, "sent after the last state")
}

func treeAbsentReader(e *env) {
	dir := e.key("d")
	ch := e.watchTree(dir)
	e.flood(e.kv, 5000, treeKeys(dir)...)
	e.put(dir+"/zz", "last")
	want, states := e.snapshot(e.kv, dir), 0
	until(e, ch, "the last state", func(got []*pair) bool {
		states++
		return sameRevisions(want, got)
	})
	require.LessOrEqual(e, states, stored, "states were kept for a reader who was away instead of merged")
}

func treeCancelWithReader(e *env) {
	ctx, cancel := e.cancellable()
	ch := e.watchTreeOn(ctx, e.kv, e.key("d"), nil)
	receive(e, ch, "the state at the start")
	cancel()
	closes(e, ch, soon, "the channel of a cancelled watch")
}

func treeCancelWithoutReader(e *env) {
	dir := e.key("d")
	ctx, cancel := e.cancellable()
	watches := make([]<-chan []*pair, 10)
	for i := range watches {
		watches[i] = e.watchTreeOn(ctx, e.kv, dir, nil)
	}
	e.flood(e.kv, 100, treeKeys(dir)...)
	cancel()
	time.Sleep(time.Second) // it must end without anyone taking what it has to send
	for _, ch := range watches {
		require.NoError(e, unread(ch), "the channel of a cancelled watch that nobody read, a second later")
	}
}

func treeEndsWithStore(e *env) {
	other := e.open(nil)
	read := e.watchTreeOn(e.ctx, other, e.key("d"), nil)
	receive(e, read, "the state at the start")
	unread := e.watchTreeOn(e.ctx, other, e.key("d"), nil)
	require.NoError(e, other.Close())
	closes(e, read, soon, "the channel of a watch of a closed store")
	closes(e, unread, soon, "the channel of a watch of a closed store that nobody read")
}

func treeManyOnOneDirectory(e *env) {
	dir, other := e.key("d"), e.open(nil)
	var watches []<-chan []*pair
	for i := range 50 {
		kv := e.kv
		if i%2 == 1 {
			kv = other
		}
		watches = append(watches, e.watchTreeOn(e.ctx, kv, dir, nil))
	}
	e.flood(other, 50, treeKeys(dir)...)
	e.lastTreeArrives(watches, dir)
}

// treeHidesOwnKeys watches while a lock is taken, waited for and handed over:
// that is when the library keeps queues and counters beside the lock's key.
func treeHidesOwnKeys(e *env) {
	dir := e.key("d")
	ch := e.watchTree(dir)
	require.Empty(e, receive(e, ch, "the state at the start"))
	opts := &valkeyrie.LockOptions{Value: []byte("holder")}
	first, second := e.locker(e.kv, dir+"/lock", opts), e.locker(e.open(nil), dir+"/lock", opts)
	e.mustLock(first)
	wait := e.start(1, func(int) error {
		_, err := second.Lock(e.ctx)
		return err
	})
	time.Sleep(pause) // the waiter has to be in line, which nothing shows
	require.Equal(e, []string{dir + "/lock"}, e.list(e.kv, dir))
	require.NoError(e, first.Unlock(e.ctx))
	wait()
	require.NoError(e, second.Unlock(e.ctx))
	e.put(dir+"/zz", "last")
	until(e, ch, "the last state", func(got []*pair) bool {
		for _, p := range got {
			require.Contains(e, []string{dir + "/lock", dir + "/zz"}, p.Key, "a key that nobody put")
		}
		return len(got) == 1 && got[0].Key == dir+"/zz"
	})
	require.Equal(e, []string{dir + "/zz"}, e.list(e.kv, dir))
}
