package testutils

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kvtools/valkeyrie"
)

// Benchmark puts the same loads on the store and on the backend's own client
// (Harness.Baseline), in one process and by turns, so that each figure is a
// ratio and not a statement about a machine:
//
//	go test -run=- -bench=. ./store/boltdb | go run ./internal/benchratio
//
// Values have 100 bytes. Benchmarks are named after the load, the number of
// goroutines and the side: Get/goroutines=64/store and .../native. Each pair is
// measured three times by turns; the repetitions carry the suffix #01 and #02.
func Benchmark(b *testing.B, h Harness) {
	h = h.withDefaults()
	s := &bench{kv: h.New(b, &valkeyrie.Config{}), other: h.New(b, &valkeyrie.Config{})}
	b.Cleanup(func() { _, _ = s.kv.Close(), s.other.Close() })
	if h.Baseline != nil {
		s.native = h.Baseline(b)
	}
	if s.native.Close != nil {
		b.Cleanup(s.native.Close)
	}
	for _, l := range s.loads() {
		b.Run(l.name, func(b *testing.B) {
			for _, n := range l.goroutines {
				b.Run(fmt.Sprintf("goroutines=%d", n), func(b *testing.B) { l.run(b, n) })
			}
		})
	}
}

// rounds is how often the two sides are measured by turns. The flag -count would
// repeat one side several times before it comes to the other.
const rounds = 3

// benchLoad is one load; a nil side is left out.
type benchLoad struct {
	name       string
	goroutines []int
	store      func(b *testing.B, goroutines int)
	native     func(b *testing.B, goroutines int)
}

func (l benchLoad) run(b *testing.B, goroutines int) {
	for range rounds {
		b.Run("store", func(b *testing.B) { l.store(b, goroutines) })
		if l.native != nil {
			b.Run("native", func(b *testing.B) { l.native(b, goroutines) })
		}
	}
}

// bench is what the loads work with.
type bench struct {
	kv, other kvstore // two, as two processes have
	native    Native
	lockers   int // how many newLock has made
}

var (
	benchValue = make([]byte, 100)
	few, many  = []int{1}, []int{1, 64}
)

// loads lists all loads.
func (s *bench) loads() []benchLoad {
	n, fill := s.native, fillWith(s.put)
	nativeFill := n.Fill
	if nativeFill == nil && n.Put != nil {
		nativeFill = fillWith(n.Put)
	}
	filled := nativeFill != nil
	loads := []benchLoad{
		{"Get", many, s.keyed(fill, s.get), native(filled && n.Get != nil, s.keyed(nativeFill, n.Get))},
		{"Put", many, s.keyed(fill, s.overwrite), native(filled && n.Put != nil, s.keyed(nativeFill, func(ctx context.Context, key string) error {
			return n.Put(ctx, key, benchValue)
		}))},
		{"PutTTL", many, s.keyed(fill, s.putTTL), native(filled && n.PutTTL != nil, s.keyed(nativeFill, func(ctx context.Context, key string) error {
			return n.PutTTL(ctx, key, benchValue, time.Hour)
		}))},
		{"CreateUpdate", many, s.fresh(s.createUpdate), native(n.CreateUpdate != nil, s.fresh(n.CreateUpdate))},
	}
	for _, keys := range []int{1_000, 10_000} {
		loads = append(loads, benchLoad{fmt.Sprintf("List%d", keys), many, s.listing(keys, fill, s.list),
			native(filled && n.List != nil, s.listing(keys, nativeFill, n.List))})
	}
	return append(loads,
		benchLoad{"DeleteTree1000", few, s.deleting(1_000, fill, s.kv.DeleteTree),
			native(filled && n.DeleteTree != nil, s.deleting(1_000, nativeFill, n.DeleteTree))},
		benchLoad{"WatchTree2000", few, s.watching(2_000), nil},
		benchLoad{"LockHandOver", few, s.handOver(s.newLock), native(n.NewLock != nil, s.handOver(n.NewLock))},
	)
}

// native leaves a side out when its client does not offer what it takes.
func native(ok bool, f func(b *testing.B, goroutines int)) func(b *testing.B, goroutines int) {
	if !ok {
		return nil
	}
	return f
}

// The store's side of the loads.

func (s *bench) get(ctx context.Context, key string) error {
	_, err := s.kv.Get(ctx, key, nil)
	return err
}

func (s *bench) put(ctx context.Context, key string, value []byte) error {
	return s.kv.Put(ctx, key, value, nil)
}

func (s *bench) overwrite(ctx context.Context, key string) error {
	return s.kv.Put(ctx, key, benchValue, nil)
}

func (s *bench) putTTL(ctx context.Context, key string) error {
	return s.kv.Put(ctx, key, benchValue, &valkeyrie.WriteOptions{TTL: time.Hour})
}

func (s *bench) createUpdate(ctx context.Context, key string, value []byte) error {
	_, p, err := s.kv.AtomicPut(ctx, key, value, nil, nil)
	if err != nil {
		return err
	}
	_, _, err = s.kv.AtomicPut(ctx, key, value, p, nil)
	return err
}

func (s *bench) list(ctx context.Context, dir string) (int, error) {
	pairs, err := s.kv.List(ctx, dir, nil)
	return len(pairs), err
}

// newLock gives contenders to the two stores in turn.
func (s *bench) newLock(key string) (lock, unlock func(ctx context.Context) error) {
	kv := s.kv
	if s.lockers++; s.lockers%2 == 0 {
		kv = s.other
	}
	l, err := kv.NewLock(context.Background(), key, nil)
	if err != nil {
		fail := func(context.Context) error { return err }
		return fail, fail
	}
	return func(ctx context.Context) error { _, err := l.Lock(ctx); return err }, l.Unlock
}
