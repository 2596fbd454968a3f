package testutils

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var watchTreeChecks = []check{
	{"sends the whole directory at the start, sorted", treeSendsStateAtStart},
	{"sends the whole directory after a change, sorted", treeSendsStateAfterChange},
	{"sends what another store changes", treeSeesOtherStore},
	{"sends what every kind of write does", treeSeesEveryKindOfWrite},
	{"sends keys at every depth", treeSeesEveryDepth},
	{"does not send the directory's own key", treeLeavesOutOwnKey},
	{"does not send siblings, nor react to them", treeIgnoresSiblings},
	{"a directory that does not exist is an empty slice that is not nil", treeOfMissingDirectory},
	{"the last key deleted leaves an empty slice that is not nil", treeBecomesEmpty},
	{"DeleteTree leaves an empty slice", treeSeesDeleteTree},
	{"an expiry takes the key out", treeSeesExpiry},
	{"keys that are kept alive stay and do not change", treeKeepAlive},
	{"an identical value written again is a new state", treeSeesIdenticalValue},
	{"an empty value is an empty slice that is not nil", treeSeesEmptyValue},
	{"with KeysOnly the values are left out", treeKeysOnly},
	{"the root directory holds everything below the prefix", treeOfRoot},
	{"what it sends belongs to the receiver", treeSlicesBelongToReceiver},
	{"an invalid directory is refused", treeInvalidDirectory},
	{"a directory of thousands of keys is sent whole", treeOfManyKeys},
	{"nothing that happens after the call is missed", treeMissesNothing},
	{"states never go back", treeNeverGoesBack},
	{"a slow reader gets the last state", treeSlowReader},
	{"an absent reader blocks nobody and then gets few states, the last one last", treeAbsentReader},
	{"cancelling closes the channel while somebody reads", treeCancelWithReader},
	{"cancelling closes the channel while nobody reads", treeCancelWithoutReader},
	{"closing the store closes the channel", treeEndsWithStore},
	{"fifty watches of one directory all get the last state", treeManyOnOneDirectory},
	{"the library's own keys never appear", treeHidesOwnKeys},
}

// watchTree opens a watch that lasts as long as the check.
func (e *env) watchTree(dir string) <-chan []*pair {
	e.Helper()
	return e.watchTreeOn(e.ctx, e.kv, dir, nil)
}

// watchTreeOn opens a watch with everything given.
func (e *env) watchTreeOn(ctx context.Context, kv kvstore, dir string, opts *valkeyrie.ReadOptions) <-chan []*pair {
	e.Helper()
	ch, err := kv.WatchTree(ctx, dir, opts)
	require.NoError(e, err)
	require.NotNil(e, ch)
	return ch
}

// requireTree checks that a snapshot is what List returns.
func (e *env) requireTree(dir string, got []*pair) {
	e.Helper()
	require.True(e, got != nil, "a snapshot is never nil")
	want := e.snapshot(e.kv, dir)
	require.Equal(e, keysOf(want), keysOf(got), "a snapshot has the keys that List has, sorted")
	for i := range want {
		requireSamePair(e, want[i], got[i])
	}
}

// nextTree receives the next snapshot and checks that it is what List returns.
func (e *env) nextTree(ch <-chan []*pair, dir, what string) []*pair {
	e.Helper()
	got := receive(e, ch, what)
	e.requireTree(dir, got)
	return got
}

// untilTree receives until a snapshot has just these keys. A single call may
// change several keys one by one, so others may come before.
func (e *env) untilTree(ch <-chan []*pair, dir, what string, names ...string) []*pair {
	e.Helper()
	want := make([]string, 0, len(names))
	for _, name := range names {
		want = append(want, dir+"/"+name)
	}
	return until(e, ch, what, func(got []*pair) bool {
		require.True(e, got != nil, "a snapshot is never nil")
		return slices.Equal(want, keysOf(got))
	})
}

