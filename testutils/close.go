package testutils

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var closeChecks = []check{
	{"after Close every call is ErrClosed", closeCalls},
	{"Close is idempotent, and may be called by many at once", closeTwice},
	{"Close ends all watches within a second, whether or not anyone reads", closeWatches},
	{"Close ends Events with ErrClosed", closeEvents},
	{"Close while a Walk is running ends it", closeWalk},
	{"Close while calls are running lets each return", closeRunning},
	{"Close leaves other stores and the data alone", closeOthers},
}

func closeCalls(e *env) {
	e.put(e.key("k"), "v")
	p := e.get(e.key("k"))
	for _, cfg := range []*valkeyrie.Config{nil, {Prefix: e.dir}} {
		s := e.open(cfg)
		held, err := s.NewLock(e.ctx, e.key("held"), nil)
		require.NoError(e, err)
		_, err = held.TryLock(e.ctx)
		require.NoError(e, err)
		free, err := s.NewLock(e.ctx, e.key("free"), nil)
		require.NoError(e, err)
		walk := s.Walk(e.ctx, e.dir, nil)
		events := s.Events(e.ctx, e.key("k"), nil)
		require.NoError(e, s.Close())

		for _, c := range storeCalls() {
			for _, key := range []string{e.key("k"), e.key("missing")} {
				got, err := c.run(e.ctx, s, key, p)
				e.refused(err, c.op, key, valkeyrie.ErrClosed)
				require.Zero(e, got, "%s %q returned something along with its error", c, key)
			}
		}
		_, err = collect(walk)
		e.refused(err, "Walk", e.dir, valkeyrie.ErrClosed) // begun before, ranged over after
		_, err = firstEvent(events)
		e.refused(err, "Events", e.key("k"), valkeyrie.ErrClosed)
		for _, l := range []valkeyrie.Locker{held, free} {
			require.Zero(e, l.Token())
			// Whether it says that the lock is not held or that the store is
			// closed, both are true; that it was unlocked is not.
			require.Error(e, l.Unlock(e.ctx))
		}
		_, err = free.Lock(e.ctx)
		e.refused(err, "Lock", e.key("free"), valkeyrie.ErrClosed)
		_, err = free.TryLock(e.ctx)
		e.refused(err, "TryLock", e.key("free"), valkeyrie.ErrClosed)
		_, err = held.Lock(e.ctx)
		e.refused(err, "Lock", e.key("held"), valkeyrie.ErrClosed)
	}
	require.Equal(e, p, e.get(e.key("k")))
	require.Equal(e, []string{e.key("k")}, e.list(e.kv, e.dir), "a closed store has written something")
}

func closeTwice(e *env) {
	s := e.open(nil)
	require.NoError(e, s.Put(e.ctx, e.key("k"), nil, &valkeyrie.WriteOptions{TTL: time.Minute, KeepAlive: true}))
	require.NoError(e, s.Close())
	for range 3 {
		require.NoError(e, s.Close(), "further calls do nothing")
	}
	for range 10 {
		s := e.open(nil)
		_, err := s.Watch(e.ctx, e.key("k"), nil)
		require.NoError(e, err)
		require.NoError(e, together(8, func(int) error { return s.Close() }))
		_, err = s.Get(e.ctx, e.key("k"), nil)
		e.refused(err, "Get", e.key("k"), valkeyrie.ErrClosed)
	}
	unused := e.open(nil)
	require.NoError(e, unused.Close(), "Close of a store that was never used")
}

// unread tells whether a channel was closed although nobody read it: it holds no
// more than its buffer, and then its end at once.
func unread[T any](ch <-chan T) error {
	for n := 0; n <= cap(ch); n++ {
		select {
		case _, open := <-ch:
			if !open {
				return nil
			}
		default:
			return errors.New("the channel is not closed")
		}
	}
	return errors.New("somebody was still waiting to send")
}

func closeWatches(e *env) {
	s := e.open(nil)
	var ones []<-chan *pair
	var trees []<-chan []*pair
	for i := range 5 {
		for _, key := range []string{e.key("k"), e.key(fmt.Sprint("other", i))} {
			one, err := s.Watch(e.ctx, key, nil)
			require.NoError(e, err)
			ones = append(ones, one)
		}
		for _, dir := range []string{e.dir, e.key("below"), e.key(fmt.Sprint("empty", i))} {
			tree, err := s.WatchTree(e.ctx, dir, nil)
			require.NoError(e, err)
			trees = append(trees, tree)
		}
	}
	receive(e, ones[0], "state") // some have a reader for a while
	receive(e, trees[0], "state")
	for i := range 50 {
		e.put(e.key("k"), fmt.Sprint(i))
		e.put(e.key("below/k"), fmt.Sprint(i))
	}
	start := time.Now()
	require.NoError(e, s.Close())
	require.Less(e, time.Since(start), patience, "Close waits for readers")
	time.Sleep(time.Until(start.Add(time.Second)))
	for _, one := range ones {
		require.NoError(e, unread(one), "a Watch a second after Close")
	}
	for _, tree := range trees {
		require.NoError(e, unread(tree), "a WatchTree a second after Close")
	}
}

