package etcdv3

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// maxTTL is what a TTL counts as at most, 253 years: etcd refuses more than 9e9
// seconds.
const maxTTL = 8e9 * time.Second

// wholeSeconds rounds a TTL up to what etcd takes.
func wholeSeconds(ttl time.Duration) time.Duration {
	return store.RoundUp(ttl, time.Second)
}

// writeShared writes a key with a lease that others may share.
func (d *driver) writeShared(ctx context.Context, c *clientv3.Client, w store.Write) (store.Written, error) {
	for {
		lease, err := d.leases.Get(ctx, min(w.TTL, maxTTL))
		if err != nil {
			return store.Written{}, err
		}
		written, err := d.put(ctx, c, w, clientv3.WithLease(lease.ID))
		if errors.Is(err, rpctypes.ErrLeaseNotFound) { // somebody revoked it, or time stood still here
			d.leases.Forget(lease)
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

// grantShared asks for a lease that writers share.
func (d *driver) grantShared(ttl time.Duration) (clientv3.LeaseID, time.Duration, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.timeout)
	defer cancel()
	c, err := d.client(ctx)
	if err != nil {
		return 0, 0, err
	}
	answer, err := c.Grant(ctx, int64(ttl/time.Second))
	switch {
	case err == nil:
		return answer.ID, time.Duration(answer.TTL) * time.Second, nil
	case ctx.Err() != nil:
		return 0, 0, store.Wrap(valkeyrie.ErrNotReachable, err)
	}
	return 0, 0, readError(err)
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
		answer, err := c.Grant(ctx, int64(wholeSeconds(min(ttl, maxTTL))/time.Second))
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
