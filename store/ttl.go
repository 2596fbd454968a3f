package store

import (
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvtools/valkeyrie"
)

// jitter returns a random time below most.
func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most)
}

const (
	// renewalsPerTTL is how many attempts to renew fit into one TTL.
	renewalsPerTTL = 3

	// dutiesAtOnce bounds how many keys are deleted or renewed at the same time.
	dutiesAtOnce = 64
)

// timekeeper does for TTLs what the server does not: it deletes keys when their
// TTL is over, at the revision that was written, and renews those written with
// KeepAlive. A duty belongs to one write; it ends when the key is found changed
// or gone. Duties of a process that dies are left to the server's backstop.
type timekeeper struct {
	s    *front
	wake chan struct{}

	writes atomic.Uint64 // numbers the begins and ends of writes, in order
	duties atomic.Int64  // how many there are, so that writes without a TTL need no lock

	mu      sync.Mutex
	queue   dutyQueue
	byKey   map[string][]*duty
	running bool
}

// duty is what is left to do for one write.
type duty struct {
	key      string
	revision uint64
	ttl      time.Duration
	renew    bool      // renew at due; otherwise delete at due
	due      time.Time // the next attempt
	written  uint64    // when the write had returned, in timekeeper.writes
	pause    backoff
	index    int // in the queue, -1 while it is being done
	over     bool
}

func newTimekeeper(s *front) *timekeeper {
	return &timekeeper{s: s, wake: make(chan struct{}, 1), byKey: make(map[string][]*duty)}
}

// begin notes that a write begins.
func (k *timekeeper) begin() uint64 {
	if k.duties.Load() == 0 {
		return 0 // there is nothing to supersede
	}
	return k.writes.Add(1)
}

// wrote takes over the duties of a write that succeeded. It ends the duties of
// earlier writes of the key: those that had returned when this one began. Of two
// writes at the same time nobody knows the order; both keep their duty and the
// one that was overwritten finds out by the revision.
func (k *timekeeper) wrote(w Write, written Written, begun uint64) {
	on := w.KeepAlive || (w.TTL > 0 && written.FrontExpires)
	if !on && begun == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range k.byKey[w.Key] {
		if d.written < begun {
			k.drop(d)
		}
	}
	if !on {
		return
	}
	d := &duty{key: w.Key, revision: written.Revision, ttl: w.TTL, renew: w.KeepAlive,
		due: time.Now().Add(w.TTL), written: k.writes.Add(1)}
	if d.renew {
		d.due = time.Now().Add(w.TTL / renewalsPerTTL)
	}
	k.duties.Add(1)
	k.byKey[d.key] = append(k.byKey[d.key], d)
	heap.Push(&k.queue, d)
	if !k.running {
		k.running = k.s.running.Go(k.run)
	}
	k.queued(d)
}

// queued wakes run if a duty is due before all others; k.mu is held. To wake it
// for each write with a TTL would cost more than all the rest.
func (k *timekeeper) queued(d *duty) {
	if d.index == 0 {
		Poke(k.wake)
	}
}

// drop ends a duty; k.mu is held.
func (k *timekeeper) drop(d *duty) {
	if d.over {
		return
	}
	d.over = true
	k.duties.Add(-1)
	if d.index >= 0 {
		heap.Remove(&k.queue, d.index)
	}
	left := make([]*duty, 0, len(k.byKey[d.key]))
	for _, other := range k.byKey[d.key] {
		if other != d {
			left = append(left, other)
		}
	}
	if len(left) == 0 {
		delete(k.byKey, d.key)
	} else {
		k.byKey[d.key] = left
	}
}

// run does what is due until the store is closed.
func (k *timekeeper) run() {
	places := make(chan struct{}, dutiesAtOnce)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		d, wait := k.next()
		if d == nil {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-k.wake:
			case <-k.s.ctx.Done():
				return
			}
			continue
		}
		select {
		case places <- struct{}{}:
		case <-k.s.ctx.Done():
			return
		}
		if !k.s.running.Go(func() {
			k.do(d)
			<-places
		}) {
			return
		}
	}
}

// next takes the first duty that is due, or says how long to wait.
func (k *timekeeper) next() (*duty, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.queue) == 0 {
		return nil, time.Hour
	}
	if wait := time.Until(k.queue[0].due); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&k.queue).(*duty), 0
}

// do makes one attempt at a duty and decides what is next.
func (k *timekeeper) do(d *duty) {
	ctx, cancel := context.WithTimeout(k.s.ctx, k.s.timeout)
	defer cancel()
	var written Written
	var err error
	sent := time.Now()
	if d.renew {
		written, err = k.s.d.Renew(ctx, d.key, d.revision, d.ttl)
	} else {
		err = k.s.d.Delete(ctx, d.key, d.revision)
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case d.over:
		return
	case err == nil && d.renew:
		d.revision = written.Revision
		d.pause.reset()
		d.due = sent.Add(d.ttl / renewalsPerTTL)
	case err == nil, errors.Is(err, valkeyrie.ErrKeyNotFound), errors.Is(err, valkeyrie.ErrKeyModified):
		k.drop(d)
		return
	default:
		k.s.log.Warn("cannot renew or expire a key, trying again", "key", d.key, "renew", d.renew, "error", err)
		// Soon enough that a server that comes back finds the TTL not over, and
		// that a key is gone within a second of its return.
		d.due = time.Now().Add(min(d.pause.next(), max(d.ttl/10, firstPause), time.Second))
	}
	heap.Push(&k.queue, d)
	k.queued(d)
}

// dutyQueue is a heap of duties, the first due on top.
type dutyQueue []*duty

func (q dutyQueue) Len() int           { return len(q) }
func (q dutyQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q dutyQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *dutyQueue) Push(x any) {
	d := x.(*duty)
	d.index = len(*q)
	*q = append(*q, d)
}

// Pop implements heap.Interface.
func (q *dutyQueue) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	d.index = -1
	return d
}
