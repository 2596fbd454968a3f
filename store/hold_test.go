package store

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// lockOf returns a Locker with a TTL of 10 s whose acquisitions give the hold.
func lockOf(t *testing.T, d *scripted, h *scriptedHold) (*front, valkeyrie.Locker) {
	t.Helper()
	if d.lock == nil {
		d.lock = func(context.Context, LockRequest) (Hold, error) { return h, nil }
	}
	if d.watch == nil {
		d.watch = inTurn(func(sink Sink) error {
			snapshot(sink, pair("l", "", h.Revision()))
			return nil
		})
	}
	s := open(t, d, nil)
	l, err := s.NewLock(t.Context(), "l", &valkeyrie.LockOptions{TTL: 10 * time.Second})
	require.NoError(t, err)
	return s, l
}

func TestAHoldIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		renewals := 0
		h := &scriptedHold{token: 7, revision: 1, renew: func(context.Context) error { renewals++; return nil }}
		_, l := lockOf(t, &scripted{}, h)
		lost, err := l.Lock(t.Context())
		require.NoError(t, err)
		assert.Equal(t, uint64(7), l.Token())
		time.Sleep(100 * time.Second)
		synctest.Wait()
		assert.False(t, isClosed(lost))
		assert.InDelta(t, 30, renewals, 1, "a third of the TTL")
		require.NoError(t, l.Unlock(t.Context()))
		assert.True(t, isClosed(lost))
		assert.Zero(t, l.Token())
		assert.Equal(t, 1, h.releases())
		require.ErrorIs(t, l.Unlock(t.Context()), valkeyrie.ErrLockNotHeld)
	})
}

func TestAHoldThatCannotBeConfirmedIsLostInTime(t *testing.T) {
	for name, renew := range map[string]func(ctx context.Context) error{
		"renewals fail":                      func(context.Context) error { return errBroken },
		"renewals hang":                      func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"renewals hang and ignore all cries": func(context.Context) error { time.Sleep(time.Minute); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &scriptedHold{token: 7, revision: 1, renew: renew}
				_, l := lockOf(t, &scripted{}, h)
				began := time.Now()
				lost, err := l.Lock(t.Context())
				require.NoError(t, err)
				<-lost
				assert.InDelta(t, 9*time.Second, time.Since(began), float64(10*time.Millisecond), "the TTL less a tenth")
				assert.Zero(t, l.Token())
				assert.ErrorIs(t, l.Unlock(t.Context()), valkeyrie.ErrLockNotHeld)

				lost, err = l.Lock(t.Context())
				require.NoError(t, err, "it can lock again")
				assert.False(t, isClosed(lost))
				time.Sleep(2 * time.Minute) // until the last cry was heard
			})
		})
	}
}

func TestAServerThatKeepsAHoldForLessShortensTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &scriptedHold{token: 7, revision: 1, ttl: 4 * time.Second, renew: func(context.Context) error { return errBroken }}
		_, l := lockOf(t, &scripted{}, h)
		began := time.Now()
		lost, err := l.Lock(t.Context())
		require.NoError(t, err)
		<-lost
		assert.Less(t, time.Since(began), 4*time.Second)
	})
}

func TestALateAnswerDoesNotProlongAHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &scriptedHold{token: 7, revision: 1}
		d := &scripted{lock: func(context.Context, LockRequest) (Hold, error) {
			time.Sleep(5 * time.Second) // the server answered at once; the network did not
			return h, nil
		}}
		h.renew = func(context.Context) error { return errBroken }
		_, l := lockOf(t, d, h)
		began := time.Now()
		lost, err := l.Lock(t.Context())
		require.NoError(t, err)
		<-lost
		assert.InDelta(t, 9*time.Second, time.Since(began), float64(10*time.Millisecond),
			"the TTL counts from before the request was sent")
	})
}

func TestAMachineThatWasSuspendedHasLostItsLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var asleep time.Duration
		h := &scriptedHold{token: 7, revision: 1, renew: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		s, l := lockOf(t, &scripted{}, h)
		s.clock = func() instant {
			mu.Lock()
			defer mu.Unlock()
			now := systemClock()
			now.wall = now.wall.Add(asleep)
			return now
		}
		lost, err := l.Lock(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.False(t, isClosed(lost))
		mu.Lock()
		asleep = time.Hour // timers and the monotonic clock stood still
		mu.Unlock()
		time.Sleep(time.Second)
		assert.True(t, isClosed(lost))
	})
}

func TestAWallClockSetBackDoesNotProlongAHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &scriptedHold{token: 7, revision: 1, renew: func(context.Context) error { return errBroken }}
		s, l := lockOf(t, &scripted{}, h)
		began := time.Now()
		s.clock = func() instant {
			now := systemClock()
			now.wall = now.wall.Add(-time.Since(began) * 100)
			return now
		}
		lost, err := l.Lock(t.Context())
		require.NoError(t, err)
		<-lost
		assert.LessOrEqual(t, time.Since(began), 9*time.Second+10*time.Millisecond)
	})
}

func TestAChangeOfTheKeyIsCheckedAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		change func(sink Sink)
		lost   bool
	}{
		"deleted":           {func(sink Sink) { sink.Delete("l") }, true},
		"taken":             {func(sink Sink) { sink.Put(pair("l", "other", 2)) }, true},
		"gone in an outage": {func(sink Sink) { snapshot(sink) }, true},
		"the same again":    {func(sink Sink) { snapshot(sink, pair("l", "", 1)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var changed atomic.Bool
				h := &scriptedHold{token: 7, revision: 1, renew: func(context.Context) error {
					if changed.Load() {
						return valkeyrie.ErrLockNotHeld
					}
					return nil
				}}
				d := &scripted{watch: inTurn(func(sink Sink) error {
					snapshot(sink, pair("l", "", 1))
					time.Sleep(time.Second)
					changed.Store(c.lost)
					c.change(sink)
					return nil
				})}
				_, l := lockOf(t, d, h)
				began := time.Now()
				lost, err := l.Lock(t.Context())
				require.NoError(t, err)
				if !c.lost {
					time.Sleep(time.Minute)
					assert.False(t, isClosed(lost))
					return
				}
				<-lost
				assert.Equal(t, time.Second, time.Since(began))
				synctest.Wait()
				assert.Equal(t, 1, h.releases(), "what belongs to the hold beside the key is given back")
			})
		})
	}
}

func TestRenewalsThatChangeTheRevisionDoNotChaseTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &scriptedHold{token: 7, revision: 1}
		news := make(chan uint64, 100)
		var renewals atomic.Int64
		h.renew = func(context.Context) error {
			renewals.Add(1)
			time.Sleep(3 * time.Millisecond)
			h.mu.Lock()
			defer h.mu.Unlock()
			h.revision++
			news <- h.revision
			return nil
		}
		d := &scripted{watch: func(ctx context.Context, _ WatchRequest, sink Sink) error {
			snapshot(sink, pair("l", "", 1))
			for {
				select {
				case revision := <-news:
					time.Sleep(5 * time.Millisecond) // the watch lags behind
					sink.Put(pair("l", "", revision))
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}}
		_, l := lockOf(t, d, h)
		lost, err := l.Lock(t.Context())
		require.NoError(t, err)
		time.Sleep(100 * time.Second)
		synctest.Wait()
		assert.False(t, isClosed(lost))
		assert.LessOrEqual(t, renewals.Load(), int64(32))
	})
}
