package etcdv3

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func BenchmarkStore(b *testing.B) {
	h := harness(testserver.EtcdV3(b).Endpoints)
	h.Baseline = func(b testing.TB) testutils.Native { return native(b, testserver.EtcdV3(b).Endpoints) }
	testutils.Benchmark(b, h)
}

// errCompare: a condition did not hold that must.
var errCompare = errors.New("compare failed")

// native is etcd's own client: a lease for each key that expires, pages of 1,000
// keys, concurrency.Mutex with a session for each contender.
func native(b testing.TB, endpoints []string) testutils.Native {
	c, other := raw(b, endpoints), raw(b, endpoints)
	put := func(ctx context.Context, key string, value []byte, opts ...clientv3.OpOption) error {
		_, err := c.Put(ctx, "native/"+key, string(value), opts...)
		return err
	}
	contenders := 0
	return testutils.Native{
		Get: func(ctx context.Context, key string) error {
			r, err := c.Get(ctx, "native/"+key)
			if err == nil && len(r.Kvs) != 1 {
				err = errCompare
			}
			return err
		},
		Put: func(ctx context.Context, key string, value []byte) error { return put(ctx, key, value) },
		PutTTL: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
			lease, err := c.Grant(ctx, int64(ttl/time.Second))
			if err != nil {
				return err
			}
			return put(ctx, key, value, clientv3.WithLease(lease.ID))
		},
		CreateUpdate: func(ctx context.Context, key string, value []byte) error {
			key = "native/" + key
			op := clientv3.OpPut(key, string(value))
			r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(op).Commit()
			if err == nil && r.Succeeded {
				r, err = c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", r.Header.Revision)).Then(op).Commit()
			}
			if err == nil && !r.Succeeded {
				err = errCompare
			}
			return err
		},
		List: func(ctx context.Context, dir string) (int, error) { return listRaw(ctx, c, "native/"+dir+"/") },
		DeleteTree: func(ctx context.Context, dir string) error {
			_, err := c.Delete(ctx, "native/"+dir+"/", clientv3.WithPrefix())
			return err
		},
		NewLock: func(key string) (lock, unlock func(ctx context.Context) error) {
			client := c
			if contenders++; contenders%2 == 0 {
				client = other
			}
			session, err := concurrency.NewSession(client, concurrency.WithTTL(20))
			require.NoError(b, err)
			b.Cleanup(func() { _ = session.Close() })
			m := concurrency.NewMutex(session, "native/"+key)
			return m.Lock, m.Unlock
		},
	}
}

// listRaw reads all pairs below a directory in pages pinned to one revision.
func listRaw(ctx context.Context, c *clientv3.Client, dir string) (int, error) {
	next, end, n, revision := dir, clientv3.GetPrefixRangeEnd(dir), 0, int64(0)
	for {
		r, err := c.Get(ctx, next, clientv3.WithRange(end), clientv3.WithLimit(1000), clientv3.WithRev(revision))
		if err != nil {
			return n, err
		}
		n += len(r.Kvs)
		if !r.More {
			return n, nil
		}
		revision, next = r.Header.Revision, string(r.Kvs[len(r.Kvs)-1].Key)+"\x00"
	}
}
