package redis

import (
	"context"
	"fmt"
	"time"
)

// works tells whether the pipe is not known to be broken.
func (p *pipe) works() bool {
	select {
	case <-p.broken:
		return false
	default:
		return true
	}
}

// fail breaks the pipe: no call comes in any more, and those that are in it end
// as soon as its goroutines do.
func (p *pipe) fail(err error) {
	p.mu.Lock()
	first := p.err == nil
	if first {
		p.err = err
		close(p.broken)
		if l := p.express.line; l != nil {
			_ = l.socket.Close()
		}
	}
	p.mu.Unlock()
	if first {
		_ = p.socket.Close() // ends Receive and Flush
	}
}

// failAll ends the calls that are left when writer and reader have returned. What
// the writer had taken counts as sent unless not a byte of it can have left.
func (p *pipe) failAll() {
	p.mu.Lock()
	flight, queue := p.flight, p.queue
	p.flight, p.queue = nil, nil
	p.mu.Unlock()
	for _, c := range flight {
		c.err = &noReply{sent: true, err: p.err}
		c.finish()
	}
	for _, c := range queue {
		if c.state.CompareAndSwap(waiting, abandoned) {
			c.err = &noReply{err: p.err}
			c.finish()
		}
	}
}

// looksPerTimeout is how often within a timeout a pipe is looked at.
const looksPerTimeout = 6

// look breaks the pipe when the store is closed or when the server is silent for
// too long although it owes a reply, and asks for one when it owes none, as an
// idle connection may be dead, too. It returns when the pipe is broken.
func (p *pipe) look(ctx context.Context, timeout time.Duration) {
	idle := timeout
	if p.push != nil { // nobody would notice otherwise
		idle = timeout / 3
	}
	every := max(timeout/looksPerTimeout, time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p.fail(context.Cause(ctx))
			return
		case <-p.broken:
			return
		case <-tick.C:
		}
		alone, silent := p.lookAtExpress(timeout), p.socket.silence()
		switch {
		case alone >= timeout:
			p.fail(fmt.Errorf("no reply from %s for %v", p.addr, alone.Round(time.Millisecond)))
			return
		case p.written.Load() != p.read.Load():
			if silent >= timeout {
				p.fail(fmt.Errorf("no reply from %s for %v", p.addr, silent.Round(time.Millisecond)))
				return
			}
		case silent >= idle:
			_ = p.enqueue(newCall(true, "PING")) // nobody waits for it
		}
	}
}
