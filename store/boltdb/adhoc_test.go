package boltdb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/kvtools/valkeyrie"
)

func par(b *testing.B, n int, f func(i int)) {
	var wg sync.WaitGroup
	var c atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for {
				i := int(c.Add(1))
				if i > b.N {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
}

const nkeys = 10000

func keyOf(i int) string { return fmt.Sprintf("bench/dir/key-%06d", i%nkeys) }

func BenchmarkAdhoc(b *testing.B) {
	ctx := context.Background()
	val := make([]byte, 100)
	raw, err := bbolt.Open(filepath.Join(b.TempDir(), "raw.db"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	bn := []byte("valkeyrie")
	raw.Update(func(tx *bbolt.Tx) error {
		bk, _ := tx.CreateBucketIfNotExists(bn)
		for i := range nkeys {
			bk.Put([]byte(keyOf(i)), val)
		}
		return nil
	})
	s, err := New([]string{filepath.Join(b.TempDir(), "ours.db")}, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var wg sync.WaitGroup
	for g := range 100 {
		wg.Go(func() {
			for i := g; i < nkeys; i += 100 {
				if err := s.Put(ctx, keyOf(i), val, nil); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	keys := make([]string, nkeys)
	for i := range keys {
		keys[i] = keyOf(i)
	}
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("get/raw/%d", n), func(b *testing.B) {
			par(b, n, func(i int) {
				raw.View(func(tx *bbolt.Tx) error {
					v := tx.Bucket(bn).Get([]byte(keys[rand.IntN(nkeys)]))
					_ = append([]byte(nil), v...)
					return nil
				})
			})
		})
		b.Run(fmt.Sprintf("get/ours/%d", n), func(b *testing.B) {
			par(b, n, func(i int) {
				if _, err := s.Get(ctx, keys[rand.IntN(nkeys)], nil); err != nil {
					b.Error(err)
				}
			})
		})
	}
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("put/raw/%d", n), func(b *testing.B) {
			par(b, n, func(i int) {
				raw.Update(func(tx *bbolt.Tx) error {
					return tx.Bucket(bn).Put([]byte(keys[rand.IntN(nkeys)]), val)
				})
			})
		})
		b.Run(fmt.Sprintf("put/ours/%d", n), func(b *testing.B) {
			par(b, n, func(i int) {
				if err := s.Put(ctx, keys[rand.IntN(nkeys)], val, nil); err != nil {
					b.Error(err)
				}
			})
		})
	}
	b.Run("list/raw", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			raw.View(func(tx *bbolt.Tx) error {
				var out []*valkeyrie.KVPair
				c := tx.Bucket(bn).Cursor()
				for k, v := c.First(); k != nil; k, v = c.Next() {
					out = append(out, &valkeyrie.KVPair{Key: string(k), Value: append([]byte{}, v...)})
				}
				return nil
			})
		}
	})
	b.Run("list/ours", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if l, err := s.List(ctx, "bench", nil); err != nil || len(l) != nkeys {
				b.Fatal(err)
			}
		}
	})
}
