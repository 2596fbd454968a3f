package store

import (
	"context"
	"fmt"
	"math"
	"time"
)

// The small tools that several backends need stand here.

// Wrap puts the sentinel that fits in front of the client's error. The result
// unwraps to both.
func Wrap(sentinel, err error) error { return fmt.Errorf("%w: %w", sentinel, err) }

// Poke wakes the goroutine that receives from a channel of capacity 1, or sees to
// it that its next receive does not wait. It never blocks.
func Poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Sleep waits until the time is over, or returns the error of ctx when that ended
// before.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RoundUp returns the TTL in whole units of the server's clock, never less than
// it was: a key must be there for at least its TTL.
func RoundUp(ttl, unit time.Duration) time.Duration {
	down := ttl.Truncate(unit)
	if down == ttl || down > math.MaxInt64-unit { // there is no more than this, which is 292 years
		return down
	}
	return down + unit
}
