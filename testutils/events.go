package testutils

import (
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var eventsChecks = []check{
	{"a Put for each key that exists, then Synced once", eventsStart},
	{"a missing key and an empty directory are Synced alone", eventsOfNothing},
	{"a Put after Synced has key, value and revision", eventsPut},
	{"a Delete has its key, no value and the last revision seen", eventsDelete},
	{"an expiry is a Delete", eventsExpiry},
	{"every kind of write is an event", eventsSeeEveryKindOfWrite},
	{"another store's writes are events", eventsSeeOtherStore},
	{"a key alone does not yield what is below or beside it", eventsOfKeyIgnoreOthers},
	{"a tree yields every depth and neither itself nor siblings", eventsOfTreeIgnoreOthers},
	{"the root directory yields everything below the prefix", eventsOfRoot},
	{"with KeysOnly the values are left out", eventsKeysOnly},
	{"an identical value written again is a Put", eventsSeeIdenticalValue},
	{"an empty value is an empty slice that is not nil", eventsEmptyValue},
	{"each range over it is a watch of its own", eventsRangeTwice},
	{"what it yields belongs to the receiver", eventsBelongToReceiver},
	{"replaying the events gives what List returns", eventsReplay},
	{"events of one key never go back", eventsNeverGoBack},
	{"a slow reader gets merged events and in the end the last state", eventsSlowReader},
	{"an absent reader blocks nobody and then gets few events", eventsAbsentReader},
	{"breaking off the loop ends it", eventsBreak},
	{"breaking off the loop ends it, whatever else ended meanwhile", eventsBreakAtTheEnd},
	{"a context that is done ends it without an error", eventsContext},
	{"closing the store ends it with ErrClosed", eventsEndWithStore},
	{"an invalid key is refused", eventsInvalidKey},
	{"the library's own keys never appear", eventsHideOwnKeys},
}

func eventsStart(e *env) {
	dir := e.key("d")
	keys := treeKeys(dir)
	e.putAll(keys, nil)
	ch := e.eventsOfTree(dir)
	seen := make(map[string]bool)
	for range keys {
		p := e.next(ch, valkeyrie.Put, "a key that exists")
		require.False(e, seen[p.Key], "%s came twice", p.Key)
		seen[p.Key] = true
		requireSamePair(e, e.get(p.Key), p)
	}
	e.next(ch, valkeyrie.Synced, "the end of what exists")
	quiet(e, ch, "nothing changed")

	ch = e.eventsOf(keys[0])
	e.nextPut(ch, keys[0], "the key that exists")
	e.next(ch, valkeyrie.Synced, "the end of what exists")
	quiet(e, ch, "nothing changed")
}

func eventsOfNothing(e *env) {
	key, dir := e.key("missing"), e.key("none")
	ofKey, ofTree := e.eventsOf(key), e.eventsOfTree(dir)
	e.next(ofKey, valkeyrie.Synced, "Synced of a missing key")
	e.next(ofTree, valkeyrie.Synced, "Synced of an empty directory")
	quiet(e, ofKey, "nothing changed")
	quiet(e, ofTree, "nothing changed")
	e.put(key, "v")
	e.nextPut(ofKey, key, "the key that was created")
	e.put(dir+"/a/b", "v")
	e.nextPut(ofTree, dir+"/a/b", "the first key of the directory")
}

func eventsPut(e *env) {
	key := e.key("d/k")
	ofKey, ofTree := e.eventsOf(key), e.eventsOfTree(e.key("d"))
	e.next(ofKey, valkeyrie.Synced, "Synced")
	e.next(ofTree, valkeyrie.Synced, "Synced")
	for i := range 5 {
		e.put(key, strconv.Itoa(i))
		e.nextPut(ofKey, key, "the put")
		e.nextPut(ofTree, key, "the put")
	}
}

func eventsDelete(e *env) {
	key := e.key("d/k")
	e.put(key, "v")
	chans := []<-chan yielded{e.eventsOf(key), e.eventsOfTree(e.key("d"))}
	last := e.get(key).LastIndex
	for _, ch := range chans {
		e.nextPut(ch, key, "the key that exists")
		e.next(ch, valkeyrie.Synced, "Synced")
	}
	for i := range 3 {
		require.NoError(e, e.kv.Delete(e.ctx, key))
		for _, ch := range chans {
			requireGone(e, key, last, e.next(ch, valkeyrie.Delete, "the deletion"))
		}
		e.put(key, strconv.Itoa(i))
		for _, ch := range chans {
			last = e.nextPut(ch, key, "the key that was created again").LastIndex
		}
	}
}

func eventsExpiry(e *env) {
	dir, ttl := e.key("d"), 2*time.Second
	ofKey, ofTree := e.eventsOf(dir+"/k"), e.eventsOfTree(dir)
	e.next(ofKey, valkeyrie.Synced, "Synced")
	e.next(ofTree, valkeyrie.Synced, "Synced")
	before := time.Now()
	require.NoError(e, e.kv.Put(e.ctx, dir+"/k", []byte("v"), &valkeyrie.WriteOptions{TTL: ttl}))
	after := time.Now()
	for _, ch := range []<-chan yielded{ofKey, ofTree} {
		last := e.next(ch, valkeyrie.Put, "the put")
		requireGone(e, dir+"/k", last.LastIndex, e.next(ch, valkeyrie.Delete, "the expiry"))
		require.GreaterOrEqual(e, time.Since(before), ttl, "a key is there for at least its TTL")
		require.Less(e, time.Since(after), ttl+time.Second+soon, "a key is gone at most 1 s after its TTL")
	}
}

func eventsSeeEveryKindOfWrite(e *env) {
	dir := e.key("d")
	key := dir + "/k"
	ch := e.eventsOfTree(dir)
	e.next(ch, valkeyrie.Synced, "Synced")
	_, created, err := e.kv.AtomicPut(e.ctx, key, []byte("created"), nil, nil)
	require.NoError(e, err)
	requireSamePair(e, created, e.next(ch, valkeyrie.Put, "a create"))
	_, updated, err := e.kv.AtomicPut(e.ctx, key, []byte("updated"), created, nil)
	require.NoError(e, err)
	requireSamePair(e, updated, e.next(ch, valkeyrie.Put, "a conditional update"))
	_, err = e.kv.AtomicDelete(e.ctx, key, updated)
	require.NoError(e, err)
	requireGone(e, key, updated.LastIndex, e.next(ch, valkeyrie.Delete, "a conditional delete"))

	e.put(dir+"/sub/a", "v")
	e.nextPut(ch, dir+"/sub/a", "a put")
	e.put(dir+"/sub/b", "v")
	e.nextPut(ch, dir+"/sub/b", "a put")
	require.NoError(e, e.kv.DeleteTree(e.ctx, dir+"/sub"))
	gone := []string{e.next(ch, valkeyrie.Delete, "a DeleteTree").Key, e.next(ch, valkeyrie.Delete, "a DeleteTree").Key}
	require.ElementsMatch(e, []string{dir + "/sub/a", dir + "/sub/b"}, gone)
}

func eventsSeeOtherStore(e *env) {
	dir, other := e.key("d"), e.open(nil)
	ch := e.eventsOfTree(dir)
	e.next(ch, valkeyrie.Synced, "Synced")
	for i := range 3 {
		require.NoError(e, other.Put(e.ctx, dir+"/k", []byte(strconv.Itoa(i)), nil))
		e.nextPut(ch, dir+"/k", "a put by another store")
	}
	require.NoError(e, other.Delete(e.ctx, dir+"/k"))
	e.next(ch, valkeyrie.Delete, "a delete by another store")
}

func eventsOfKeyIgnoreOthers(e *env) {
	key := e.key("p/k")
	others := []string{e.key("p/k2"), e.key("p/kk/a"), e.key("p/k-"), e.key("p/j")}
	if !e.h.NoChildrenOfValues {
		others = append(others, key+"/child", e.key("p"))
	}
	e.put(key, "v")
	ch := e.eventsOf(key)
	e.nextPut(ch, key, "the key that exists")
	e.next(ch, valkeyrie.Synced, "Synced")
	for _, other := range others {
		e.put(other, "x")
		require.NoError(e, e.kv.Delete(e.ctx, other))
	}
	quiet(e, ch, "events of a key tell of another")
	e.put(key, "w")
	e.nextPut(ch, key, "a change of the key itself")
}

func eventsOfTreeIgnoreOthers(e *env) {
	dir := e.key("foo")
	others := []string{e.key("foobar"), e.key("foobar2/a"), e.key("foo-x"), e.key("fo")}
	if !e.h.NoChildrenOfValues {
		others = append(others, dir)
	}
	for _, other := range others {
		e.put(other, "v")
	}
	deep := dir + strings.Repeat("/n", 12)
	ch := e.eventsOfTree(dir)
	e.next(ch, valkeyrie.Synced, "Synced")
	for _, other := range others {
		e.put(other, "w")
		require.NoError(e, e.kv.Delete(e.ctx, other))
	}
	quiet(e, ch, "events of a directory tell of its own key or a sibling")
	e.put(deep, "v")
	e.nextPut(ch, deep, "a key at depth 12")
}
