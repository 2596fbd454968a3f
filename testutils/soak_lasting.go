package testutils

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// What lasts: locks, offices, and watches and stores that come and go.

// startLocks has contenders on every store for two locks.
func (s *soak) startLocks() {
	s.Helper()
	for i := range 2 {
		key := s.key(fmt.Sprint("locks/", i))
		g := &holders{pulse: s.pulse}
		s.locks[key] = g
		for j, kv := range s.everyStore() {
			l := s.locker(kv, key, &valkeyrie.LockOptions{TTL: s.h.LockTTL, Value: []byte("same")})
			s.work(fmt.Sprintf("contender %d for %s", j, key), func(ctx context.Context) error { return s.contend(ctx, g, l) })
		}
	}
}

// contend asks for the lock in one of the ways in which it can be asked for.
func (s *soak) contend(ctx context.Context, g *holders, l valkeyrie.Locker) error {
	kind, acquire, wait := "Lock", l.Lock, 3*time.Second
	switch rand.IntN(4) {
	case 0:
		kind, acquire = "TryLock", l.TryLock
	case 1:
		kind, wait = "Lock, given up", rand.N(300*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return g.turn(ctx, l, func(ctx context.Context) (<-chan struct{}, error) {
		lost, err := acquire(ctx)
		s.totals.call(kind, err)
		return lost, err
	})
}

// office is an election that goes on for the whole time.
type office struct {
	s     *soak
	key   string
	all   []*campaign
	g     *holders
	watch *following
}

// startOffice has a candidate on every store, and somebody who makes them resign.
func (s *soak) startOffice() {
	s.Helper()
	o := &office{s: s, key: s.key("leader"), g: &holders{pulse: s.pulse}}
	for i, kv := range s.everyStore() {
		o.all = append(o.all, s.campaign(kv, o.key, fmt.Sprint("node-", i), s.h.LockTTL, o.g))
	}
	o.watch = s.follow(s.stores[0], o.key)
	s.office = o
	s.work("office", func(ctx context.Context) error {
		if pauseFor(ctx, 200*time.Millisecond, 1500*time.Millisecond) {
			o.all[rand.IntN(len(o.all))].c.Resign()
		}
		return o.g.failed()
	})
}

// shown checks that somebody leads, and that the follower shows him.
func (o *office) shown() {
	o.s.Helper()
	o.s.eventually(o.s.leaderBound()+patience, "somebody leads and is shown", func() bool {
		last := o.watch.last.Load()
		for _, c := range o.all {
			if last != nil && c.leading() != nil && *last == c.name {
				return true
			}
		}
		return false
	})
}

// close lets all candidates stop, one after the other, and returns how many terms
// there were.
func (o *office) close() int {
	o.s.Helper()
	for _, c := range o.all {
		c.ends(soon)
	}
	o.watch.shows("")
	o.watch.ends()
	require.NoError(o.s, o.g.failed())
	o.s.becomesFree(o.s.kv, o.key)
	return o.g.terms()
}

// startVisitors has watches that come and go on what the scribes write, and stores.
func (s *soak) startVisitors() {
	for i, kv := range s.stores {
		kind := i
		s.work(fmt.Sprint("watches that come and go, ", i), func(ctx context.Context) error {
			kind++
			return s.visit(ctx, kv, s.galleries[rand.IntN(len(s.galleries))], kind%4)
		})
	}
	s.work("stores that come and go", s.passBy)
}

// visit is a watch for a while. It has to end when it is told to, and not before.
func (s *soak) visit(ctx context.Context, kv kvstore, g *gallery, which int) error {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond+rand.N(2*time.Second))
	defer cancel()
	rec, err := newRecorder("a visitor"), error(nil)
	var synced <-chan struct{}
	kind := "Events"
	switch key := g.dir + "/busy"; which {
	case 0:
		kind, err = "Watch", rec.watch(ctx, kv, key)
	case 1:
		kind, err = "WatchTree", rec.watchTree(ctx, kv, g.dir)
	case 2:
		synced = rec.events(ctx, kv, key, false)
	case 3:
		synced = rec.events(ctx, kv, g.dir, true)
	}
	if err == nil {
		err = s.attend(ctx, rec, synced)
	}
	s.totals.call(kind, err)
	if err != nil {
		return tolerable(err)
	}
	seen, err := rec.judge(g.scr)
	s.totals.watched(1, seen)
	return err
}

// attend waits until a watch is over. synced is that of Events, which may fail before.
func (s *soak) attend(ctx context.Context, rec *recorder, synced <-chan struct{}) error {
	select {
	case <-rec.done:
	case <-ctx.Done():
		select {
		case <-rec.done:
		case <-time.After(soon + s.pulse.missed(time.Now().Add(-5*time.Second))):
			return fmt.Errorf("a watch has not ended %v after its context", soon)
		}
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	ended := rec.ended
	rec.ended = nil
	switch {
	case errors.Is(ended, errEnded) && ctx.Err() != nil:
		return nil
	case synced != nil && !isLost(synced):
		return ended
	}
	return fmt.Errorf("a watch ended by itself: %v", ended) // not to be tolerated, whatever it is
}

// passBy opens a store, uses it, and closes it in the middle.
func (s *soak) passBy(ctx context.Context) error {
	addr := ""
	if n := len(s.proxies); n > 0 {
		addr = s.proxies[rand.IntN(n)].Addr()
	}
	kv := s.openAt(s.T, addr, &valkeyrie.Config{})
	used := make(chan error, 1)
	dir := s.key("passing")
	go func() { used <- s.pass(ctx, kv, dir) }()
	pauseFor(ctx, 0, 1500*time.Millisecond)
	begun := time.Now()
	err := kv.Close()
	if took := time.Since(begun); took > 5*time.Second+s.pulse.missed(begun) {
		err = errors.Join(err, fmt.Errorf("a call of Close took %v", took))
	}
	s.totals.call("Close", err)
	return errors.Join(err, <-used)
}

// pass uses a store until it is closed.
func (s *soak) pass(ctx context.Context, kv kvstore, dir string) error {
	for i := 0; ; i++ {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := kv.Put(call, dir+"/k", []byte("v"), &valkeyrie.WriteOptions{TTL: lifetime, KeepAlive: true})
		if err == nil && i == 0 {
			var l valkeyrie.Locker
			if l, err = kv.NewLock(call, dir+"/lock", nil); err == nil {
				_, err = l.TryLock(call)
			}
			if err == nil { // nobody reads it: Close ends it all the same
				_, err = kv.WatchTree(ctx, dir, nil)
			}
		}
		cancel()
		switch {
		case errors.Is(err, valkeyrie.ErrClosed), ctx.Err() != nil:
			return nil
		case err == nil, errors.Is(err, valkeyrie.ErrLockHeld):
			pauseFor(ctx, 0, 20*time.Millisecond)
		default:
			if err = tolerable(err); err != nil {
				return err
			}
		}
	}
}
