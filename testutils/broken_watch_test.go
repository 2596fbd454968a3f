package testutils_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/kvtools/valkeyrie"
)

var watchDefects = []defect{
	{"Watch of a missing key is an error", "Watch/a missing key is a pair with a nil value and not an error",
		func(s kvstore) kvstore { return watching{kvstore: s, refuse: true} }},
	{"Watch never sends deletions", "Watch/a deletion is a pair with a nil value and the last revision seen",
		onStates(func(p *valkeyrie.KVPair, _ int) bool { return p.Value != nil || p.LastIndex == 0 })},
	{"Watch forgets the revision of what was deleted", "Watch/a deletion is a pair with a nil value and the last revision seen",
		onStates(func(p *valkeyrie.KVPair, _ int) bool {
			if p.Value == nil {
				p.LastIndex = 0
			}
			return true
		})},
	{"Watch falls silent after its first state", "Watch/nothing that happens after the call is missed",
		onStates(func(_ *valkeyrie.KVPair, n int) bool { return n == 0 })},
	{"Watch misses one change", "Watch/sends what another store changes",
		onStates(func(_ *valkeyrie.KVPair, n int) bool { return n != 3 })},
	{"Watch keeps every state for an absent reader", "Watch/an absent reader blocks nobody and then gets few states, the last one last",
		func(s kvstore) kvstore { return hoarding{s} }},
	{"Watch goes back to an older state", "Watch/states never go back",
		func(s kvstore) kvstore { return watching{kvstore: s, goBack: true} }},
	{"Watch outlives its context", "Watch/cancelling closes the channel while somebody reads",
		func(s kvstore) kvstore { return watching{kvstore: s, outlive: true} }},
	{"Watch waits for its reader when it is cancelled", "Watch/cancelling closes the channel while nobody reads",
		func(s kvstore) kvstore { return watching{kvstore: s, silent: true} }},
	{"WatchTree is not sorted", "WatchTree/sends the whole directory after a change, sorted",
		onTrees(func(_ string, t []*valkeyrie.KVPair) []*valkeyrie.KVPair {
			slices.Reverse(t)
			return t
		})},
	{"WatchTree sends one level", "WatchTree/sends keys at every depth",
		onTrees(func(dir string, t []*valkeyrie.KVPair) []*valkeyrie.KVPair {
			return slices.DeleteFunc(t, func(p *valkeyrie.KVPair) bool { return strings.Contains(strings.TrimPrefix(p.Key, dir+"/"), "/") })
		})},
	{"WatchTree sends nil for an empty directory", "WatchTree/a directory that does not exist is an empty slice that is not nil",
		onTrees(func(_ string, t []*valkeyrie.KVPair) []*valkeyrie.KVPair {
			if len(t) == 0 {
				return nil
			}
			return t
		})},
	{"WatchTree never sends the empty directory", "WatchTree/the last key deleted leaves an empty slice that is not nil",
		func(s kvstore) kvstore { return trees{s, nil} }},
	{"Events never end their beginning", "Events/a missing key and an empty directory are Synced alone",
		onEvents(func(ev valkeyrie.Event, err error) bool { return err != nil || ev.Type != valkeyrie.Synced })},
	{"Events leave out deletions", "Events/a Delete has its key, no value and the last revision seen",
		onEvents(func(ev valkeyrie.Event, err error) bool { return err != nil || ev.Type != valkeyrie.Delete })},
	{"Events end in silence when the store is closed", "Events/closing the store ends it with ErrClosed",
		onEvents(func(_ valkeyrie.Event, err error) bool { return !errors.Is(err, valkeyrie.ErrClosed) })},
}

// watching is a store whose Watch does one thing wrong.
type watching struct {
	kvstore
	keep    func(p *valkeyrie.KVPair, n int) bool // whether the n-th state is sent
	refuse  bool                                  // Watch of a missing key
	goBack  bool                                  // sends each state before the last again
	outlive bool                                  // does not end with the context
	silent  bool                                  // sends without looking at the context
}

