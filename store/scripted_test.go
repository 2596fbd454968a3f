package store

import (
	"context"
	"errors"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// scripted is a driver that does what a test tells it to. What is not scripted
// fails with errUnscripted.
type scripted struct {
	info   Info
	get    func(ctx context.Context, key string) (*valkeyrie.KVPair, error)
	walk   func(ctx context.Context, dir string) iter.Seq2[*valkeyrie.KVPair, error]
	write  func(ctx context.Context, w Write) (Written, error)
	del    func(ctx context.Context, key string, ifRevision uint64) error
	renew  func(ctx context.Context, key string, revision uint64, ttl time.Duration) (Written, error)
	watch  func(ctx context.Context, r WatchRequest, sink Sink) error
	lock   func(ctx context.Context, r LockRequest) (Hold, error)
	closed func() error
}

var errUnscripted = errors.New("the test has no script for this call")

func (d *scripted) Info() Info {
	if d.info.Name == "" {
		d.info.Name = "scripted"
	}
	return d.info
}

func (d *scripted) Get(ctx context.Context, key string, _ valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	if d.get == nil {
		return nil, errUnscripted
	}
	return d.get(ctx, key)
}

func (d *scripted) Walk(ctx context.Context, dir string, _ valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	if d.walk == nil {
		return func(yield func(*valkeyrie.KVPair, error) bool) { yield(nil, errUnscripted) }
	}
	return d.walk(ctx, dir)
}

func (d *scripted) Write(ctx context.Context, w Write) (Written, error) {
	if d.write == nil {
		return Written{}, errUnscripted
	}
	return d.write(ctx, w)
}

func (d *scripted) Delete(ctx context.Context, key string, ifRevision uint64) error {
	if d.del == nil {
		return errUnscripted
	}
	return d.del(ctx, key, ifRevision)
}

func (d *scripted) DeleteTree(ctx context.Context, dir string) error {
	return d.Delete(ctx, dir, 0)
}

func (d *scripted) Renew(ctx context.Context, key string, revision uint64, ttl time.Duration) (Written, error) {
	if d.renew == nil {
		return Written{}, errUnscripted
	}
	return d.renew(ctx, key, revision, ttl)
}

func (d *scripted) Watch(ctx context.Context, r WatchRequest, sink Sink) error {
	if d.watch == nil { // nothing is there, and nothing ever happens
		sink.Begin()
		sink.Synced()
		<-ctx.Done()
		return ctx.Err()
	}
	return d.watch(ctx, r, sink)
}

func (d *scripted) TryLock(ctx context.Context, r LockRequest) (Hold, error) {
	if d.lock == nil {
		return nil, errUnscripted
	}
	return d.lock(ctx, r)
}

func (d *scripted) Close() error {
	if d.closed == nil {
		return nil
	}
	return d.closed()
}

// scriptedHold is a hold that does what a test tells it to.
type scriptedHold struct {
	mu       sync.Mutex
	token    uint64
	revision uint64
	ttl      time.Duration
	renew    func(ctx context.Context) error
	released int
}

func (h *scriptedHold) Token() uint64      { return h.token }
func (h *scriptedHold) TTL() time.Duration { return h.ttl }

func (h *scriptedHold) Revision() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revision
}

func (h *scriptedHold) Renew(ctx context.Context) error {
	h.mu.Lock()
	renew := h.renew
	h.mu.Unlock()
	if renew == nil {
		return nil
	}
	return renew(ctx)
}

func (h *scriptedHold) Release(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released++
	return nil
}

func (h *scriptedHold) releases() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.released
}

// open makes a store of a scripted driver, closed at the end of the test.
func open(t *testing.T, d *scripted, cfg *valkeyrie.Config) *front {
	t.Helper()
	s, err := newFront(d, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// pair makes a pair.
func pair(key, value string, revision uint64) *valkeyrie.KVPair {
	return &valkeyrie.KVPair{Key: key, Value: []byte(value), LastIndex: revision}
}

// isClosed tells whether a channel is closed, without waiting.
func isClosed[T any](ch <-chan T) bool {
	select {
	case _, more := <-ch:
		return !more
	default:
		return false
	}
}
