package consul

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

const (
	// putsAtOnce is how many requests with unconditional writes may be under way.
	// Further ones wait and then go together in one transaction, which costs the
	// server one entry in its log. More than two cost more than they gain: what
	// each transaction costs the server counts, and not the way there.
	putsAtOnce = 2

	// putsPerBatch bounds a batch: two operations each, of the 64 that a
	// transaction may have in older servers.
	putsPerBatch = 32

	// batchBytes bounds the values of a batch, and largestShare that of one that
	// takes part: a transaction may have 512 KiB of JSON.
	batchBytes   = 128 << 10
	largestShare = batchBytes / 4
)

// batches joins unconditional writes of different keys into transactions when
// there are many at a time.
type batches struct {
	d       *driver
	mu      sync.Mutex
	sending int // requests under way
	waiting []*put
}

// put is a write that waits for its batch.
type put struct {
	ops   []op
	size  int
	done  chan struct{} // closed when index and err are there
	index uint64
	err   error
}

// errAlone: a batch was refused, and so not applied, perhaps because of another
// of its writes; each has to be tried by itself.
var errAlone = errors.New("the batch was refused")

// apply applies operations on one key, which are refused only because of the
// session that the key belongs to, or shall. It returns their index.
func (b *batches) apply(ctx context.Context, ops ...op) (uint64, error) {
	p := &put{ops: ops}
	for _, o := range ops {
		p.size += len(o.Value)
	}
	if p.size > largestShare {
		return b.d.indexOf(ctx, ops...)
	}
	if b.enter(p) {
		defer b.leave()
		return b.d.indexOf(ctx, ops...)
	}
	err := valkeyrie.ErrClosed
	select {
	case <-p.done:
		if errors.Is(p.err, errAlone) {
			return b.d.indexOf(ctx, ops...)
		}
		return p.index, p.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-b.d.ctx.Done():
	}
	if b.withdraw(p) {
		return 0, err // nothing was sent
	}
	return 0, store.Wrap(valkeyrie.ErrAmbiguous, err)
}

// enter takes a place among those that send, or gets in line; then false.
func (b *batches) enter(p *put) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sending < putsAtOnce {
		b.sending++
		return true
	}
	for i := range p.ops { // the caller may leave, and use its value again, before the batch is sent
		p.ops[i].Value = slices.Clone(p.ops[i].Value)
	}
	p.done = make(chan struct{})
	b.waiting = append(b.waiting, p)
	return false
}

// withdraw takes a write out of the line; false when it has left that already.
func (b *batches) withdraw(p *put) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, p)
	if i < 0 {
		return false
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	return true
}

// leave gives the place to a batch of those that wait, if any.
func (b *batches) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := b.take()
	if len(batch) == 0 || !b.d.running.Go(func() { b.send(batch) }) {
		b.sending--
		tell(batch, 0, valkeyrie.ErrClosed)
	}
}

// take takes the next batch out of the line; b.mu is held. Writes of one key go
// in different ones: those of a transaction have the same index.
func (b *batches) take() []*put {
	// The others that send will take their share.
	most := min(putsPerBatch, (len(b.waiting)+putsAtOnce-1)/putsAtOnce)
	var batch []*put
	keys, size := make(map[string]bool, most), 0
	b.waiting = slices.DeleteFunc(b.waiting, func(p *put) bool {
		if len(batch) == most || keys[p.ops[0].Key] || size+p.size > batchBytes {
			return false
		}
		batch = append(batch, p)
		keys[p.ops[0].Key] = true
		size += p.size
		return true
	})
	return batch
}

// send sends a batch for its writers; the transport bounds how long it takes.
func (b *batches) send(batch []*put) {
	defer b.leave()
	var ops []op
	for _, p := range batch {
		ops = append(ops, p.ops...)
	}
	index, err := b.d.indexOf(b.d.ctx, ops...)
	refused := err != nil && !errors.Is(err, valkeyrie.ErrAmbiguous) && !errors.Is(err, valkeyrie.ErrNotReachable) && b.d.ctx.Err() == nil
	if refused && len(batch) > 1 {
		err = errAlone
	}
	tell(batch, index, err)
}

// tell tells the writers of a batch.
func tell(batch []*put, index uint64, err error) {
	for _, p := range batch {
		p.index, p.err = index, err
		close(p.done)
	}
}