func closeEvents(e *env) {
	for _, tree := range []bool{false, true} {
		s := e.open(nil)
		synced, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			var last error
			for ev, err := range s.Events(e.ctx, e.key("k"), &valkeyrie.WatchOptions{Tree: tree}) {
				if last = err; err == nil && ev.Type == valkeyrie.Synced {
					close(synced)
				}
			}
			ended <- last
		}()
		closes(e, synced, patience, "Synced")
		start := time.Now()
		require.NoError(e, s.Close())
		e.refused(receive(e, ended, "the end of Events"), "Events", e.key("k"), valkeyrie.ErrClosed)
		require.Less(e, time.Since(start), 2*time.Second)
	}
}

// closeWalk closes in the body of the loop, where a backend that waits for its
// readers would wait for ever.
func closeWalk(e *env) {
	keys := make([]string, 0, 1000)
	for i := range 1000 {
		keys = append(keys, e.key(fmt.Sprint("d/", i)))
	}
	e.putAll(keys, nil)
	for _, stopAt := range []int{1, 500} {
		s := e.open(nil)
		n := 0
		var failed error
		closed := make(chan error, 1)
		for _, err := range s.Walk(e.ctx, e.key("d"), nil) {
			require.NoError(e, failed, "the Walk went on after its error")
			if failed = err; err != nil {
				continue
			}
			if n++; n == stopAt {
				go func() { closed <- s.Close() }()
				require.NoError(e, receive(e, closed, "Close inside a Walk"))
			}
		}
		if n < len(keys) { // what is on its way already may still come
			e.refused(failed, "Walk", e.key("d"), valkeyrie.ErrClosed)
		}
	}
	require.Len(e, e.walkKeys(e.kv), len(keys))
}

func closeRunning(e *env) {
	for range 5 {
		s := e.open(nil)
		var closed atomic.Bool
		started := make(chan struct{}, 8)
		done := make(chan error, 1)
		go func() {
			done <- together(8, func(i int) error { return busy(e, s, e.key(fmt.Sprint("k", i)), started, &closed) })
		}()
		for range 8 {
			receive(e, started, "a first call")
		}
		require.NoError(e, s.Close())
		closed.Store(true)
		require.NoError(e, receive(e, done, "the calls that ran during Close"))
	}
}

// busy calls until the store is closed; then every call, and before that none,
// must be ErrClosed. A write that Close cut off may say that it is ambiguous.
func busy(e *env, s kvstore, key string, started chan<- struct{}, closed *atomic.Bool) error {
	for n := 0; ; n++ {
		after := closed.Load()
		errs := []error{s.Put(e.ctx, key, nil, nil)}
		_, err := s.Get(e.ctx, key, nil)
		errs = append(errs, err)
		_, err = s.List(e.ctx, e.dir, nil)
		errs = append(errs, err)
		_, _, err = s.AtomicPut(e.ctx, key+"-", nil, nil, nil)
		errs = append(errs, err)
		if n == 0 {
			started <- struct{}{}
		}
		for i, err := range errs {
			fine := err == nil || errors.Is(err, valkeyrie.ErrKeyExists) || errors.Is(err, valkeyrie.ErrAmbiguous)
			if !errors.Is(err, valkeyrie.ErrClosed) && (after || !fine) {
				return fmt.Errorf("call %d, after Close: %v, returned: %w", i, after, orNil(err))
			}
		}
		if after {
			return nil
		}
	}
}

// orNil makes an error of none, for messages.
func orNil(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

func closeOthers(e *env) {
	first, second := e.open(nil), e.open(nil)
	key, lock := e.key("k"), e.key("lock")
	require.NoError(e, first.Put(e.ctx, key, []byte("by the first"), nil))
	watch, err := second.Watch(e.ctx, key, nil)
	require.NoError(e, err)
	require.Equal(e, "by the first", string(receive(e, watch, "state").Value))
	require.NoError(e, second.Put(e.ctx, e.key("alive"), nil, &valkeyrie.WriteOptions{TTL: aliveTTL, KeepAlive: true}))
	l, err := second.NewLock(e.ctx, lock, &valkeyrie.LockOptions{TTL: max(aliveTTL, e.h.LockTTL)})
	require.NoError(e, err)
	lost, err := l.Lock(e.ctx)
	require.NoError(e, err)
	walked := 0
	for _, err := range second.Walk(e.ctx, e.dir, nil) {
		require.NoError(e, err)
		require.NoError(e, first.Close())
		walked++
	}
	require.Equal(e, 3, walked)

	third := e.open(nil)
	for _, s := range []kvstore{second, third} {
		p, err := s.Get(e.ctx, key, nil)
		require.NoError(e, err)
		require.Equal(e, "by the first", string(p.Value), "what a closed store wrote")
	}
	require.NoError(e, third.Put(e.ctx, key, []byte("by the third"), nil))
	require.Equal(e, "by the third", string(receive(e, watch, "the change").Value))
	e.stay(third, 2*max(aliveTTL, e.h.LockTTL), e.key("alive"))
	select {
	case <-lost:
		require.FailNow(e, "a lock of another store ended")
	default:
	}
	require.NoError(e, l.Unlock(e.ctx))
}
