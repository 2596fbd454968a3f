package store

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

func TestALockThatComesAfterItsCallerLeftIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &scriptedHold{token: 7, revision: 1}
		d := &scripted{lock: func(context.Context, LockRequest) (Hold, error) {
			time.Sleep(5 * time.Second)
			return h, nil
		}}
		_, l := lockOf(t, d, h)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := l.Lock(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(began))
		time.Sleep(10 * time.Second)
		assert.Equal(t, 1, h.releases())
		assert.Zero(t, l.Token())
	})
}

// The one that was given up would find the hold of the next one to be its own, left
// over, and replace it: two holders, until the next renewal.
func TestAnAttemptThatWasGivenUpKnowsNothingOfTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owners := make(chan string, 2)
		h := &scriptedHold{token: 7, revision: 1}
		d := &scripted{lock: func(_ context.Context, r LockRequest) (Hold, error) {
			owners <- r.Owner
			time.Sleep(5 * time.Second)
			return h, nil
		}}
		_, l := lockOf(t, d, h)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := l.Lock(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = l.Lock(t.Context())
		require.NoError(t, err)
		assert.NotEqual(t, <-owners, <-owners)
	})
}

func TestAWaiterOutlivesOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &scriptedHold{token: 7, revision: 1}
		attempts := []error{valkeyrie.ErrLockHeld, valkeyrie.ErrNotReachable, valkeyrie.ErrAmbiguous, nil}
		d := &scripted{
			lock: func(context.Context, LockRequest) (Hold, error) {
				err := attempts[0]
				attempts = attempts[1:]
				return h, err
			},
			watch: inTurn(
				func(Sink) error { return errBroken }, // not even the first state
				func(sink Sink) error { snapshot(sink, pair("l", "", 9)); time.Sleep(time.Second); return errBroken },
				func(sink Sink) error { snapshot(sink); return nil },
			),
		}
		_, l := lockOf(t, d, h)
		lost, err := l.Lock(t.Context())
		require.NoError(t, err)
		assert.Empty(t, attempts)
		assert.False(t, isClosed(lost))
	})
}

func TestUnlockWithADoneContextStillFreesTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &scriptedHold{token: 7, revision: 1}
		_, l := lockOf(t, &scripted{}, h)
		_, err := l.Lock(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Unlock(ctx); err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
		synctest.Wait()
		assert.Equal(t, 1, h.releases())
		_, err = l.TryLock(t.Context())
		require.NoError(t, err)
	})
}

func TestCloseReleasesHoldsAndEndsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &scriptedHold{token: 7, revision: 1}
		s, l := lockOf(t, &scripted{}, h)
		lost, err := l.Lock(t.Context())
		require.NoError(t, err)
		waited := make(chan error, 1)
		go func() {
			_, err := l.Lock(t.Context()) // the same Locker waits for its own hold to end
			waited <- err
		}()
		synctest.Wait()
		require.NoError(t, s.Close())
		assert.True(t, isClosed(lost))
		assert.Equal(t, 1, h.releases())
		assert.ErrorIs(t, <-waited, valkeyrie.ErrClosed)
		assert.ErrorIs(t, l.Unlock(t.Context()), valkeyrie.ErrClosed)
	})
}

// lined is a driver whose server puts waiters in line.
type lined struct {
	*scripted
	h *linedHold
}

func (d *lined) Acquire(context.Context, LockRequest) (Hold, error) { return d.h, nil }

// linedHold is a hold that was confirmed while its owner waited.
type linedHold struct {
	*scriptedHold
	confirmed time.Time
}

func (h *linedHold) Confirmed() time.Time { return h.confirmed }

func TestAHoldThatWasConfirmedLongAgoIsConfirmedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		age      time.Duration
		renewals int64
	}{"just now": {time.Second, 0}, "before an outage": {time.Hour, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var renewals atomic.Int64
				h := &scriptedHold{token: 7, revision: 1, renew: func(context.Context) error { renewals.Add(1); return nil }}
				d := &lined{h: &linedHold{scriptedHold: h}, scripted: &scripted{
					lock: func(context.Context, LockRequest) (Hold, error) { return nil, valkeyrie.ErrLockHeld },
					watch: inTurn(func(sink Sink) error {
						snapshot(sink, pair("l", "", 1))
						return nil
					}),
				}}
				time.Sleep(2 * time.Hour)
				d.h.confirmed = time.Now().Add(-c.age)
				s, err := newFront(d, nil)
				require.NoError(t, err)
				defer s.Close()
				l, err := s.NewLock(t.Context(), "l", &valkeyrie.LockOptions{TTL: 10 * time.Second})
				require.NoError(t, err)
				lost, err := l.Lock(t.Context())
				require.NoError(t, err)
				assert.Equal(t, c.renewals, renewals.Load())
				time.Sleep(time.Second)
				assert.False(t, isClosed(lost))
			})
		})
	}
}
