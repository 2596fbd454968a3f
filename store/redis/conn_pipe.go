package redis

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// pipe is a connection that many callers share. Calls queue up for its writer,
// which sends all that are there and flushes when there are no more; its reader
// hands the replies to those calls in the same order. Nobody waits for another
// caller: who leaves early leaves a call behind whose reply is dropped in its turn.
//
// redigo allows one goroutine to send and flush and another one to receive.
type pipe struct {
	*line
	push    func(message []any) // takes what a subscription delivers; nil without
	opened  time.Time
	express express

	mu     sync.Mutex
	queue  []*call // for the writer
	taken  []*call // what the writer took last
	flight []*call // sent, for the reader, after those that it took already
	err    error   // why the pipe is broken

	wake    chan struct{} // capacity 1: the queue has something
	broken  chan struct{} // closed when err is set
	written atomic.Int64  // how many replies are due, ever
	read    atomic.Int64  // how many have come
}

// newPipe makes a pipe of a connection, and starts what moves its calls. It fails
// when the store is closed.
func (d *driver) newPipe(l *line, push func([]any)) (*pipe, error) {
	p := &pipe{line: l, push: push, opened: time.Now(), wake: make(chan struct{}, 1), broken: make(chan struct{})}
	started := d.running.Go(func() {
		var own sync.WaitGroup
		own.Go(p.write)
		own.Go(p.receive)
		p.look(d.ctx, d.opts.ReplyTimeout)
		own.Wait()
		p.failAll()
	})
	if !started {
		_ = l.socket.Close()
		return nil, valkeyrie.ErrClosed
	}
	return p, nil
}

// enqueue gives a call to the writer.
func (p *pipe) enqueue(c *call) error {
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		return &noReply{err: p.err}
	}
	p.queue = append(p.queue, c)
	first := len(p.queue) == 1
	p.mu.Unlock()
	if first {
		store.Poke(p.wake)
	}
	return nil
}

// await waits until a call is over or ctx is done. After an error that is a
// *noReply the call must not be freed, as the pipe may still have it.
func (p *pipe) await(ctx context.Context, c *call) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if c.state.CompareAndSwap(waiting, abandoned) {
		return &noReply{err: ctx.Err()}
	}
	select {
	case <-c.done: // just in time
		return c.err
	default:
		return &noReply{sent: true, err: ctx.Err()}
	}
}

// do is enqueue and await.
func (p *pipe) do(ctx context.Context, c *call) error {
	if err := p.enqueue(c); err != nil {
		return err
	}
	return p.await(ctx, c)
}

// write sends what callers put into the queue.
func (p *pipe) write() {
	for {
		select {
		case <-p.wake:
		case <-p.broken:
			return
		}
		if err := p.sendAll(); err != nil {
			p.fail(err)
			return
		}
	}
}

// sendAll sends what is in the queue until it is empty, and flushes.
func (p *pipe) sendAll() error {
	for yielded := false; ; {
		batch := p.take()
		for _, c := range batch {
			if err := p.send(c); err != nil {
				return err
			}
		}
		switch {
		case len(batch) > 0:
			yielded = false
		case yielded:
			return p.flush()
		default:
			yielded = true
			if p.written.Load()-p.read.Load() > 1 {
				// Callers who got their replies just now are about to call again: it
				// takes fewer system calls to let them run first.
				runtime.Gosched()
			}
		}
	}
}

// take moves what is in the queue to the flight, but for calls whose callers have
// left, and returns it. Only the writer calls it.
func (p *pipe) take() []*call {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil
	}
	clear(p.taken)
	p.taken, p.queue = p.queue, p.taken[:0]
	if p.written.Load() == p.read.Load() {
		p.socket.touch() // the silence begins now
	}
	kept := p.taken[:0]
	for _, c := range p.taken {
		if c.state.CompareAndSwap(waiting, sent) {
			kept = append(kept, c)
			p.written.Add(int64(c.size()))
		}
	}
	clear(p.taken[len(kept):])
	p.taken = kept
	p.flight = append(p.flight, kept...)
	return kept
}

// send puts a call into the buffer of the connection, which writes when it is full.
func (p *pipe) send(c *call) error {
	if c.batch == nil {
		return p.conn.Send(c.name, c.args...)
	}
	for _, one := range c.batch {
		if err := p.conn.Send(one.name, one.args...); err != nil {
			return err
		}
	}
	return nil
}

// receive hands replies to the calls that wait for them, in order.
func (p *pipe) receive() {
	var batch []*call
	next := 0
	for {
		reply, err := p.conn.Receive()
		if err != nil && !isAnswer(err) {
			p.mu.Lock() // what was taken has to fail with the rest
			p.flight = append(append([]*call(nil), batch[next:]...), p.flight...)
			p.mu.Unlock()
			p.fail(err)
			return
		}
		if p.push != nil && isPush(reply) {
			p.push(reply.([]any))
			continue
		}
		if next == len(batch) {
			clear(batch)
			p.mu.Lock()
			batch, p.flight = p.flight, batch[:0]
			p.mu.Unlock()
			next = 0
			if len(batch) == 0 {
				p.fail(fmt.Errorf("the server sent a reply that nobody asked for: %T", reply))
				return
			}
		}
		p.read.Add(1)
		if c := batch[next]; c.answer(reply, err) {
			batch[next] = nil
			next++
			c.finish()
		}
	}
}

// isPush tells whether a reply is a message of a subscription.
func isPush(reply any) bool {
	parts, _ := reply.([]any)
	if len(parts) < 3 {
		return false
	}
	kind, _ := parts[0].([]byte)
	return string(kind) == "message" || string(kind) == "pmessage"
}