// oddOrder are names below a directory in byte order, which is not the order of
// a walk from directory to directory: "-" comes before "/" and "0" after it.
var oddOrder = []string{"B", "a", "a-b", "a.b", "a0", "b/c/d", "b/c0", "z", "ä"}

func treeSendsStateAtStart(e *env) {
	dir := e.key("d")
	for i := range oddOrder {
		e.put(dir+"/"+oddOrder[len(oddOrder)-1-i], "v")
	}
	got := e.nextTree(e.watchTree(dir), dir, "the state at the start")
	require.Len(e, got, len(oddOrder))
	require.True(e, slices.IsSorted(keysOf(got)), "not sorted: %q", keysOf(got))
	require.Equal(e, "v", string(got[0].Value))
}

func treeSendsStateAfterChange(e *env) {
	dir := e.key("d")
	ch := e.watchTree(dir)
	receive(e, ch, "the state at the start")
	for i := range oddOrder {
		e.put(dir+"/"+oddOrder[(i*5)%len(oddOrder)], "v")
		e.nextTree(ch, dir, "a key that was added")
	}
	e.put(dir+"/a", "w")
	e.nextTree(ch, dir, "a key that was changed")
	require.NoError(e, e.kv.Delete(e.ctx, dir+"/b/c/d"))
	got := e.nextTree(ch, dir, "a key that was deleted")
	require.Len(e, got, len(oddOrder)-1)
}

func treeSeesOtherStore(e *env) {
	dir, other := e.key("d"), e.open(nil)
	ch := e.watchTree(dir)
	receive(e, ch, "the state at the start")
	for i := range 5 {
		require.NoError(e, other.Put(e.ctx, dir+"/"+strconv.Itoa(i), []byte("v"), nil))
		require.Len(e, e.nextTree(ch, dir, "a put by another store"), i+1)
	}
	require.NoError(e, other.Delete(e.ctx, dir+"/3"))
	require.Len(e, e.nextTree(ch, dir, "a delete by another store"), 4)
}

func treeSeesEveryKindOfWrite(e *env) {
	dir := e.key("d")
	e.put(dir+"/stays", "v")
	ch := e.watchTree(dir)
	receive(e, ch, "the state at the start")
	_, created, err := e.kv.AtomicPut(e.ctx, dir+"/k", []byte("created"), nil, nil)
	require.NoError(e, err)
	requireSamePair(e, created, e.nextTree(ch, dir, "a create")[0])
	_, updated, err := e.kv.AtomicPut(e.ctx, dir+"/k", []byte("updated"), created, nil)
	require.NoError(e, err)
	requireSamePair(e, updated, e.nextTree(ch, dir, "a conditional update")[0])
	_, err = e.kv.AtomicDelete(e.ctx, dir+"/k", updated)
	require.NoError(e, err)
	require.Len(e, e.nextTree(ch, dir, "a conditional delete"), 1)
}

func treeSeesEveryDepth(e *env) {
	dir := e.key("d")
	ch := e.watchTree(dir)
	receive(e, ch, "the state at the start")
	for _, depth := range []int{12, 5, 2, 1} {
		e.put(dir+strings.Repeat("/n", depth-1)+"/leaf", "v")
		e.nextTree(ch, dir, "a key "+strconv.Itoa(depth)+" levels below")
	}
	deepest := dir + strings.Repeat("/n", 11) + "/leaf"
	e.put(deepest, "w")
	e.nextTree(ch, dir, "a change 12 levels below")
	require.NoError(e, e.kv.Delete(e.ctx, deepest))
	require.Len(e, e.nextTree(ch, dir, "a deletion 12 levels below"), 3)
}

