package local

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestShared(t *testing.T) {
	s := Shared[string, *atomic.Bool]{Same: func(a, b string) bool { return a == b }}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var opened atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 100 {
				v, release, err := s.Acquire(ctx, "k", func() (*atomic.Bool, error) {
					if opened.Add(1) != 1 {
						t.Error("opened twice")
					}
					v := &atomic.Bool{}
					v.Store(true)
					return v, nil
				}, func(v *atomic.Bool) error {
					v.Store(false)
					opened.Add(-1)
					return nil
				})
				if err != nil || !v.Load() {
					t.Error("not open", err)
					return
				}
				if err := release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, opened.Load())
	require.Empty(t, s.entries)
}

func TestSharedFailure(t *testing.T) {
	s := Shared[int, int]{Same: func(a, b int) bool { return a == b }}
	ctx := context.Background()
	no := errors.New("no")
	_, _, err := s.Acquire(ctx, 1, func() (int, error) { return 0, no }, nil)
	require.ErrorIs(t, err, no)

	block, opening := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, release, err := s.Acquire(ctx, 1, func() (int, error) {
			close(opening)
			<-block
			return 7, nil
		}, func(int) error { return no })
		if err == nil {
			err = release()
		}
		done <- err
	}()
	<-opening
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, _, err = s.Acquire(short, 1, nil, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded, "it does not wait for longer than it may")
	close(block)
	require.ErrorIs(t, <-done, no, "the error of close is returned")
	require.Empty(t, s.entries)
}
