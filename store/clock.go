package store

import "time"

// clock tells the time twice: on the monotonic clock, which no administrator
// moves, and on the wall clock, which goes on while the machine is suspended.
type clock func() instant

// instant is a moment on both clocks.
type instant struct {
	mono time.Time // compared by its monotonic reading
	wall time.Time // has none
}

func systemClock() instant {
	now := time.Now()
	return instant{mono: now, wall: now.Round(0)}
}

// since returns how much time has passed between two instants, by the clock on
// which more did: the one that is safe for him who must not be late.
func (now instant) since(then instant) time.Duration {
	return max(now.mono.Sub(then.mono), now.wall.Sub(then.wall))
}

// backoff is the pause between attempts: it doubles from 50 ms up to 5 s, and
// each pause is shortened by up to half at random so that clients of a server
// that comes back do not all return at once.
type backoff struct{ last time.Duration }

const (
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
)

func (b *backoff) reset() { b.last = 0 }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, firstPause), longestPause)
	return b.last - jitter(b.last/2)
}