func onStates(keep func(p *valkeyrie.KVPair, n int) bool) func(kvstore) kvstore {
	return func(s kvstore) kvstore { return watching{kvstore: s, keep: keep} }
}

func (s watching) Watch(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (<-chan *valkeyrie.KVPair, error) {
	if s.refuse {
		if _, err := s.Get(ctx, key, nil); err != nil {
			return nil, err
		}
	}
	if s.outlive {
		ctx = context.WithoutCancel(ctx)
	}
	in, err := s.kvstore.Watch(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	out := make(chan *valkeyrie.KVPair)
	go s.pass(ctx, in, out)
	return out, nil
}

func (s watching) pass(ctx context.Context, in <-chan *valkeyrie.KVPair, out chan<- *valkeyrie.KVPair) {
	defer close(out)
	var last *valkeyrie.KVPair
	n := -1
	for p := range in {
		if n++; s.keep != nil && !s.keep(p, n) {
			continue
		}
		send := []*valkeyrie.KVPair{p}
		if s.goBack && last != nil {
			send = append(send, last, p)
		}
		last = p
		for _, p := range send {
			if s.silent {
				out <- p
				continue
			}
			select {
			case out <- p:
			case <-ctx.Done():
				return
			}
		}
	}
}

// hoarding is a store that hands every put to every watch, without end.
type hoarding struct{ kvstore }

var hoard struct {
	sync.Mutex
	watches map[string][]chan *valkeyrie.KVPair
}

func (s hoarding) Watch(ctx context.Context, key string, _ *valkeyrie.ReadOptions) (<-chan *valkeyrie.KVPair, error) {
	hoard.Lock()
	defer hoard.Unlock()
	ch := make(chan *valkeyrie.KVPair, 10_000)
	ch <- &valkeyrie.KVPair{Key: key}
	if hoard.watches == nil {
		hoard.watches = make(map[string][]chan *valkeyrie.KVPair)
	}
	hoard.watches[key] = append(hoard.watches[key], ch)
	return ch, nil
}

func (s hoarding) Put(ctx context.Context, key string, value []byte, opts *valkeyrie.WriteOptions) error {
	hoard.Lock()
	defer hoard.Unlock()
	if err := s.kvstore.Put(ctx, key, value, opts); err != nil {
		return err
	}
	for _, ch := range hoard.watches[key] {
		p, err := s.Get(ctx, key, nil)
		if err != nil {
			return err
		}
		ch <- p
	}
	return nil
}

// trees is a store whose WatchTree changes each snapshot; without a function it
// leaves the empty ones out, after the first.
type trees struct {
	kvstore
	change func(dir string, t []*valkeyrie.KVPair) []*valkeyrie.KVPair
}

func onTrees(change func(dir string, t []*valkeyrie.KVPair) []*valkeyrie.KVPair) func(kvstore) kvstore {
	return func(s kvstore) kvstore { return trees{s, change} }
}

func (s trees) WatchTree(ctx context.Context, dir string, opts *valkeyrie.ReadOptions) (<-chan []*valkeyrie.KVPair, error) {
	in, err := s.kvstore.WatchTree(ctx, dir, opts)
	if err != nil {
		return nil, err
	}
	out := make(chan []*valkeyrie.KVPair)
	go func() {
		defer close(out)
		for t := range in {
			switch {
			case s.change != nil:
				t = s.change(dir, t)
			case len(t) == 0:
				continue
			}
			select {
			case out <- t:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// events is a store whose Events leave some out.
type events struct {
	kvstore
	keep func(ev valkeyrie.Event, err error) bool
}

func onEvents(keep func(ev valkeyrie.Event, err error) bool) func(kvstore) kvstore {
	return func(s kvstore) kvstore { return events{s, keep} }
}

func (s events) Events(ctx context.Context, key string, opts *valkeyrie.WatchOptions) iter.Seq2[valkeyrie.Event, error] {
	return func(yield func(valkeyrie.Event, error) bool) {
		for ev, err := range s.kvstore.Events(ctx, key, opts) {
			if s.keep(ev, err) && !yield(ev, err) {
				return
			}
		}
	}
}
