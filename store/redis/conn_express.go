package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// express is a connection beside a pipe for a caller who is alone: he sends and
// receives by himself, which saves two changes of goroutines, about half of the
// time of a call on a busy machine. It lives no longer than its pipe, which
// notices what happens to the server, and only while it is used: nobody would
// notice that an idle one was closed. Where it is not to be had the pipe is.
type express struct {
	lonely atomic.Int32 // calls in a row that found nobody else under way

	using   sync.Mutex  // held by who uses the line or opens it
	line    *line       // nil: not there; written with pipe.mu held, too
	busy    atomic.Bool // a reply is due
	opening bool
	notYet  time.Time // it is not opened before
}

const (
	// lonelyEnough is how many calls in a row must find nobody else under way
	// before the next one takes the express.
	lonelyEnough = 16

	// expressPause is how long it is not opened again after it broke.
	expressPause = time.Second
)

// doAlone sends a call and receives its reply over the express; not used when
// others are under way or the connection is not there. Then it is opened for later.
func (p *pipe) doAlone(ctx context.Context, d *driver, c *call) (used bool, err error) {
	x := &p.express
	if p.written.Load() != p.read.Load() || !c.small() || !x.using.TryLock() {
		if x.lonely.Load() != 0 { // else many would write to the same memory
			x.lonely.Store(0)
		}
		return false, nil
	}
	defer x.using.Unlock()
	switch {
	case x.lonely.Load() < lonelyEnough:
		x.lonely.Add(1)
		return false, nil
	case x.line == nil:
		if !x.opening && !time.Now().Before(x.notYet) {
			x.opening = d.running.Go(func() { p.openExpress(d) })
		}
		return false, nil
	}
	x.line.socket.touch() // the silence begins now
	x.busy.Store(true)
	whole, err := x.line.exchange(ctx, c)
	x.busy.Store(false)
	if !whole {
		p.setExpress(nil)
		x.notYet = time.Now().Add(expressPause)
	}
	if lost, ok := err.(*noReply); ok && d.ctx.Err() != nil {
		lost.err = context.Cause(d.ctx)
	}
	return true, err
}

// lookAtExpress closes the express when it is not used for so long. It returns how
// long a reply on it has been due without a sign of life.
func (p *pipe) lookAtExpress(idle time.Duration) (silent time.Duration) {
	x := &p.express
	if x.using.TryLock() {
		defer x.using.Unlock()
		if x.line != nil && x.line.socket.silence() > idle {
			p.setExpress(nil)
		}
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.line == nil || !x.busy.Load() {
		return 0
	}
	return x.line.socket.silence()
}

// setExpress puts a line in place, or closes the one that is there; using is held.
func (p *pipe) setExpress(l *line) {
	x := &p.express
	if x.line != nil {
		_ = x.line.socket.Close()
	}
	p.mu.Lock()
	if l != nil && p.err != nil { // nobody else would close it
		_ = l.socket.Close()
		l = nil
	}
	x.line = l
	p.mu.Unlock()
}

// openExpress connects as the pipe did. No matter if that fails: the pipe is there.
func (p *pipe) openExpress(d *driver) {
	ctx, cancel := context.WithTimeout(d.ctx, d.config.ConnectionTimeout)
	l, _, _ := d.dialLine(ctx, p.addr, p.first)
	cancel()
	x := &p.express
	x.using.Lock()
	defer x.using.Unlock()
	x.opening = false
	p.setExpress(l)
	if l == nil {
		x.notYet = time.Now().Add(expressPause)
	}
}

// exchange sends a call and receives its reply; the line is of no use any more if it
// is not whole. An error that is no answer of the server is a *noReply.
func (l *line) exchange(ctx context.Context, c *call) (whole bool, err error) {
	stop := func() bool { return true }
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, func() { _ = l.socket.Close() })
	}
	err = l.conn.Send(c.name, c.args...)
	if err == nil {
		err = l.flush()
	}
	if err == nil {
		c.reply, err = l.conn.Receive()
	}
	whole = stop()
	if err == nil || isAnswer(err) {
		c.err = err
		return whole, err
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return false, &noReply{sent: true, err: err}
}
