package testutils_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kvtools/valkeyrie"
)

var lockDefects = []defect{
	{"a lock excludes only within its store", "Locks/one holder at a time", apart},
	{"a lock excludes only within its store: elections", "Elections/of five candidates one leads at a time, and tokens grow", apart},
	{"lost is never closed: elections", "Elections/a leader whose key is deleted or overwritten has lost, and campaigns again",
		onLockers(func(l valkeyrie.Locker, _ lockInfo) valkeyrie.Locker { return &neverLost{l} })},
	{"lost is never closed", "Locks/a deletion of the key ends the hold", onLockers(func(l valkeyrie.Locker, _ lockInfo) valkeyrie.Locker {
		return &neverLost{l}
	})},
	{"tokens repeat", "Locks/tokens grow with every acquisition, by anyone", onLockers(func(l valkeyrie.Locker, _ lockInfo) valkeyrie.Locker {
		return &repeating{l}
	})},
	{"Unlock deletes the key whoever holds the lock", "Locks/Unlock by another Locker releases nobody", onLockers(func(l valkeyrie.Locker, i lockInfo) valkeyrie.Locker {
		return &ruthless{l, i}
	})},
	{"a hold ends with the context of Lock", "Locks/a hold outlives the context of Lock", onLockers(func(l valkeyrie.Locker, _ lockInfo) valkeyrie.Locker {
		return &shortLived{l}
	})},
	{"a hold is not renewed", "Locks/a hold is renewed for as long as it is wanted", onLockers(func(l valkeyrie.Locker, i lockInfo) valkeyrie.Locker {
		return &notRenewed{l, i}
	})},
	{"a wait that ended takes the lock later", "Locks/a wait ends with its deadline and leaves nothing behind", onLockers(func(l valkeyrie.Locker, _ lockInfo) valkeyrie.Locker {
		return &haunting{l}
	})},
	{"data under the lock's key is overwritten", "Locks/data that a put left there counts as held by somebody else", onLockers(func(l valkeyrie.Locker, i lockInfo) valkeyrie.Locker {
		return &overwriting{l, i}
	})},
	{"waiters look again every two seconds", "Locks/a waiter takes over promptly after Unlock", onLockers(func(l valkeyrie.Locker, _ lockInfo) valkeyrie.Locker {
		return &polling{l}
	})},
}

// stores counts the stores, to tell them apart.
var stores atomic.Int64

// apart gives the locks of each store keys of their own.
func apart(s kvstore) kvstore {
	id := stores.Add(1)
	return locks{s, func(ctx context.Context, key string, opts *valkeyrie.LockOptions) (valkeyrie.Locker, error) {
		return s.NewLock(ctx, fmt.Sprintf("%s-%d", key, id), opts)
	}}
}

// locks is a store whose NewLock is another.
type locks struct {
	kvstore
	newLock func(ctx context.Context, key string, opts *valkeyrie.LockOptions) (valkeyrie.Locker, error)
}

func (s locks) NewLock(ctx context.Context, key string, opts *valkeyrie.LockOptions) (valkeyrie.Locker, error) {
	return s.newLock(ctx, key, opts)
}

// lockInfo is what a broken Locker may want to know.
type lockInfo struct {
	s   kvstore
	key string
	ttl time.Duration
}

func onLockers(wrap func(l valkeyrie.Locker, i lockInfo) valkeyrie.Locker) func(kvstore) kvstore {
	return func(s kvstore) kvstore {
		return locks{s, func(ctx context.Context, key string, opts *valkeyrie.LockOptions) (valkeyrie.Locker, error) {
			l, err := s.NewLock(ctx, key, opts)
			if err != nil {
				return nil, err
			}
			i := lockInfo{s, key, valkeyrie.DefaultLockTTL}
			if opts != nil && opts.TTL > 0 {
				i.ttl = opts.TTL
			}
			return wrap(l, i), nil
		}}
	}
}

type neverLost struct{ valkeyrie.Locker }

func (l *neverLost) Lock(ctx context.Context) (<-chan struct{}, error) {
	if _, err := l.Locker.Lock(ctx); err != nil {
		return nil, err
	}
	return make(chan struct{}), nil
}

type repeating struct{ valkeyrie.Locker }

func (l *repeating) Token() uint64 { return min(1, l.Locker.Token()) }

type ruthless struct {
	valkeyrie.Locker
	lockInfo
}

func (l *ruthless) Unlock(ctx context.Context) error {
	err := l.Locker.Unlock(ctx)
	if errors.Is(err, valkeyrie.ErrLockNotHeld) {
		_ = l.s.Delete(ctx, l.key)
	}
	return err
}

type shortLived struct{ valkeyrie.Locker }

func (l *shortLived) Lock(ctx context.Context) (<-chan struct{}, error) {
	lost, err := l.Locker.Lock(ctx)
	if err == nil {
		context.AfterFunc(ctx, func() { _ = l.Unlock(context.WithoutCancel(ctx)) })
	}
	return lost, err
}

// notRenewed keeps lost open, as one who does not renew does not notice.
type notRenewed struct {
	valkeyrie.Locker
	lockInfo
}

func (l *notRenewed) Lock(ctx context.Context) (<-chan struct{}, error) {
	_, err := l.Locker.Lock(ctx)
	if err == nil {
		time.AfterFunc(l.ttl, func() { _ = l.Unlock(context.WithoutCancel(ctx)) })
	}
	return make(chan struct{}), err
}

type haunting struct{ valkeyrie.Locker }

func (l *haunting) Lock(ctx context.Context) (<-chan struct{}, error) {
	type hold struct {
		lost <-chan struct{}
		err  error
	}
	got := make(chan hold, 1)
	go func() {
		lost, err := l.Locker.Lock(context.WithoutCancel(ctx))
		got <- hold{lost, err}
	}()
	select {
	case h := <-got:
		return h.lost, h.err
	case <-ctx.Done():
		return nil, &valkeyrie.OpError{Op: "Lock", Backend: "memory", Key: "?", Err: ctx.Err()}
	}
}

type overwriting struct {
	valkeyrie.Locker
	lockInfo
}

func (l *overwriting) TryLock(ctx context.Context) (<-chan struct{}, error) {
	_ = l.s.Delete(ctx, l.key)
	return l.Locker.TryLock(ctx)
}

type polling struct{ valkeyrie.Locker }

func (l *polling) Lock(ctx context.Context) (<-chan struct{}, error) {
	for {
		lost, err := l.TryLock(ctx)
		if !errors.Is(err, valkeyrie.ErrLockHeld) {
			return lost, err
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
