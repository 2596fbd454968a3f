package local

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/kvtools/valkeyrie"
)

const (
	// sweepLimit bounds how many expired keys one transaction deletes, so that
	// writers do not wait for long behind a mass expiry.
	sweepLimit = 4096

	// retryAfter is how long the committer waits after the storage has failed
	// before it tries to delete what has expired again.
	retryAfter = time.Second
)

// errUnchanged makes an Update in which nothing has changed end without a commit.
var errUnchanged = errors.New("nothing has changed")

// The states of a request. Whoever moves it on first decides its outcome.
const (
	queued    int32 = iota
	taken           // part of a transaction
	withdrawn       // by the caller, before it was taken: it is not applied
	abandoned       // by the caller, after it was taken: it may be applied
	finished
)

// request is one write that waits for the committer.
type request struct {
	apply    func(t *transaction) (revision uint64, err error)
	state    atomic.Int32
	done     chan struct{} // closed when finished
	revision uint64        // what apply returned
	err      error
}

// do has the committer apply a write and waits for the outcome, at most until
// ctx is done or closed is closed.
func (db *DB) do(ctx context.Context, closed <-chan struct{}, apply func(*transaction) (uint64, error)) (uint64, error) {
	r := &request{apply: apply, done: make(chan struct{})}
	db.mu.Lock()
	db.queue = append(db.queue, r)
	db.mu.Unlock()
	select {
	case db.wake <- struct{}{}:
	default:
	}

	var cause error
	select {
	case <-r.done:
		return r.revision, r.err
	case <-ctx.Done():
		cause = ctx.Err()
	case <-closed:
		cause = valkeyrie.ErrClosed
	}
	switch {
	case r.state.CompareAndSwap(queued, withdrawn):
		return 0, cause
	case r.state.CompareAndSwap(taken, abandoned):
		return 0, fmt.Errorf("%w: %w", valkeyrie.ErrAmbiguous, cause)
	}
	<-r.done
	return r.revision, r.err
}

// finish tells the caller the outcome.
func (r *request) finish() {
	if r.state.CompareAndSwap(taken, finished) {
		close(r.done)
	}
}

// run is the committer.
func (db *DB) run() {
	defer close(db.stopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var (
		batch  []*request
		lost   bool  // a commit has failed, and what is there is not known yet
		resume int64 // when to delete again what has expired; 0: now
		armed  int64 // when the timer fires; 0: it has
	)
	for {
		batch = db.take(batch)
		var due []expiry
		if resume == 0 || now() >= resume {
			due, resume = db.expiries.due(sweepLimit), 0
			lost = lost && !db.reload()
		}
		if len(batch) > 0 || len(due) > 0 {
			if !db.commit(batch, due) {
				lost = !db.reload()
				resume = after(retryAfter)
			}
			db.gather(len(batch))
			continue
		}
		// Most commits leave the next expiry where it was, and setting a timer
		// is not cheap. One that fires too early does no harm.
		if next := max(resume, db.expiries.next()); next != 0 && (armed == 0 || next < armed) {
			armed = next
			timer.Reset(time.Duration(next - now()))
		}
		select {
		case <-db.wake:
		case <-timer.C:
			armed = 0
		case <-db.stop:
			return
		}
	}
}

// reload finds out what is there after a commit has failed. It ends the
// watches, which begin again with a snapshot.
func (db *DB) reload() bool {
	if _, err := db.load(); err != nil {
		db.logger.Error("reading the expiry times after a failed commit", "error", err)
		return false
	}
	db.hub.fail(errors.New("a commit has failed, so that changes may have been missed"))
	return true
}

// take returns the requests that wait and were not withdrawn. spare is the
// slice that it returned last.
func (db *DB) take(spare []*request) []*request {
	clear(spare)
	db.mu.Lock()
	batch := db.queue
	db.queue = spare[:0]
	db.mu.Unlock()
	n := 0
	for _, r := range batch {
		if r.state.CompareAndSwap(queued, taken) {
			batch[n] = r
			n++
		}
	}
	clear(batch[n:])
	return batch[:n]
}

// gather gives those whose writes have just been committed the processor, so
// that what they write next goes into the next transaction and not into the one
// after it: a commit costs about the same for one write as for ten. It ends when
// as many are back as there were, or nobody comes any more, which takes some
// microseconds; on a machine so busy that it takes longer, it gives up.
func (db *DB) gather(last int) {
	const idleRounds, limit = 8, int64(100 * time.Microsecond)
	begun := now()
	for n, idle := 0, 0; n < last && idle < idleRounds && now()-begun < limit; idle++ {
		runtime.Gosched()
		db.mu.Lock()
		if len(db.queue) > n {
			n, idle = len(db.queue), 0
		}
		db.mu.Unlock()
	}
}

// commit applies the requests and deletes what has expired, in one transaction,
// and tells everybody. It reports whether the storage is all right.
func (db *DB) commit(batch []*request, due []expiry) bool {
	t := &transaction{db: db}
	err := db.storage.Update(func(tx Tx) error {
		t.tx = tx
		for _, e := range due {
			if err := t.expire(e); err != nil {
				return err
			}
		}
		for _, r := range batch {
			r.revision, r.err = r.apply(t)
			if t.failed {
				return r.err
			}
		}
		if len(t.changes) == 0 {
			return errUnchanged
		}
		return nil
	})
	ok := err == nil || errors.Is(err, errUnchanged)
	if err == nil {
		db.expiries.settle(t.changes, t.last)
		db.hub.publish(t.changes)
	} else if !ok {
		// Even a request whose condition did not hold may have met what another
		// one had written in the same transaction.
		for _, r := range batch {
			r.revision, r.err = 0, err
		}
		db.logger.Error("commit failed", "writes", len(batch), "expired", len(due), "error", err)
	}
	for _, r := range batch {
		r.finish()
	}
	return ok
}
