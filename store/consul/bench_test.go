package consul

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

// BenchmarkStore compares the store with Consul's own client, against a server
// that writes to a disk, where that is most of a write's time and the same for
// both sides, and one in memory, which shows the rest.
func BenchmarkStore(b *testing.B) {
	for _, o := range []struct {
		name string
		testserver.ConsulOptions
	}{{"disk", testserver.ConsulOptions{}}, {"memory", testserver.ConsulOptions{Memory: true}}} {
		b.Run(o.name, func(b *testing.B) {
			endpoints := testserver.StartConsul(b, o.ConsulOptions).Endpoints
			h := harness(endpoints)
			h.Baseline = func(b testing.TB) testutils.Native { return native(b, raw(b, endpoints)) }
			testutils.Benchmark(b, h)
		})
	}
}

// raw opens Consul's own client.
func raw(t testing.TB, endpoints []string) *api.Client {
	t.Helper()
	cfg := api.DefaultConfig()
	cfg.Address = endpoints[0]
	c, err := api.NewClient(cfg)
	require.NoError(t, err)
	t.Cleanup(cfg.Transport.CloseIdleConnections)
	return c
}

// errLost: a condition of the baseline did not hold.
var errLost = errors.New("not as it was")

// native is the baseline: the client in its default configuration, one call for
// each write, and the store's consistency for reads. Puts have flags of their own,
// as Consul does not write a pair that is there already.
func native(b testing.TB, c *api.Client) testutils.Native {
	kv := c.KV()
	consistent := func(ctx context.Context) *api.QueryOptions {
		return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
	}
	key := func(key string) string { return "native/" + key }
	var sessions sync.Map // by key
	var flags atomic.Uint64
	return testutils.Native{
		Get: func(ctx context.Context, k string) error {
			p, _, err := kv.Get(key(k), consistent(ctx))
			if err == nil && p == nil {
				err = errLost
			}
			return err
		},
		Put: func(ctx context.Context, k string, value []byte) error {
			_, err := kv.Put(&api.KVPair{Key: key(k), Value: value, Flags: flags.Add(1)}, new(api.WriteOptions).WithContext(ctx))
			return err
		},
		// The usual way: a session for each key. A key that belongs to one has to be
		// released before it can be given to another.
		PutTTL: func(ctx context.Context, k string, value []byte, ttl time.Duration) error {
			opts := new(api.WriteOptions).WithContext(ctx)
			p := &api.KVPair{Key: key(k), Value: value}
			if earlier, ok := sessions.LoadAndDelete(k); ok {
				p.Session = earlier.(string)
				if _, _, err := kv.Release(p, opts); err != nil {
					return err
				}
			}
			var err error
			p.Session, _, err = c.Session().CreateNoChecks(&api.SessionEntry{TTL: ttl.String(), Behavior: api.SessionBehaviorDelete}, opts)
			if err != nil {
				return err
			}
			ok, _, err := kv.Acquire(p, opts)
			if err == nil && !ok {
				err = errLost
			}
			sessions.Store(k, p.Session)
			return err
		},
		// CAS answers only whether it succeeded: the index, which AtomicPut
		// returns, has to be read.
		CreateUpdate: func(ctx context.Context, k string, value []byte) error {
			p := &api.KVPair{Key: key(k), Value: value}
			for range 2 {
				ok, _, err := kv.CAS(p, new(api.WriteOptions).WithContext(ctx))
				if err != nil {
					return err
				}
				if p, _, err = kv.Get(key(k), consistent(ctx)); err != nil {
					return err
				}
				if !ok || p == nil {
					return errLost
				}
			}
			return nil
		},
		List: func(ctx context.Context, dir string) (int, error) {
			pairs, _, err := kv.List(key(dir)+"/", consistent(ctx))
			return len(pairs), err
		},
		DeleteTree: func(ctx context.Context, dir string) error {
			_, err := kv.DeleteTree(key(dir)+"/", new(api.WriteOptions).WithContext(ctx))
			return err
		},
		NewLock: func(k string) (lock, unlock func(ctx context.Context) error) {
			l, err := c.LockKey(key(k))
			if err != nil {
				b.Fatal(err)
			}
			return func(ctx context.Context) error {
					_, err := l.Lock(ctx.Done())
					return err
				}, func(context.Context) error {
					return l.Unlock()
				}
		},
		Fill: func(ctx context.Context, keys []string) error {
			for len(keys) > 0 {
				n := min(len(keys), 64)
				var ops api.TxnOps
				for _, k := range keys[:n] {
					ops = append(ops, &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVSet, Key: key(k), Value: make([]byte, 100)}})
				}
				if ok, _, _, err := c.Txn().Txn(ops, new(api.QueryOptions).WithContext(ctx)); err != nil || !ok {
					return fmt.Errorf("filling: %v %w", ok, err)
				}
				keys = keys[n:]
			}
			return nil
		},
	}
}
