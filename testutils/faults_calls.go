package testutils

import (
	"context"
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

// outcome is how one call ended.
type outcome struct {
	op   string
	err  error
	took time.Duration
}

// timedCall is a call of a Store or a Locker.
type timedCall struct {
	op    string
	write bool
	run   func(ctx context.Context) error
}

// target is what allCalls works on: a pair that exists, and a lock that is held.
type target struct {
	s    kvstore
	pair *pair
	held valkeyrie.Locker
	lock string // a key whose lock is free
}

// target prepares a store. The server must be there.
func (r *rig) target(s kvstore) target {
	r.Helper()
	r.put(r.key("d/k"), "v")
	t := target{s: s, pair: r.get(r.key("d/k")), lock: r.key("locks/free")}
	t.held = r.locker(s, r.key("locks/held"), &valkeyrie.LockOptions{TTL: time.Minute})
	r.mustLock(t.held)
	return t
}

// allCalls are all calls that go to the server.
func (r *rig) allCalls(t target) []timedCall {
	r.Helper()
	writes := map[string]bool{"Put": true, "Delete": true, "DeleteTree": true, "AtomicPut": true, "AtomicDelete": true}
	var all []timedCall
	for _, c := range storeCalls() {
		if c.op == "NewLock" {
			continue // asks nobody
		}
		key := t.pair.Key
		if c.root || c.op == "DeleteTree" {
			key = r.key("d")
		}
		all = append(all, timedCall{c.String(), writes[c.op], func(ctx context.Context) error {
			_, err := c.run(ctx, t.s, key, t.pair)
			if err == nil && c.op == "Events" {
				err = ctx.Err() // its end is no error there
			}
			return err
		}})
	}
	opts := &valkeyrie.LockOptions{TTL: r.h.LockTTL}
	one, other := r.locker(t.s, t.lock, opts), r.locker(t.s, t.lock, opts)
	all = append(all,
		timedCall{"Lock", true, func(ctx context.Context) error { _, err := one.Lock(ctx); return err }},
		timedCall{"TryLock", true, func(ctx context.Context) error { _, err := other.TryLock(ctx); return err }})
	if t.held != nil {
		all = append(all, timedCall{"Unlock", true, t.held.Unlock})
	}
	return all
}

// allFail makes all calls at once, each with a deadline of a second, and checks
// that each returns in time with a true error.
func (r *rig) allFail(calls []timedCall) {
	r.Helper()
	const deadline = time.Second
	outcomes := make(chan outcome, len(calls))
	for _, c := range calls {
		go func() {
			ctx, cancel := context.WithTimeout(r.ctx, deadline)
			defer cancel()
			begun := time.Now()
			err := c.run(ctx)
			o := outcome{op: c.op, took: time.Since(begun)}
			if o.err = failedRightly(c, err); o.err == nil && o.took > deadline+time.Second {
				o.err = fmt.Errorf("it took %v with a deadline of %v: %w", o.took, deadline, err)
			}
			outcomes <- o
		}()
	}
	missing := make(map[string]bool)
	for _, c := range calls {
		missing[c.op] = true
	}
	timeout := time.After(patience)
	for range calls {
		select {
		case o := <-outcomes:
			require.NoError(r, o.err, o.op)
			delete(missing, o.op)
		case <-timeout:
			require.FailNow(r, fmt.Sprintf("calls with a deadline of %v have not returned after %v: %v", deadline, patience, missing))
		}
	}
}

// failedRightly judges the error of a call that cannot have been answered.
func failedRightly(c timedCall, err error) error {
	var oe *valkeyrie.OpError
	late := errors.Is(err, context.DeadlineExceeded)
	away, unknown := errors.Is(err, valkeyrie.ErrNotReachable), errors.Is(err, valkeyrie.ErrAmbiguous)
	switch {
	case err == nil:
		return errors.New("it succeeded without a server")
	case !errors.As(err, &oe) && !(late && err == context.DeadlineExceeded): //nolint:errorlint // the end of Events
		return fmt.Errorf("not an *OpError: %w", err)
	case !late && !away:
		return fmt.Errorf("neither ErrNotReachable nor the context's error: %w", err)
	case away && unknown:
		return fmt.Errorf("%w: %w", errBoth, err)
	case unknown && !c.write:
		return fmt.Errorf("a read is never ambiguous: %w", err)
	}
	return nil
}

// allWork checks that a store does everything again.
func (r *rig) allWork(t target) {
	r.Helper()
	r.recovers(t.s)
	key := r.key("again/k")
	_, p, err := t.s.AtomicPut(r.ctx, key, []byte("v"), nil, nil)
	require.NoError(r, err)
	list, err := t.s.List(r.ctx, r.key("again"), nil)
	require.NoError(r, err)
	require.Equal(r, []*pair{p}, list)
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	requireSamePair(r.env, p, receive(r.env, r.watchOn(ctx, t.s, key, nil), "the state at the start"))
	ok, err := t.s.AtomicDelete(r.ctx, key, p)
	require.NoError(r, err)
	require.True(r, ok)

	// Nothing of the calls in vain holds the lock for longer than a hold lasts.
	lock := r.locker(t.s, t.lock, nil)
	ctx, cancel = context.WithTimeout(r.ctx, r.h.LockTTL+r.h.CrashBound+soon)
	defer cancel()
	_, err = lock.Lock(ctx)
	require.NoError(r, err, "a lock that was asked for in vain must be free")
	require.NoError(r, lock.Unlock(r.ctx))
}

func callsOnSilence(r *rig) {
	for _, o := range outages {
		r.sub(o.name, func(r *rig) {
			p := r.proxy()
			t := r.target(r.through(p, nil))
			calls := r.allCalls(t)
			o.begin(p)
			r.allFail(calls)
			require.NoError(r, p.Pass())
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
			r.allFail(r.allCalls(t))
			require.NoError(r, p.Pass())
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
		r.allFail(r.allCalls(t))
		require.NoError(r, p.Pass())
		r.allWork(t)
	})
	r.sub("since it was used", func(r *rig) {
		p := r.proxy()
		t := r.target(r.through(p, nil))
		calls := r.allCalls(t)
		refuse(p)
		r.noticed(t.s)
		r.allFail(calls)
		require.NoError(r, p.Pass())
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
	r.allFail(calls)
	require.NoError(r, r.server.Restart())
	r.allWork(direct)
	r.allWork(behind)
}

// noticed waits until a store has noticed that its connection is gone: a request
// that was put on it just before is ambiguous and not refused.
func (r *rig) noticed(s kvstore) {
	r.Helper()
	r.eventually(soon, "a read fails", func() bool {
		ctx, cancel := context.WithTimeout(r.ctx, time.Second)
		defer cancel()
		_, err := s.Get(ctx, r.key("d/k"), nil)
		return err != nil
	})
}
