package leadership

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
)

// CandidateOptions are the options of NewCandidate. Nil means the defaults.
type CandidateOptions struct {
	// TTL is how long a leader that died or was cut off is still waited for.
	// Default valkeyrie.DefaultLockTTL, 20 s; docs/compatibility.md lists the
	// servers that raise small ones.
	TTL time.Duration

	// Logger receives what the candidate does on its own: terms that begin and
	// end, attempts that failed. Default: discards.
	Logger *slog.Logger
}

// Term is one time in which a candidate leads.
type Term struct {
	// Token is the fencing token of the term: greater than that of every earlier
	// term of this key, whoever led. What the leader writes to should refuse a
	// token that is smaller than one it has seen. Never 0.
	Token uint64
}

// Candidate runs for one election. Its methods are safe for concurrent use.
type Candidate struct {
	lock valkeyrie.Locker // one for all terms: it knows its own attempts, also those with a lost answer
	log  *slog.Logger

	mu      sync.Mutex
	running bool
	now     *tenure // nil when it does not lead
}

// tenure is a term while it lasts.
type tenure struct {
	Term
	ctx context.Context
	end context.CancelCauseFunc
}

// NewCandidate returns a candidate for the election at the key, under the name
// that followers are told. Names need not be unique: candidates of one name
// exclude each other as all do. It only checks its arguments; errors unwrap to
// valkeyrie.ErrInvalidKey, ErrInvalidOption, ErrValueTooLarge,
// ErrCallNotSupported or ErrClosed. The store must stay open while the candidate
// runs.
func NewCandidate(kv valkeyrie.Store, key, name string, opts *CandidateOptions) (*Candidate, error) {
	if opts == nil {
		opts = new(CandidateOptions)
	}
	switch {
	case name == "":
		return nil, fmt.Errorf("leadership: %w: the candidate's name is empty; followers take that for nobody", valkeyrie.ErrInvalidOption)
	case opts.TTL < 0:
		return nil, fmt.Errorf("leadership: %w: CandidateOptions.TTL is %v; give a positive time, or 0 for the default", valkeyrie.ErrInvalidOption, opts.TTL)
	}
	lock, err := kv.NewLock(context.Background(), key, &valkeyrie.LockOptions{Value: []byte(name), TTL: opts.TTL})
	if err != nil {
		return nil, fmt.Errorf("leadership: %w", err)
	}
	return &Candidate{lock: lock, log: orDiscard(opts.Logger).With("election", key, "candidate", name)}, nil
}

// errRunning is what the second Run at a time returns.
var errRunning = errors.New("leadership: the candidate runs already; use another one for another campaign")

// Run campaigns, and calls lead for each term. It campaigns again after a term
// that was lost or resigned, and after errors of the store, with growing pauses
// of up to 5 s. It returns
//
//   - what lead returns while it leads, nil included: it has resigned then;
//   - when ctx is done, the error that lead returned after that, otherwise
//     that of ctx;
//   - an error that no retry can mend: valkeyrie.ErrClosed or ErrUnauthorized.
//
// The context of lead ends, with ErrLost or ErrResigned as its cause, when the
// term does. lead must return soon then: only after that the lock is given back,
// if it is still held, and Run campaigns again or returns. What lead returns
// after its term was lost or resigned is logged and has no other effect.
//
// The lock is given back also when ctx is done or lead panics. If the store does
// not answer within 2 s, it is free after the TTL. Run of a candidate that runs
// returns an error.
func (c *Candidate) Run(ctx context.Context, lead func(ctx context.Context, term Term) error) error {
	return c.run(ctx, lead, func(error) {})
}

