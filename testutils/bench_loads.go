package testutils

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type putFunc = func(ctx context.Context, key string, value []byte) error

// keyed calls f for 1,000 keys in turn that are there.
func (s *bench) keyed(put fillFunc, f func(ctx context.Context, key string) error) func(b *testing.B, goroutines int) {
	dir, keys := benchDir(), []string(nil)
	return func(b *testing.B, goroutines int) {
		if keys == nil {
			keys = fill(b, put, dir, 1_000)
		}
		spread(b, goroutines, func(i int) error { return f(b.Context(), keys[i%len(keys)]) })
	}
}

// fresh calls f for keys that are not there.
func (s *bench) fresh(f putFunc) func(b *testing.B, goroutines int) {
	return func(b *testing.B, goroutines int) {
		dir := benchDir()
		spread(b, goroutines, func(i int) error { return f(b.Context(), fmt.Sprintf("%s/%d", dir, i), benchValue) })
	}
}

// listing lists a directory of so many keys.
func (s *bench) listing(n int, put fillFunc, list func(ctx context.Context, dir string) (int, error)) func(b *testing.B, goroutines int) {
	dir, filled := benchDir(), false
	return func(b *testing.B, goroutines int) {
		if !filled {
			fill(b, put, dir, n)
			filled = true
		}
		spread(b, goroutines, func(int) error {
			got, err := list(b.Context(), dir)
			if err == nil && got != n {
				err = fmt.Errorf("listed %d keys of %d", got, n)
			}
			return err
		})
	}
}

// deleting deletes directories of so many keys. Filling them takes longer than
// deleting them, so a few have to do, whatever b.N is.
func (s *bench) deleting(n int, put fillFunc, deleteTree func(ctx context.Context, dir string) error) func(b *testing.B, goroutines int) {
	return func(b *testing.B, _ int) {
		timed(b, 10, func() (time.Duration, error) {
			dir := benchDir()
			fill(b, put, dir, n)
			before := time.Now()
			err := deleteTree(b.Context(), dir)
			return time.Since(before), err
		})
	}
}

// watching puts a key in a directory of so many and waits for the snapshot with
// it. The figure is the time from the call of Put; after-put-ns/op is that from
// its return, which leaves out what the put itself costs.
func (s *bench) watching(n int) func(b *testing.B, goroutines int) {
	return func(b *testing.B, _ int) {
		b.StopTimer()
		dir := benchDir()
		keys := fill(b, fillWith(s.put), dir, n)
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		ch, err := s.other.WatchTree(ctx, dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		<-ch
		var after []time.Duration
		ops := 0
		timed(b, 200, func() (time.Duration, error) {
			ops++
			key, value := keys[ops%n], fmt.Sprintf("%0100d", ops)
			before := time.Now()
			if err := s.put(ctx, key, []byte(value)); err != nil {
				return 0, err
			}
			put := time.Now()
			for {
				got, open := <-ch
				if !open {
					return 0, fmt.Errorf("the watch ended")
				}
				if i := slices.IndexFunc(got, func(p *pair) bool { return p.Key == key }); i >= 0 && string(got[i].Value) == value {
					after = append(after, time.Since(put))
					return time.Since(before), nil
				}
			}
		})
		b.ReportMetric(median(after), "after-put-ns/op")
	}
}

// handOver measures from the holder's unlock to the waiter's hold.
func (s *bench) handOver(newLock func(key string) (lock, unlock func(ctx context.Context) error)) func(b *testing.B, goroutines int) {
	return func(b *testing.B, _ int) {
		key := benchDir() + "/lock"
		lock, unlock := newLock(key)
		waiterLock, waiterUnlock := newLock(key)
		timed(b, 20, func() (time.Duration, error) {
			if err := lock(b.Context()); err != nil {
				return 0, err
			}
			got := make(chan error, 1)
			var at time.Time
			go func() {
				err := waiterLock(b.Context())
				at = time.Now()
				got <- err
			}()
			time.Sleep(20 * time.Millisecond) // the waiter has to be in line
			before := time.Now()
			if err := unlock(b.Context()); err != nil {
				return 0, err
			}
			if err := <-got; err != nil {
				return 0, err
			}
			return at.Sub(before), waiterUnlock(b.Context())
		})
	}
}

// benchDir returns a directory that no run used before.
func benchDir() string { return fmt.Sprintf("bench-%016x", rand.Uint64()) }

// fill puts so many keys below a directory, at two depths.
func fill(b *testing.B, put fillFunc, dir string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s/%02d/key-%05d", dir, i%16, i)
	}
	if err := put(b.Context(), keys); err != nil {
		b.Fatal(err)
	}
	return keys
}

// fillFunc puts keys, all of them the same value.
type fillFunc = func(ctx context.Context, keys []string) error

// fillWith fills by calls of put.
func fillWith(put putFunc) fillFunc {
	return func(ctx context.Context, keys []string) error {
		return concurrently(len(keys), 64, func(i int) error { return put(ctx, keys[i], benchValue) })
	}
}

// spread makes b.N calls by so many goroutines.
func spread(b *testing.B, goroutines int, f func(i int) error) {
	b.ReportAllocs()
	b.ResetTimer()
	err := concurrently(b.N, goroutines, f)
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
}

// concurrently calls f for 0 to n-1 by so many goroutines. Each has its share
// beforehand, so that dealing the calls out costs nothing.
func concurrently(n, goroutines int, f func(i int) error) error {
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < n; i += goroutines {
				if err := f(i); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// timed makes up to limit calls that time themselves, and reports their median as
// the benchmark's figure. It is for what takes much longer to set up than to
// measure: the framework, which counts on b.N calls, would go on for minutes.
func timed(b *testing.B, limit int, f func() (time.Duration, error)) {
	b.StopTimer()
	took := make([]time.Duration, min(b.N, limit))
	for i := range took {
		d, err := f()
		if err != nil {
			b.Fatal(err)
		}
		took[i] = d
	}
	b.ReportMetric(median(took), "ns/op")
}

// median returns the middle one, in nanoseconds.
func median(took []time.Duration) float64 {
	slices.Sort(took)
	return float64(took[len(took)/2])
}
