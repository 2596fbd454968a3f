package testutils

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var watchFaults = []faultCheck{
	{"watches end in the last state and never go back, whatever the network and the server do", true, watchesOfFaults},
	{"a watch notices by itself that its connection is dead", false, watchesOnDeadConnection},
}

// gallery is watches of all kinds on what one scribe writes.
type gallery struct {
	r     *rig
	dir   string
	scr   *scribe
	keys  []string             // watched one by one
	ofKey map[string]*recorder // by name: Watch and Events of one key
	of    map[string]string    // the key of each of them
	tree  []*recorder          // WatchTree, and Events of the tree
}

// watchAll opens the watches through a store that sees the faults. The scribe
// writes with the rig's own store, which sees only those of the server.
func (r *rig) watchAll(s kvstore, dir string, keys ...string) *gallery {
	r.Helper()
	g := &gallery{r: r, dir: dir, scr: newScribe(r.kv), keys: keys, ofKey: make(map[string]*recorder), of: make(map[string]string)}
	ctx, _ := r.cancellable()
	for _, key := range keys {
		g.addKey("Watch of "+key, key, func(rec *recorder) { g.watch(ctx, s, key, rec) })
		g.addKey("Events of "+key, key, func(rec *recorder) { g.events(ctx, s, key, false, rec) })
	}
	tree := newRecorder("WatchTree")
	require.NoError(r, tree.watchTree(ctx, s, dir))
	events := newRecorder("Events of the tree")
	g.events(ctx, s, dir, true, events)
	g.tree = []*recorder{tree, events}
	return g
}

func (g *gallery) addKey(name, key string, open func(*recorder)) {
	rec := newRecorder(name)
	open(rec)
	g.ofKey[name], g.of[name] = rec, key
}

func (g *gallery) watch(ctx context.Context, s kvstore, key string, rec *recorder) {
	g.r.Helper()
	require.NoError(g.r, rec.watch(ctx, s, key))
}

// events waits for Synced, so that what comes later must not be missed.
func (g *gallery) events(ctx context.Context, s kvstore, key string, tree bool, rec *recorder) {
	g.r.Helper()
	closes(g.r.env, rec.events(ctx, s, key, tree), patience, "Synced")
}

// settles checks that all watches end in the state that reads show, and that
// they have shown no state after a later one.
func (g *gallery) settles(within time.Duration) {
	g.r.Helper()
	seen := g.settle(within)
	g.r.Logf("%d writes, %d states and events in %d watches", g.scr.next, seen, len(g.all()))
}

// settle is settles that returns how much all watches have shown.
func (g *gallery) settle(within time.Duration) (seen int) {
	r := g.r
	r.Helper()
	want := r.snapshot(r.kv, g.dir)
	await := func(rec *recorder, want []*pair) {
		end := time.Now().Add(within)
		for !rec.is(want) {
			if time.Now().After(end) {
				require.FailNow(r, "the last state did not arrive within "+within.String(), "want %s\ngot %s", show(want), rec)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for _, rec := range g.tree {
		await(rec, want)
	}
	for name, rec := range g.ofKey {
		one := []*pair{}
		p, err := r.kv.Get(r.ctx, g.of[name], nil)
		if err == nil {
			one = append(one, p)
		} else {
			require.ErrorIs(r, err, valkeyrie.ErrKeyNotFound)
		}
		await(rec, one)
	}
	time.Sleep(pause) // nothing may follow the last state
	for _, rec := range g.all() {
		n, err := rec.judge(g.scr)
		require.NoError(r, err, rec.name)
		seen += n
	}
	for _, rec := range g.tree {
		require.True(r, rec.is(want), "something came after the last state\nwant %s\ngot %s", show(want), rec)
	}
	return seen
}

func (g *gallery) all() []*recorder {
	all := append([]*recorder{}, g.tree...)
	for _, rec := range g.ofKey {
		all = append(all, rec)
	}
	return all
}

// change deletes, re-creates and creates keys while nobody sees it.
func (g *gallery) change(round string) {
	r := g.r
	r.Helper()
	recreated, deleted, created := g.dir+"/recreated", g.dir+"/deleted", g.dir+"/created-"+round
	require.NoError(r, must(r.ctx, g.scr.delete, recreated))
	require.NoError(r, must(r.ctx, g.scr.put, recreated))
	require.NoError(r, must(r.ctx, g.scr.delete, deleted))
	require.NoError(r, must(r.ctx, g.scr.put, created))
	passing := g.dir + "/passing"
	require.NoError(r, must(r.ctx, g.scr.put, passing))
	require.NoError(r, must(r.ctx, g.scr.delete, passing))
}

func watchesOfFaults(r *rig) {
	const cuts = 20
	outage := 0
	p, dir := r.proxy(), r.key("d")
	r.recovers(r.kv)
	g := r.watchAll(r.through(p, nil), dir, dir+"/busy", dir+"/recreated", dir+"/deleted", dir+"/passing")
	for _, key := range []string{"recreated", "deleted"} {
		require.NoError(r, g.scr.put(r.ctx, dir+"/"+key))
	}
	stop := g.scr.work(r.env, dir+"/busy", dir+"/a", dir+"/b/c", dir+"/d")
	for i := range cuts {
		pauseFor(r.ctx, 10*time.Millisecond, 150*time.Millisecond)
		p.Cut()
		switch i {
		case 3, 12:
			require.NoError(r, r.server.Kill())
			pauseFor(r.ctx, 0, 200*time.Millisecond)
			require.NoError(r, r.server.Restart())
		case 1, 5, 8, 10, 15, 18:
			outages[outage%len(outages)].begin(p)
			outage++
			g.change(fmt.Sprint(i))
			if r.server.Compact != nil {
				require.NoError(r, r.server.Compact(r.ctx))
				g.change(fmt.Sprint(i, "-after"))
			}
			// Long enough for attempts to reconnect, not for all to be over.
			pauseFor(r.ctx, 100*time.Millisecond, time.Second)
			require.NoError(r, restore(p))
			require.NoError(r, must(r.ctx, g.scr.put, dir+"/deleted"))
		}
	}
	// The last outage happens when nothing else does: no later change wakes
	// those that have slept through this one.
	stop()
	refuse(p)
	g.change("last")
	require.NoError(r, restore(p))
	g.settles(2 * patience)
}

// watchesOnDeadConnection: the connection is silent for ever, as when a firewall
// has forgotten it, while new ones would work.
func watchesOnDeadConnection(r *rig) {
	p, dir := r.stranding(), r.key("d")
	g := r.watchAll(r.at(p.addr(), nil), dir, dir+"/busy", dir+"/deleted")
	require.NoError(r, g.scr.put(r.ctx, dir+"/deleted"))
	p.strand()
	begun := time.Now()
	g.change("once")
	require.NoError(r, g.scr.put(r.ctx, dir+"/busy"))
	g.settles(2 * patience)
	r.Logf("noticed after %v", time.Since(begun))
}
