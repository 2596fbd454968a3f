// Package leadership elects a leader among processes, on any valkeyrie.Store:
// of all candidates for a key at most one leads at a time.
//
// A process that wants to lead runs a [Candidate]:
//
//	c, err := leadership.NewCandidate(kv, "service/leader", "node-1", nil)
//	…
//	err = c.Run(ctx, func(ctx context.Context, term leadership.Term) error {
//		return work(ctx, term.Token) // leads until ctx is done
//	})
//
// Run campaigns until its own context is done, over any number of terms. It
// outlives outages of the store: a leader that cannot prove any more that it
// leads stops, and all campaigns go on by themselves when the store is back.
//
// A process that wants to know who leads asks a [Follower]:
//
//	for name, err := range leadership.NewFollower(kv, "service/leader", nil).Leaders(ctx) {
//		…
//	}
//
// # What is promised
//
// The election is a valkeyrie.Locker on the key, whose value is the leader's
// name. The key must serve nothing else: whoever writes or deletes it deposes
// the leader, and data that stands under it keeps everybody from leading.
//
// The context of a term ends when the hold of the lock is lost: a tenth of the
// TTL, at most 2 s, before the store would give it to somebody else, by a clock
// in this process that depends on no network. So two leaders whose contexts are
// alive do not exist, as long as each process gets to run within that margin. A
// process can still be stopped, or busy with one last write, when its time is
// over: what the leader writes to should take Term.Token along and refuse a
// smaller one than it has seen.
//
// After a leader stopped or resigned, the next one follows as soon as the store
// tells it. After one died or was cut off, the next one follows within the TTL
// and the bound that docs/compatibility.md states for the backend. After an
// outage of the store it may take up to 5 s more, the longest pause between
// two attempts, and what the backend's client takes to notice a dead connection.
package leadership

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/kvtools/valkeyrie"
)

// The causes, as context.Cause tells them, for which the context of a term ends
// before that of Run.
var (
	// ErrLost: the leadership was lost, or can no longer be proven.
	ErrLost = errors.New("leadership: the term was lost, or can no longer be proven")

	// ErrResigned: Candidate.Resign was called.
	ErrResigned = errors.New("leadership: resigned")
)

// final tells whether no further attempt can succeed.
func final(err error) bool {
	for _, refusal := range []error{
		valkeyrie.ErrInvalidKey, valkeyrie.ErrInvalidOption, valkeyrie.ErrValueTooLarge,
		valkeyrie.ErrCallNotSupported, valkeyrie.ErrUnauthorized, valkeyrie.ErrClosed,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// The pauses between attempts double from the first to the longest.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
)

// retries counts the attempts that failed one after the other.
type retries int

// pause waits longer after each failure, half of it at random so that not all
// come back to a store at once. It returns early when ctx is done.
func (r *retries) pause(ctx context.Context) {
	d := min(firstPause<<min(*r, 10), longestPause)
	*r++
	sleep(ctx, d/2+rand.N(d/2))
}

// sleep waits until the time is over or ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// orDiscard returns a logger that can be used.
func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
