package etcdv3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// A lock is a line of keys, one for each who wants it, in the order of their
// creation, each with a lease of its own. Who is first writes the visible key,
// if nobody's data is there, in the same request that finds him first. Each
// waits for the one before him to go, so that a release wakes one waiter.

// errPlaceLost: the waiter's key is gone from the line.
var errPlaceLost = errors.New("lost the place in the line of a lock")

// line is where the keys of those who want the lock are.
func line(key string) string { return key + "/" + store.Reserved + "/lock/" }

// place is the key in the line that belongs to a lease.
func place(key string, lease clientv3.LeaseID) string {
	return fmt.Sprintf("%s%016x", line(key), int64(lease))
}

// TryLock implements store.Driver.
func (d *driver) TryLock(ctx context.Context, r store.LockRequest) (store.Hold, error) {
	c, err := d.client(ctx)
	if err != nil {
		return nil, err
	}
	h := &hold{d: d, c: c, key: r.Key}
	err = withOwnLease(ctx, c, r.TTL, func(lease clientv3.LeaseID, granted time.Duration) error {
		h.lease, h.ttl = lease, granted
		err := h.takeFree(ctx, r)
		if err != nil {
			d.revoke(c, lease) // and whatever was written with it
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// takeFree takes the lock if the key is free and nobody is in line.
func (h *hold) takeFree(ctx context.Context, r store.LockRequest) error {
	answer, err := write(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return h.c.Txn(ctx).If(
			absent(r.Key),
			// Of a range all keys must fulfil a condition; nobody is in line.
			clientv3.Compare(clientv3.CreateRevision(line(r.Key)), "=", 0).WithPrefix(),
		).Then(
			clientv3.OpPut(place(r.Key, h.lease), "", clientv3.WithLease(h.lease)),
			clientv3.OpPut(r.Key, string(r.Value), clientv3.WithLease(h.lease)),
		).Commit()
	})
	switch {
	case err != nil:
		return err
	case !answer.Succeeded:
		return valkeyrie.ErrLockHeld
	}
	h.revision = uint64(answer.Header.Revision)
	return nil
}

// absent is the condition that a key is not there.
func absent(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
}

// Acquire implements store.Acquirer.
func (d *driver) Acquire(ctx context.Context, r store.LockRequest) (store.Hold, error) {
	c, err := d.client(ctx)
	if err != nil {
		return nil, err
	}
	h := &hold{d: d, c: c, key: r.Key}
	now := time.Now()
	h.confirmed.Store(&now)
	err = withOwnLease(ctx, c, r.TTL, func(lease clientv3.LeaseID, granted time.Duration) error {
		h.lease, h.ttl = lease, granted
		err := h.acquire(ctx, r)
		if err != nil {
			d.leaveLine(c, lease)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// acquire stands in line until it has the lock, and renews its lease meanwhile.
func (h *hold) acquire(ctx context.Context, r store.LockRequest) error {
	inLine, leave := context.WithCancel(ctx)
	defer leave()
	renewing := make(chan struct{})
	if !h.d.running.Go(func() {
		defer close(renewing)
		h.renewInLine(inLine, min(r.TTL, h.ttl), leave)
	}) {
		return valkeyrie.ErrClosed
	}
	err := h.wait(inLine, r)
	expired := inLine.Err() != nil && ctx.Err() == nil
	leave()
	<-renewing
	if err != nil && expired {
		return errPlaceLost
	}
	return err
}

// leaveLine revokes the lease of a waiter that gives up, in a context of its own
// as that of the call is often over already. It waits for the answer: a cancelled
// waiter should not be in others' way when its call returns.
func (d *driver) leaveLine(c *clientv3.Client, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(d.ctx, time.Second)
	defer cancel()
	_, _ = c.Revoke(ctx, lease) // it expires otherwise
}

// renewInLine renews the lease of a waiter, and lets it leave when the lease is gone.
func (h *hold) renewInLine(ctx context.Context, ttl time.Duration, leave context.CancelFunc) {
	for every := time.NewTicker(max(ttl/3, 10*time.Millisecond)); ; {
		select {
		case <-every.C:
		case <-ctx.Done():
			every.Stop()
			return
		}
		sent := time.Now()
		attempt, cancel := context.WithTimeout(ctx, ttl/3)
		err := renewLease(attempt, h.c, h.lease)
		cancel()
		if err == nil {
			h.confirmed.Store(&sent)
		}
		if errors.Is(err, valkeyrie.ErrKeyNotFound) {
			leave()
		}
	}
}

// wait stands in line until it is the first, and takes the lock.
func (h *hold) wait(ctx context.Context, r store.LockRequest) error {
	own := place(r.Key, h.lease)
	entered, err := write(ctx, func(ctx context.Context) (*clientv3.PutResponse, error) {
		return h.c.Put(ctx, own, "", clientv3.WithLease(h.lease))
	})
	if err != nil {
		return err
	}
	since := entered.Header.Revision
	for {
		before, err := h.step(ctx, r, own, since)
		if err != nil || before == nil {
			return err
		}
		if err := h.awaitGone(ctx, before); err != nil {
			return err
		}
	}
}

// blocker is a key that has to go first, as it was at a revision.
type blocker struct {
	key string
	at  int64
}

// step takes the lock if this is the first in line and the key is free;
// otherwise it returns what to wait for.
func (h *hold) step(ctx context.Context, r store.LockRequest, own string, since int64) (*blocker, error) {
	answer, err := write(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return h.c.Txn(ctx).If(
			clientv3.Compare(clientv3.CreateRevision(own), "=", since),
			clientv3.Compare(clientv3.CreateRevision(line(r.Key)), ">", since-1).WithPrefix(),
			absent(r.Key),
		).Then(
			clientv3.OpPut(r.Key, string(r.Value), clientv3.WithLease(h.lease)),
		).Else(
			clientv3.OpGet(own, clientv3.WithKeysOnly()),
			clientv3.OpGet(line(r.Key), append(clientv3.WithLastCreate(), clientv3.WithMaxCreateRev(since-1), clientv3.WithKeysOnly())...),
			clientv3.OpGet(r.Key, clientv3.WithKeysOnly()),
		).Commit()
	})
	if err != nil {
		return nil, err
	}
	if answer.Succeeded {
		h.revision = uint64(answer.Header.Revision)
		return nil, nil
	}
	found := func(i int) []*mvccpb.KeyValue { return answer.Responses[i].GetResponseRange().Kvs }
	if kvs := found(0); len(kvs) == 0 || kvs[0].CreateRevision != since {
		return nil, errPlaceLost
	}
	for _, kvs := range [][]*mvccpb.KeyValue{found(1), found(2)} { // who is before; then data
		if len(kvs) > 0 {
			return &blocker{key: string(kvs[0].Key), at: answer.Header.Revision}, nil
		}
	}
	return nil, errPlaceLost
}

// awaitGone waits until a key is deleted.
func (h *hold) awaitGone(ctx context.Context, b *blocker) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	answers := h.c.Watch(ctx, b.key, clientv3.WithRev(b.at+1), clientv3.WithFilterPut())
	for {
		select {
		case answer, more := <-answers:
			switch {
			case !more:
				return cmp.Or(ctx.Err(), errStreamEnded)
			case answer.Err() != nil:
				return readError(answer.Err())
			case len(answer.Events) > 0:
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hold is a lock that is held: the visible key and the place in line, which
// share a lease.
type hold struct {
	d        *driver
	c        *clientv3.Client
	key      string
	lease    clientv3.LeaseID
	ttl      time.Duration // as granted
	revision uint64        // of the visible key, and the token

	// confirmed is when the last renewal was sent that was answered while in line.
	confirmed atomic.Pointer[time.Time]
}

// Confirmed implements store.Confirmed.
func (h *hold) Confirmed() time.Time { return *h.confirmed.Load() }

// Token implements store.Hold. Each acquisition writes the visible key, at a
// revision of the whole cluster.
func (h *hold) Token() uint64 { return h.revision }

// Revision implements store.Hold.
func (h *hold) Revision() uint64 { return h.revision }

// TTL implements store.Hold.
func (h *hold) TTL() time.Duration { return h.ttl }

// Renew implements store.Hold. The key is looked at after the lease was
// renewed: if it is ours then, it stays so for the TTL unless somebody acts.
func (h *hold) Renew(ctx context.Context) error {
	err := renewLease(ctx, h.c, h.lease)
	if err == nil {
		err = h.check(ctx)
	}
	if errors.Is(err, valkeyrie.ErrKeyNotFound) {
		return store.Wrap(valkeyrie.ErrLockNotHeld, err)
	}
	return err
}

// check is nil when the visible key and the place in line are ours.
func (h *hold) check(ctx context.Context) error {
	answer, err := h.c.Txn(ctx).If(h.ours()...).Commit()
	switch {
	case err != nil:
		return readError(err)
	case !answer.Succeeded:
		return valkeyrie.ErrLockNotHeld
	}
	return nil
}

func (h *hold) ours() []clientv3.Cmp {
	return []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(h.key), "=", int64(h.revision)),
		clientv3.Compare(clientv3.CreateRevision(place(h.key, h.lease)), ">", 0),
	}
}

// Release implements store.Hold. The next in line goes on as soon as both keys
// are gone; the lease, empty then, is revoked after that.
func (h *hold) Release(ctx context.Context) error {
	answer, err := write(ctx, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return h.c.Txn(ctx).If(h.ours()...).Then(
			clientv3.OpDelete(h.key), clientv3.OpDelete(place(h.key, h.lease)),
		).Commit()
	})
	h.d.revoke(h.c, h.lease)
	switch {
	case err != nil:
		return err
	case !answer.Succeeded:
		return valkeyrie.ErrLockNotHeld
	}
	return nil
}
