package testutils

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var historyChecks = []check{
	{"concurrent calls over two stores have an order that explains all answers", historyOfTwoStores},
	{"calls that their context cuts off are ambiguous and not wrong", historyOfCutCalls},
}

func historyOfTwoStores(e *env) {
	h := newHistory(e.dir)
	h.run(e.ctx, load{stores: []kvstore{e.kv, e.open(nil)}, clients: 8, calls: 60, timeout: patience})
	h.mustExplain(e)
	done, failed := h.counts()
	require.Zero(e, failed, "calls failed on a server that nobody disturbed: %v", h.firstFailure())
	require.GreaterOrEqual(e, done, 8*60)
}

// historyOfCutCalls gives some calls so little time that they end in the middle.
func historyOfCutCalls(e *env) {
	h := newHistory(e.dir)
	h.run(e.ctx, load{stores: []kvstore{e.kv, e.open(nil)}, clients: 8, calls: 60, timeout: patience, cut: true})
	h.mustExplain(e)
	done, _ := h.counts()
	require.Positive(e, done)
}

// runHistory puts the load of the linearizability check on the stores for some
// time, while somebody else disturbs the servers. The caller then asks mustExplain.
func runHistory(ctx context.Context, dir string, stores []kvstore, d time.Duration) *history {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	h := newHistory(dir)
	h.run(ctx, load{stores: stores, clients: 8, timeout: 2 * time.Second, breather: 5 * time.Millisecond})
	return h
}

// load says what clients do.
type load struct {
	stores   []kvstore     // the clients are dealt out to them in turn
	clients  int           // goroutines
	calls    int           // of each client; 0: until the context is done
	timeout  time.Duration // of each call
	breather time.Duration // between two calls of a client, so that long histories stay small
	cut      bool          // ends a third of the calls in the middle
}

// Limits of the calls on one key. The check's work grows with the length of a
// key's history, and much faster with the number of calls whose outcome is
// unknown, as each may take effect at any later time. At the limit the clients
// move on to a fresh key.
const (
	maxCalls   = 150
	maxUnknown = 8
)

// history records the calls on some keys, for a check that one order explains
// all answers.
type history struct {
	dir   string
	begin time.Time
	next  atomic.Int64 // makes every value unique

	mu    sync.Mutex
	slots [3]int // the generation of the key in each slot
	keys  map[string]*keyHistory
}

// keyHistory is what happened to one key.
type keyHistory struct {
	ops     []operation
	unknown int
}

// operation is one call with its answer.
type operation struct {
	client       int
	kind         opKind
	value        string // that was written
	prev         string // the value whose pair went along as previous
	call, ret    int64  // nanoseconds since the beginning of the history
	err          error
	found        string // the value that was read
	revision     uint64 // that was read, or that AtomicPut returned
	prevRevision uint64
}

type opKind int

const (
	opGet opKind = iota
	opPut
	opDelete
	opCreate
	opUpdate
	opAtomicDelete
)

func (k opKind) String() string {
	return [...]string{"Get", "Put", "Delete", "Create", "Update", "AtomicDelete"}[k]
}

// String shows a call in the report of a history that cannot be explained.
func (o operation) String() string {
	s := fmt.Sprintf("%9.3f..%9.3f ms  client %d  %s", float64(o.call)/1e6, float64(o.ret)/1e6, o.client, o.kind)
	if o.value != "" {
		s += " " + o.value
	}
	if o.prev != "" {
		s += fmt.Sprintf(" if %s@%d", o.prev, o.prevRevision)
	}
	switch {
	case o.err != nil:
		s += ": " + o.err.Error()
	case o.kind == opGet:
		s += fmt.Sprintf(": %s@%d", o.found, o.revision)
	case o.revision != 0:
		s += fmt.Sprintf(": ok @%d", o.revision)
	default:
		s += ": ok"
	}
	return s
}

func newHistory(dir string) *history {
	return &history{dir: dir, begin: time.Now(), keys: make(map[string]*keyHistory)}
}

