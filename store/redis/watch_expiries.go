package redis

import (
	"container/heap"
	"time"
)

// expiries knows when keys expire. The zero value is ready to use.
type expiries struct {
	byKey map[string]*expiry
	queue expiryQueue
}

// expiry is when one key expires.
type expiry struct {
	key   string
	due   time.Time
	index int
}

// set notes when a key expires; the zero time: never.
func (e *expiries) set(key string, due time.Time) {
	known := e.byKey[key]
	switch {
	case due.IsZero() && known == nil:
	case due.IsZero():
		heap.Remove(&e.queue, known.index)
		delete(e.byKey, key)
	case known == nil:
		if e.byKey == nil {
			e.byKey = make(map[string]*expiry)
		}
		known = &expiry{key: key, due: due}
		e.byKey[key] = known
		heap.Push(&e.queue, known)
	default:
		known.due = due
		heap.Fix(&e.queue, known.index)
	}
}

// due takes the keys that have expired.
func (e *expiries) due(now time.Time) []string {
	var keys []string
	for len(e.queue) > 0 && !e.queue[0].due.After(now) {
		x := heap.Pop(&e.queue).(*expiry)
		delete(e.byKey, x.key)
		keys = append(keys, x.key)
	}
	return keys
}

// next is how long it takes until a key expires.
func (e *expiries) next(now time.Time) time.Duration {
	if len(e.queue) == 0 {
		return time.Hour
	}
	return max(0, e.queue[0].due.Sub(now))
}

// expiryQueue is a heap, the first due on top.
type expiryQueue []*expiry

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q expiryQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *expiryQueue) Push(x any) {
	e := x.(*expiry)
	e.index = len(*q)
	*q = append(*q, e)
}

// Pop implements heap.Interface.
func (q *expiryQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}