// run is Run that also reports the errors after which it goes on.
func (c *Candidate) run(ctx context.Context, lead func(context.Context, Term) error, report func(error)) error {
	if !c.start() {
		return errRunning
	}
	defer c.stop()
	var failed retries
	for {
		lost, err := c.lock.Lock(ctx)
		if err == nil {
			var done bool
			if done, err = c.serve(ctx, lost, lead); done {
				return err
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			failed = 0
		case errors.Is(err, ErrResigned):
			failed = 0
			sleep(ctx, afterResigning)
		case final(err):
			return fmt.Errorf("leadership: %w", err)
		default:
			c.log.Warn("campaign failed, trying again", "error", err)
			report(err)
			failed.pause(ctx)
		}
	}
}

// afterResigning is how long a candidate that resigned lets others go first.
const afterResigning = time.Second

// serve leads for one term. done tells that Run ends, with that error. Otherwise
// it is ErrResigned, nil after a term that was lost, or says why there was none.
func (c *Candidate) serve(campaign context.Context, lost <-chan struct{}, lead func(context.Context, Term) error) (done bool, err error) {
	defer c.release(campaign)
	if campaign.Err() != nil {
		return true, campaign.Err()
	}
	t := &tenure{Term: Term{Token: c.lock.Token()}}
	if t.Token == 0 {
		return false, ErrLost // already
	}
	t.ctx, t.end = context.WithCancelCause(campaign)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-lost:
			t.end(ErrLost)
		case <-t.ctx.Done():
		}
	})
	defer watching.Wait()
	defer t.end(nil)
	c.set(t)
	defer c.set(nil)

	c.log.Info("leads", "token", t.Token)
	err = lead(t.ctx, t.Term)
	select {
	case <-lost: // before anything that its goroutine has not done yet
		t.end(ErrLost)
	default:
	}
	cause := context.Cause(t.ctx)
	c.log.Info("leads no more", "token", t.Token, "cause", cause, "error", err)
	switch {
	case campaign.Err() != nil:
		return true, cmp.Or(err, campaign.Err())
	case cause == nil:
		return true, err
	case errors.Is(cause, ErrResigned):
		return false, cause
	}
	return false, nil
}

// releasing bounds how long a candidate waits for the answer when it gives the
// lock back. The attempt goes on without it, as long as the store is open.
const releasing = 2 * time.Second

// release gives the lock back if it is held. A context that is done must not
// keep it from that, so it has its own.
func (c *Candidate) release(campaign context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(campaign), releasing)
	defer cancel()
	if err := c.lock.Unlock(ctx); err != nil && !errors.Is(err, valkeyrie.ErrLockNotHeld) {
		c.log.Warn("giving back the leadership failed; it ends with its TTL", "error", err)
	}
}

// Resign ends the present term, if there is one: the context of lead ends, and
// when lead has returned another candidate can lead. This one campaigns again a
// second later. Resign does not wait.
func (c *Candidate) Resign() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != nil {
		c.now.end(ErrResigned)
	}
}

// Term returns the present term; false when the candidate does not lead.
func (c *Candidate) Term() (Term, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil || c.now.ctx.Err() != nil {
		return Term{}, false
	}
	return c.now.Term, true
}

// RunForElection is Run for those who prefer channels. elected delivers true
// when a term begins, and false when it has ended; whoever receives false stops
// leading. It waits for the receiver: the lock is not given back, and no further
// term begins, before false was received or ctx is done. So
// receive until it is closed, which it is when ctx is done or an error came
// that no retry can mend; this ends a term as false does.
//
// errs delivers the errors of the store. They do not end the campaign, but for the
// last one before both channels are closed. Those that nobody receives are
// replaced by later ones.
//
// There is no context that ends with the term, and Term tells its token; Run has
// both, and is the safer choice.
func (c *Candidate) RunForElection(ctx context.Context) (elected <-chan bool, errs <-chan error) {
	terms, failures := make(chan bool), make(chan error, 1)
	report := func(err error) {
		select {
		case <-failures: // only this function sends, so there is room now
		default:
		}
		failures <- err
	}
	go func() {
		defer close(failures)
		defer close(terms)
		err := c.run(ctx, func(term context.Context, _ Term) error {
			select {
			case terms <- true:
			case <-term.Done():
				return nil // nobody knows that it began
			}
			<-term.Done()
			if ctx.Err() != nil {
				return nil // the end of the channel says it
			}
			select {
			case terms <- false:
			case <-ctx.Done():
			}
			return nil
		}, report)
		if ctx.Err() == nil {
			report(err)
		}
	}()
	return terms, failures
}

// start is false when the candidate runs already.
func (c *Candidate) start() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.running
	c.running = true
	return first
}

func (c *Candidate) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = false
}

func (c *Candidate) set(t *tenure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}
