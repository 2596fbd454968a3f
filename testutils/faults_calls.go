package testutils

import (
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/faultproxy"
)

var callFaults = []faultCheck{
	{"every call returns within its deadline when the network is silent, and works again after it", false, callsOnSilence},
	{"every call of a store that is opened while the network is silent returns within its deadline", false, callsOfNewStoreOnSilence},
	{"a watch that gets no answer is ErrNotReachable after ConnectionTimeout", false, watchesOnSilence},
	{"Close returns soon when the network is silent", false, closeOnSilence},
	{"a server that is away is ErrNotReachable or the context's error on every call", false, callsWithoutServer},
	{"a server that was killed is ErrNotReachable or the context's error on every call", true, callsWithKilledServer},
}

func callsOnSilence(r *rig) {
	for _, o := range outages {
		r.sub(o.name, func(r *rig) {
			p := r.proxy()
			t := r.target(r.through(p, nil))
			calls := r.allCalls(t)
			o.begin(p)
			r.allFail(calls, o.resets)
			require.NoError(r, restore(p))
			r.allWork(t)
		})
	}
}

func callsOfNewStoreOnSilence(r *rig) {
	for _, way := range []faultproxy.Direction{faultproxy.Both, faultproxy.ToClient} {
		r.sub(map[faultproxy.Direction]string{faultproxy.Both: "both ways", faultproxy.ToClient: "answers"}[way], func(r *rig) {
			p := r.proxy()
			p.Blackhole(way)
			r.put(r.key("d/k"), "v")
			t := target{s: r.through(p, nil), pair: r.get(r.key("d/k")), lock: r.key("locks/free")}
			r.allFail(r.allCalls(t), false)
			require.NoError(r, restore(p))
			r.allWork(t)
		})
	}
}

// watchesOnSilence gives no deadline: without an answer nothing but
// ConnectionTimeout ends the call.
func watchesOnSilence(r *rig) {
	const timeout = time.Second
	p := r.proxy()
	cfg := func() *valkeyrie.Config { return &valkeyrie.Config{ConnectionTimeout: timeout} }
	used, fresh := r.through(p, cfg()), r.through(p, cfg())
	r.recovers(used)
	p.Blackhole(faultproxy.Both)
	ctx, _ := r.cancellable()
	var calls []func() error
	for _, s := range []kvstore{used, fresh} {
		calls = append(calls,
			func() error { _, err := s.Watch(ctx, r.key("k"), nil); return err },
			func() error { _, err := s.WatchTree(ctx, r.key("d"), nil); return err },
			func() error { _, err := firstEvent(s.Events(ctx, r.key("k"), nil)); return err })
	}
	begun := time.Now()
	r.start(len(calls), func(i int) error {
		if err := calls[i](); !errors.Is(err, valkeyrie.ErrNotReachable) {
			return fmt.Errorf("call %d: want ErrNotReachable, got %w", i, errors.Join(errors.New("an error"), err))
		}
		return nil
	})()
	require.Less(r, time.Since(begun), timeout+soon)
}

// closeOnSilence closes a store with everything going on that Close has to end.
func closeOnSilence(r *rig) {
	for _, o := range outages {
		r.sub(o.name, func(r *rig) {
			p := r.proxy()
			t := r.target(r.through(p, nil))
			ttl := &valkeyrie.WriteOptions{TTL: time.Minute, KeepAlive: true}
			require.NoError(r, t.s.Put(r.ctx, r.key("alive"), nil, ttl))
			lock := r.locker(t.s, r.key("locks/other"), nil)
			lost := r.mustLock(lock)
			ch := r.watchOn(r.ctx, t.s, r.key("d/k"), nil)
			o.begin(p)
			pending := make(chan error, 1)
			go func() {
				_, err := t.s.Get(r.ctx, r.key("d/k"), nil)
				pending <- err
			}()
			begun := time.Now()
			closed := make(chan struct{})
			go func() {
				_ = t.s.Close()
				close(closed)
			}()
			closes(r.env, closed, patience, "Close")
			require.Less(r, time.Since(begun), 5*time.Second, "Close")
			closes(r.env, ch, soon, "a watch of a closed store")
			closes(r.env, lost, soon, "lost of a closed store")
			err := receive(r.env, pending, "the call that was running")
			require.True(r, errors.Is(err, valkeyrie.ErrClosed) || errors.Is(err, valkeyrie.ErrNotReachable) || err == nil,
				"a call that was running when the store was closed: %v", err)
		})
	}
}

func callsWithoutServer(r *rig) {
	r.sub("since the beginning", func(r *rig) {
		p := r.proxy()
		p.Refuse()
		r.put(r.key("d/k"), "v")
		t := target{s: r.through(p, nil), pair: r.get(r.key("d/k")), lock: r.key("locks/free")}
		r.allFail(r.allCalls(t), false)
		require.NoError(r, restore(p))
		r.allWork(t)
	})
	r.sub("since it was used", func(r *rig) {
		p := r.proxy()
		t := r.target(r.through(p, nil))
		calls := r.allCalls(t)
		refuse(p)
		r.noticed(t.s)
		r.allFail(calls, false)
		require.NoError(r, restore(p))
		r.allWork(t)
	})
}

// callsWithKilledServer also has the proxy accept connections to a dead server.
func callsWithKilledServer(r *rig) {
	direct, p := r.target(r.open(nil)), r.proxy()
	behind := target{s: r.through(p, nil), pair: direct.pair, lock: r.key("locks/behind")}
	r.recovers(behind.s)
	calls := append(r.allCalls(direct), r.allCalls(behind)...)
	require.NoError(r, r.server.Kill())
	r.noticed(direct.s)
	r.noticed(behind.s)
	r.allFail(calls, false)
	require.NoError(r, r.server.Restart())
	r.allWork(direct)
	r.allWork(behind)
}
