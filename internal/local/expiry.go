package local

import (
	"container/heap"
	"math"
	"sync"
	"time"
)

// started is where the process's clock begins. The wall clock is read once, so
// that expiry times have a meaning after a restart, and only the monotonic one
// afterwards, so that setting the wall clock neither ends a TTL nor extends it.
var started = time.Now()

// now returns the time in nanoseconds since 1970 on the process's clock.
func now() int64 { return started.UnixNano() + int64(time.Since(started)) }

// after returns the time a TTL from now, or 0, which means never, for none.
func after(ttl time.Duration) int64 {
	if ttl <= 0 {
		return 0
	}
	t := now()
	if int64(ttl) > math.MaxInt64-t {
		return math.MaxInt64
	}
	return t + int64(ttl)
}

// expiries knows when each record that expires does so. It has the last word:
// Record.Expires is what a restarted process goes by, and is earlier, as a TTL
// counts from when the write has been committed and as the renewals of locks are
// not written to the storage.
type expiries struct {
	mu    sync.Mutex
	items map[string]*expiry
	queue expiryQueue

	// settled is the last revision whose changes are known here.
	settled uint64
}

// expiry is the time at which one record expires.
type expiry struct {
	key      string
	revision uint64
	at       int64
	index    int // in the queue
}

func newExpiries() *expiries { return &expiries{items: make(map[string]*expiry)} }

// alive tells whether a record that was read has not expired.
func (e *expiries) alive(key string, revision uint64, expires int64) bool {
	if expires == 0 || now() < expires {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if it := e.items[key]; it != nil && it.revision == revision {
		return now() < it.at
	}
	// A record whose commit has become visible and is not settled yet is
	// younger than its TTL, which counts from then on.
	return revision > e.settled
}

// extend puts off the expiry of a record that has not expired. It reports
// whether there is such a record.
func (e *expiries) extend(key string, revision uint64, ttl time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	it := e.items[key]
	if it == nil || it.revision != revision || now() >= it.at {
		return false
	}
	if at := after(ttl); at > it.at {
		it.at = at
		heap.Fix(&e.queue, it.index)
	}
	return true
}

// settle takes over what a commit has changed; revision is the last one drawn.
func (e *expiries) settle(changes []change, revision uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		switch {
		case c.deleted || c.ttl == 0:
			e.drop(c.key)
		case !c.silent: // the others have been extended already
			e.set(c.key, c.record.Revision, after(c.ttl))
		}
	}
	e.settled = max(e.settled, revision)
}

// reset replaces everything by what the storage has. What was known to expire
// later stays so.
func (e *expiries) reset(records []expiry, revision uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.items
	e.items = make(map[string]*expiry, len(records))
	e.queue = nil
	for _, r := range records {
		if o := old[r.key]; o != nil && o.revision == r.revision {
			r.at = max(r.at, o.at)
		}
		e.set(r.key, r.revision, r.at)
	}
	e.settled = max(e.settled, revision)
}

// due takes out up to limit records that have expired. From here on they are
// gone for everybody; the caller deletes them.
func (e *expiries) due(limit int) []expiry {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return nil
	}
	var out []expiry
	for t := now(); len(e.queue) > 0 && len(out) < limit && e.queue[0].at <= t; {
		out = append(out, *e.queue[0])
		e.drop(e.queue[0].key)
	}
	return out
}

// next returns when the next record expires, 0 if none does.
func (e *expiries) next() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return 0
	}
	return e.queue[0].at
}

func (e *expiries) set(key string, revision uint64, at int64) {
	it := e.items[key]
	if it == nil {
		it = &expiry{key: key, revision: revision, at: at}
		e.items[key] = it
		heap.Push(&e.queue, it)
		return
	}
	it.revision, it.at = revision, at
	heap.Fix(&e.queue, it.index)
}

func (e *expiries) drop(key string) {
	if it := e.items[key]; it != nil {
		delete(e.items, key)
		heap.Remove(&e.queue, it.index)
	}
}

// expiryQueue is a heap, the next to expire first.
type expiryQueue []*expiry

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].at < q[j].at }

func (q expiryQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is part of heap.Interface.
func (q *expiryQueue) Push(x any) {
	it := x.(*expiry)
	it.index = len(*q)
	*q = append(*q, it)
}

// Pop is part of heap.Interface.
func (q *expiryQueue) Pop() any {
	last := len(*q) - 1
	it := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return it
}
