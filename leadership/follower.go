package leadership

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"

	"github.com/kvtools/valkeyrie"
)

// FollowerOptions are the options of NewFollower. Nil means the defaults.
type FollowerOptions struct {
	// Logger receives what failed and is tried again. Default: discards.
	Logger *slog.Logger
}

// Follower tells who leads. Its methods are safe for concurrent use.
type Follower struct {
	kv  valkeyrie.Store
	key string
	log *slog.Logger
}

// NewFollower returns a follower of the election at the key.
func NewFollower(kv valkeyrie.Store, key string, opts *FollowerOptions) *Follower {
	if opts == nil {
		opts = new(FollowerOptions)
	}
	return &Follower{kv: kv, key: key, log: orDiscard(opts.Logger).With("election", key)}
}

// Leader asks the store who leads: the name, or "" when nobody does. It returns
// an error, and not the last leader it has heard of, when the store does not
// answer.
func (f *Follower) Leader(ctx context.Context) (string, error) {
	p, err := f.kv.Get(ctx, f.key, nil)
	switch {
	case errors.Is(err, valkeyrie.ErrKeyNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("leadership: %w", err)
	}
	return string(p.Value), nil
}

// Leaders yields the name of the leader now, "" for none, and then each time
// that another one leads or nobody. A loop that is slow is not told of leaders
// in between, and always of the last. It runs until ctx is done or the loop
// breaks off.
//
// It outlives outages of the store, also one at its start: it then yields nothing
// until the store is back. While the store is away, the last one that it has
// yielded may no longer lead. An error is yielded last, if no retry can mend it:
// valkeyrie.ErrClosed, ErrUnauthorized, ErrInvalidKey or ErrCallNotSupported.
func (f *Follower) Leaders(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		told, known := "", false // the last that was yielded
		var failed retries
		for {
			name, synced := "", false
			var failure error
			for event, err := range f.kv.Events(ctx, f.key, nil) {
				if err != nil {
					failure = err
					break
				}
				switch event.Type {
				case valkeyrie.Put:
					name = string(event.Pair.Value)
				case valkeyrie.Delete:
					name = ""
				case valkeyrie.Synced:
					synced, failed = true, 0
				}
				if !synced || known && name == told {
					continue
				}
				told, known = name, true
				if !yield(name, nil) {
					return
				}
			}
			switch {
			case ctx.Err() != nil:
				return
			case final(failure):
				yield("", fmt.Errorf("leadership: %w", failure))
				return
			}
			f.log.Warn("following failed, trying again", "error", failure)
			failed.pause(ctx)
		}
	}
}
