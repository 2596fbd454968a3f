package etcdv2

import (
	"context"
	"testing"
	"time"

	client "go.etcd.io/etcd/client/v2"

	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func BenchmarkStore(b *testing.B) {
	h := harness(testserver.EtcdV2(b).Endpoints)
	h.Baseline = func(b testing.TB) testutils.Native { return native(b, testserver.EtcdV2(b).Endpoints) }
	testutils.Benchmark(b, h)
}

// native is etcd's own client, with quorum reads and sorted lists, as the store
// has them, on a transport that keeps its connections: client.DefaultTransport
// keeps two. It has no lock.
func native(b testing.TB, endpoints []string) testutils.Native {
	keys := raw(b, endpoints...)
	put := func(ctx context.Context, key string, value []byte, opts *client.SetOptions) (*client.Response, error) {
		return keys.Set(ctx, "/native/"+key, string(value), opts)
	}
	return testutils.Native{
		Get: func(ctx context.Context, key string) error {
			_, err := keys.Get(ctx, "/native/"+key, &client.GetOptions{Quorum: true})
			return err
		},
		Put: func(ctx context.Context, key string, value []byte) error {
			_, err := put(ctx, key, value, nil)
			return err
		},
		PutTTL: func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
			_, err := put(ctx, key, value, &client.SetOptions{TTL: ttl})
			return err
		},
		CreateUpdate: func(ctx context.Context, key string, value []byte) error {
			r, err := put(ctx, key, value, &client.SetOptions{PrevExist: client.PrevNoExist})
			if err == nil {
				_, err = put(ctx, key, value, &client.SetOptions{PrevIndex: r.Node.ModifiedIndex})
			}
			return err
		},
		List: func(ctx context.Context, dir string) (int, error) {
			r, err := keys.Get(ctx, "/native/"+dir, &client.GetOptions{Quorum: true, Recursive: true, Sort: true})
			if err != nil {
				return 0, err
			}
			return leaves(r.Node), nil
		},
		DeleteTree: func(ctx context.Context, dir string) error {
			_, err := keys.Delete(ctx, "/native/"+dir, &client.DeleteOptions{Dir: true, Recursive: true})
			return err
		},
	}
}

// leaves counts the values in a tree.
func leaves(n *client.Node) int {
	if !n.Dir {
		return 1
	}
	sum := 0
	for _, child := range n.Nodes {
		sum += leaves(child)
	}
	return sum
}
