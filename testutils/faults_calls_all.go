package testutils

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

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
	opts := &valkeyrie.LockOptions{TTL: r.h.LockTTL}
	all := serverCalls(t.s, r.key("d"), t.pair, r.locker(t.s, t.lock, opts), r.locker(t.s, t.lock, opts))
	if t.held != nil {
		all = append(all, timedCall{"Unlock", true, t.held.Unlock})
	}
	return all
}

// serverCalls are all calls that go to the server, but Unlock: on a directory, a
// pair in it, and two Lockers.
func serverCalls(s kvstore, dir string, p *pair, one, other valkeyrie.Locker) []timedCall {
	writes := map[string]bool{"Put": true, "Delete": true, "DeleteTree": true, "AtomicPut": true, "AtomicDelete": true}
	var all []timedCall
	for _, c := range storeCalls() {
		if c.op == "NewLock" {
			continue // asks nobody
		}
		key := p.Key
		if c.root || c.op == "DeleteTree" {
			key = dir
		}
		all = append(all, timedCall{c.String(), writes[c.op], func(ctx context.Context) error {
			_, err := c.run(ctx, s, key, p)
			if err == nil && c.op == "Events" {
				err = ctx.Err() // its end is no error there
			}
			return err
		}})
	}
	return append(all,
		timedCall{"Lock", true, func(ctx context.Context) error { _, err := one.Lock(ctx); return err }},
		timedCall{"TryLock", true, func(ctx context.Context) error { _, err := other.TryLock(ctx); return err }})
}

// allFail makes all calls at once, each with a deadline of a second, and checks
// that each returns in time with a true error. dying: connections are being
// reset, so that requests may have gone out on them.
func (r *rig) allFail(calls []timedCall, dying bool) {
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
			if o.err = failedRightly(c, err, dying); o.err == nil && o.took > deadline+time.Second+r.pulse.missed(begun) {
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

// failedRightly judges the error of a call that cannot have been answered. dying
// is described at allFail.
func failedRightly(c timedCall, err error, dying bool) error {
	var oe *valkeyrie.OpError
	late := errors.Is(err, context.DeadlineExceeded)
	away, unknown := errors.Is(err, valkeyrie.ErrNotReachable), errors.Is(err, valkeyrie.ErrAmbiguous)
	switch {
	case err == nil:
		return errors.New("it succeeded without a server")
	case !errors.As(err, &oe) && !(late && err == context.DeadlineExceeded): //nolint:errorlint // the end of Events
		return fmt.Errorf("not an *OpError: %w", err)
	case !late && !away && !(dying && unknown):
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
