package etcdv3

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

const (
	// keysPerLease bounds how many keys one lease takes along when it expires,
	// as the lease manager of the Kubernetes API server does.
	keysPerLease = 1000

	// maxWindow bounds how much longer than its TTL a key may share a lease.
	maxWindow = time.Minute

	// maxTTL is what a TTL counts as at most, 253 years: etcd refuses more than
	// 9e9 seconds.
	maxTTL = 8e9 * time.Second
)

// leases shares leases between keys of the same TTL that are written within a
// short window, so that most writes with a TTL cost what plain ones do.
type leases struct {
	d  *driver
	mu sync.Mutex
	// open has, for each TTL in seconds of a lease, the one that takes more keys.
	open map[int64]*sharedLease
}

// sharedLease is a lease; granted is closed when it or err is there.
type sharedLease struct {
	granted chan struct{}
	err     error
	id      clientv3.LeaseID
	until   time.Time // it lasts at least until then
	keys    int       // guarded by leases.mu
}

// window is how long one lease is shared for keys of a TTL: what they may live
// longer when their writer dies.
func window(ttl time.Duration) time.Duration {
	return min(max(ttl/20, time.Second), maxWindow)
}

// write writes a key with a lease that others may share.
func (l *leases) write(ctx context.Context, c *clientv3.Client, w store.Write) (store.Written, error) {
	ttl := min(w.TTL, maxTTL)
	for {
		lease, err := l.get(ctx, c, ttl)
		if err != nil {
			return store.Written{}, err
		}
		written, err := l.d.put(ctx, c, w, clientv3.WithLease(lease.id))
		if errors.Is(err, rpctypes.ErrLeaseNotFound) { // somebody revoked it, or time stood still here
			l.forget(lease)
			continue
		}
		if err != nil {
			return store.Written{}, err
		}
		// The lease alone would be late: it is shared, in whole seconds, and
		// starts anew on a new leader.
		written.FrontExpires = true
		return written, nil
	}
}

// get returns a lease that lasts for at least ttl from now.
func (l *leases) get(ctx context.Context, c *clientv3.Client, ttl time.Duration) (*sharedLease, error) {
	seconds := int64(math.Ceil((ttl + window(ttl)).Seconds()))
	for {
		l.mu.Lock()
		lease := l.open[seconds]
		if lease == nil || lease.spent(ttl) {
			lease = &sharedLease{granted: make(chan struct{})}
			if !l.d.running.Go(func() { l.grant(c, lease, seconds) }) {
				l.mu.Unlock()
				return nil, valkeyrie.ErrClosed
			}
			if l.open == nil {
				l.open = make(map[int64]*sharedLease)
			}
			l.open[seconds] = lease
		}
		lease.keys++
		l.mu.Unlock()

		select {
		case <-lease.granted:
		case <-ctx.Done():
			return nil, ctx.Err() // nothing was written
		}
		if lease.err != nil {
			return nil, lease.err
		}
		if time.Until(lease.until) >= ttl {
			return lease, nil
		}
		l.forget(lease)
	}
}

// spent tells whether a lease takes no more keys of this TTL; leases.mu is held.
func (s *sharedLease) spent(ttl time.Duration) bool {
	select {
	case <-s.granted:
		return s.err != nil || s.keys >= keysPerLease || time.Until(s.until) < ttl
	default:
		return s.keys >= keysPerLease
	}
}

// grant asks for a lease on behalf of all who wait for it.
func (l *leases) grant(c *clientv3.Client, lease *sharedLease, seconds int64) {
	defer close(lease.granted)
	ctx, cancel := context.WithTimeout(l.d.ctx, l.d.timeout)
	defer cancel()
	sent := time.Now()
	answer, err := c.Grant(ctx, seconds)
	if err != nil {
		lease.err = readError(err) // a lease without keys changes nothing
		if ctx.Err() != nil {
			lease.err = wrap(valkeyrie.ErrNotReachable, err)
		}
		l.forget(lease)
		return
	}
	lease.id, lease.until = answer.ID, sent.Add(time.Duration(answer.TTL)*time.Second)
}