// run puts the load on the stores and returns when all clients are done.
func (h *history) run(ctx context.Context, l load) {
	var wg sync.WaitGroup
	for i := range l.clients {
		wg.Go(func() {
			c := client{h: h, id: i, kv: l.stores[i%len(l.stores)], load: l, known: make(map[string]*pair)}
			for n := 0; ctx.Err() == nil && (l.calls == 0 || n < l.calls); n++ {
				c.step(ctx)
				time.Sleep(l.breather)
			}
		})
	}
	wg.Wait()
}

// key returns the key that is in use in a slot.
func (h *history) key(slot int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keyOf(slot)
}

func (h *history) keyOf(slot int) string {
	return fmt.Sprintf("%s/history-%d-%d", h.dir, slot, h.slots[slot])
}

// add records a call and moves the slot on to a fresh key at the limits.
func (h *history) add(slot int, key string, o operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.keys[key]
	if k == nil {
		k = &keyHistory{}
		h.keys[key] = k
	}
	k.ops = append(k.ops, o)
	if o.mayHaveApplied() {
		k.unknown++
	}
	if key == h.keyOf(slot) && (len(k.ops) >= maxCalls || k.unknown >= maxUnknown) {
		h.slots[slot]++
	}
}

// counts returns how many calls were answered and how many failed.
func (h *history) counts() (answered, failed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.keys {
		for _, o := range k.ops {
			if o.answered() {
				answered++
			} else {
				failed++
			}
		}
	}
	return answered, failed
}

// firstFailure returns a call that failed, for messages.
func (h *history) firstFailure() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.keys {
		for _, o := range k.ops {
			if !o.answered() {
				return o.err
			}
		}
	}
	return nil
}

// client makes calls, one at a time.
type client struct {
	h     *history
	id    int
	kv    kvstore
	load  load
	known map[string]*pair // the pair that this client saw last, by key
}

// step makes one call on a key that is in use.
func (c *client) step(ctx context.Context) {
	slot := rand.IntN(len(c.h.slots))
	key := c.h.key(slot)
	timeout := c.load.timeout
	if c.load.cut && rand.IntN(3) == 0 {
		timeout = time.Duration(rand.Int64N(int64(2 * time.Millisecond)))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	o := operation{client: c.id, kind: c.choose(key)}
	if o.kind != opGet && o.kind != opDelete && o.kind != opAtomicDelete {
		o.value = fmt.Sprintf("v%d", c.h.next.Add(1))
	}
	previous := c.known[key]
	if o.kind == opUpdate || o.kind == opAtomicDelete {
		o.prev, o.prevRevision = string(previous.Value), previous.LastIndex
	}
	o.call = int64(time.Since(c.h.begin))
	c.do(ctx, key, previous, &o)
	o.ret = int64(time.Since(c.h.begin))
	c.h.add(slot, key, o)
}

// choose draws a kind of call; conditional ones need a pair that was seen.
func (c *client) choose(key string) opKind {
	kinds := []opKind{opGet, opGet, opPut, opDelete, opCreate}
	if c.known[key] != nil {
		kinds = append(kinds, opUpdate, opUpdate, opUpdate, opAtomicDelete)
	}
	return kinds[rand.IntN(len(kinds))]
}

// do makes the call and notes the answer.
func (c *client) do(ctx context.Context, key string, previous *pair, o *operation) {
	var got *pair
	switch o.kind {
	case opGet:
		got, o.err = c.kv.Get(ctx, key, nil)
	case opPut:
		o.err = c.kv.Put(ctx, key, []byte(o.value), nil)
	case opDelete:
		o.err = c.kv.Delete(ctx, key)
	case opCreate:
		_, got, o.err = c.kv.AtomicPut(ctx, key, []byte(o.value), nil, nil)
	case opUpdate:
		_, got, o.err = c.kv.AtomicPut(ctx, key, []byte(o.value), previous, nil)
	case opAtomicDelete:
		_, o.err = c.kv.AtomicDelete(ctx, key, previous)
	}
	if o.err == nil && got != nil {
		o.found, o.revision = string(got.Value), got.LastIndex
		c.known[key] = got
	}
	// A pair that turned out to be old is used again now and then, as its
	// revision must stay refused, but not for ever.
	if errors.Is(o.err, valkeyrie.ErrKeyModified) && rand.IntN(4) == 0 {
		delete(c.known, key)
	}
}