func treeLeavesOutOwnKey(e *env) {
	e.noChildren()
	dir := e.key("d")
	e.put(dir, "the directory is a key, too")
	e.put(dir+"/a", "v")
	ch := e.watchTree(dir)
	require.Len(e, e.nextTree(ch, dir, "the state at the start"), 1)
	e.put(dir, "changed")
	quiet(e, ch, "a watch of a directory reacted to its own key")
	require.NoError(e, e.kv.Delete(e.ctx, dir+"/a"))
	require.Empty(e, e.nextTree(ch, dir, "the last key deleted"))
	e.put(dir+"/b", "v")
	require.NoError(e, e.kv.Delete(e.ctx, dir))
	e.untilTree(ch, dir, "what is below after the own key was deleted", "b")
}

func treeIgnoresSiblings(e *env) {
	dir := e.key("foo")
	siblings := []string{e.key("foobar"), e.key("foobar2/a"), e.key("foo-x"), e.key("foo0/a"), e.key("fo"), e.key("f/foo/a")}
	for _, s := range siblings {
		e.put(s, "v")
	}
	e.put(dir+"/a", "v")
	ch := e.watchTree(dir)
	require.Len(e, e.nextTree(ch, dir, "the state at the start"), 1)
	for _, s := range siblings {
		e.put(s, "w")
		require.NoError(e, e.kv.Delete(e.ctx, s))
	}
	quiet(e, ch, "a watch of "+dir+" reacted to a sibling")
	e.put(dir+"/b", "v")
	require.Len(e, e.nextTree(ch, dir, "a key of the directory itself"), 2)
}

func treeOfMissingDirectory(e *env) {
	dir := e.key("not/there/yet")
	ch := e.watchTree(dir)
	got := receive(e, ch, "the state at the start")
	require.True(e, got != nil && len(got) == 0, "got %s", show(got))
	e.put(dir+"/a/b", "v")
	require.Len(e, e.nextTree(ch, dir, "the first key"), 1)
}

func treeBecomesEmpty(e *env) {
	dir := e.key("d")
	e.put(dir+"/a/b", "v")
	ch := e.watchTree(dir)
	receive(e, ch, "the state at the start")
	for range 3 {
		require.NoError(e, e.kv.Delete(e.ctx, dir+"/a/b"))
		got := receive(e, ch, "the last key deleted")
		require.True(e, got != nil && len(got) == 0, "got %s", show(got))
		e.put(dir+"/a/b", "again")
		require.Len(e, e.nextTree(ch, dir, "a key in the empty directory"), 1)
	}
}

func treeSeesDeleteTree(e *env) {
	dir := e.key("d")
	keys := make([]string, 300)
	for i := range keys {
		keys[i] = dir + "/sub" + strconv.Itoa(i%3) + "/" + strconv.Itoa(i)
	}
	e.putAll(append(keys, dir+"/zz"), nil)
	ch := e.watchTree(dir)
	require.Len(e, receive(e, ch, "the state at the start"), 301)
	require.NoError(e, e.kv.DeleteTree(e.ctx, dir+"/sub1"))
	got := until(e, ch, "100 keys fewer", func(got []*pair) bool { return len(got) == 201 })
	e.requireTree(dir, got)
	require.NoError(e, e.kv.DeleteTree(e.ctx, dir))
	got = until(e, ch, "the empty directory", func(got []*pair) bool { return len(got) == 0 })
	require.True(e, got != nil, "a snapshot is never nil")
}

func treeSeesExpiry(e *env) {
	dir, ttl := e.key("d"), 2*time.Second
	e.put(dir+"/stays", "v")
	ch := e.watchTree(dir)
	receive(e, ch, "the state at the start")
	before := time.Now()
	require.NoError(e, e.kv.Put(e.ctx, dir+"/goes", []byte("v"), &valkeyrie.WriteOptions{TTL: ttl}))
	after := time.Now()
	e.untilTree(ch, dir, "the put", "goes", "stays")
	e.untilTree(ch, dir, "the expiry", "stays")
	require.GreaterOrEqual(e, time.Since(before), ttl, "a key is there for at least its TTL")
	require.Less(e, time.Since(after), ttl+time.Second+soon, "a key is gone at most 1 s after its TTL")
}