// forget takes a lease out of use; its keys keep it.
func (l *leases) forget(lease *sharedLease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for seconds, open := range l.open {
		if open == lease {
			delete(l.open, seconds)
		}
	}
}

// keepAlive is a key that has a lease for itself.
type keepAlive struct {
	revision uint64
	lease    clientv3.LeaseID
}

// writeKeptAlive writes a key with a lease for itself.
func (d *driver) writeKeptAlive(ctx context.Context, c *clientv3.Client, w store.Write) (store.Written, error) {
	var written store.Written
	var own clientv3.LeaseID
	err := withOwnLease(ctx, c, w.TTL, func(lease clientv3.LeaseID, _ time.Duration) (err error) {
		own = lease
		written, err = d.put(ctx, c, w, clientv3.WithLease(lease))
		if err != nil && !errors.Is(err, valkeyrie.ErrAmbiguous) {
			d.revoke(c, lease)
		}
		return err
	})
	if err != nil {
		return store.Written{}, err
	}
	d.alive.Store(w.Key, keepAlive{revision: written.Revision, lease: own})
	return written, nil
}

// withOwnLease calls f with a lease that is not shared, and what was granted. A
// lease that is over before f has used it, as on a machine that stood still, is
// replaced: nothing was written with it.
func withOwnLease(ctx context.Context, c *clientv3.Client, ttl time.Duration, f func(clientv3.LeaseID, time.Duration) error) error {
	for {
		answer, err := c.Grant(ctx, int64(math.Ceil(min(ttl, maxTTL).Seconds())))
		if err != nil {
			return readError(err) // a lease without keys changes nothing
		}
		err = f(answer.ID, time.Duration(answer.TTL)*time.Second)
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return err
		}
	}
}

// revoke gives a lease back in the background; it expires otherwise.
func (d *driver) revoke(c *clientv3.Client, lease clientv3.LeaseID) {
	d.running.Go(func() {
		ctx, cancel := context.WithTimeout(d.ctx, d.timeout)
		defer cancel()
		_, _ = c.Revoke(ctx, lease)
	})
}

// renewKeptAlive renews the lease of a key, if the key still has it.
func (d *driver) renewKeptAlive(ctx context.Context, c *clientv3.Client, key string, revision uint64) (store.Written, error) {
	known, _ := d.alive.Load(key)
	own, ok := known.(keepAlive)
	if !ok || own.revision != revision {
		return store.Written{}, valkeyrie.ErrKeyModified
	}
	err := renewLease(ctx, c, own.lease)
	if err == nil {
		err = d.at(ctx, c, key, revision)
	}
	if errors.Is(err, valkeyrie.ErrKeyNotFound) || errors.Is(err, valkeyrie.ErrKeyModified) {
		d.alive.CompareAndDelete(key, own)
		d.revoke(c, own.lease) // nothing has it any more
	}
	return store.Written{Revision: revision}, err
}

// at is nil when the key is at a revision.
func (d *driver) at(ctx context.Context, c *clientv3.Client, key string, revision uint64) error {
	p, err := c.Get(ctx, key, clientv3.WithKeysOnly())
	switch {
	case err != nil:
		return readError(err)
	case len(p.Kvs) == 0:
		return valkeyrie.ErrKeyNotFound
	case uint64(p.Kvs[0].ModRevision) != revision:
		return valkeyrie.ErrKeyModified
	}
	return nil
}

// renewLease renews a lease once. The client's KeepAliveOnce is not used: while
// the server is away it tries again without any pause.
func renewLease(ctx context.Context, c *clientv3.Client, id clientv3.LeaseID) error {
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	stream, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return readError(err)
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return readError(err)
	}
	answer, err := stream.Recv()
	switch {
	case err != nil:
		return readError(err)
	case answer.TTL <= 0:
		return valkeyrie.ErrKeyNotFound
	}
	return nil
}
