package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvtools/valkeyrie"
)

// link is a pipe to one server that is opened when it is needed and opened again
// when it broke, with growing pauses between attempts.
type link struct {
	d       *driver
	dial    dialer
	express bool // callers who are alone have a connection of their own
	cur     atomic.Pointer[pipe]

	mu      sync.Mutex
	opening *opening // nil: nobody dials
	pause   time.Duration
	notYet  time.Time // no attempt before that
	why     error     // the last attempt failed
}

// opening is an attempt to open a pipe; done is closed when p or err is there.
type opening struct {
	done chan struct{}
	p    *pipe
	err  error
}

const (
	firstPause   = 25 * time.Millisecond
	longestPause = time.Second

	// lasting is how long a pipe must have been open for the pauses to begin
	// anew when it breaks.
	lasting = time.Second

	// resends is how often a call that changes nothing, or that was not sent, is
	// sent again because the connection broke.
	resends = 2
)

// open returns a pipe that works as far as is known.
func (l *link) open(ctx context.Context) (*pipe, error) {
	if p := l.cur.Load(); p != nil && p.works() {
		return p, nil
	}
	o, err := l.attempt()
	if err != nil {
		return nil, err
	}
	select {
	case <-o.done:
		return o.p, o.err
	case <-ctx.Done():
		return nil, l.tooLate(ctx.Err())
	}
}

// tooLate is the error of a caller whose context ended before there was a pipe.
func (l *link) tooLate(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == nil {
		return fmt.Errorf("there is no connection yet: %w", err)
	}
	return fmt.Errorf("there is no connection: %w; the last attempt ended with: %v", err, l.why)
}

// attempt joins the attempt that is going on, or starts one.
func (l *link) attempt() (*opening, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opening != nil {
		return l.opening, nil
	}
	o := &opening{done: make(chan struct{})}
	if p := l.cur.Load(); p != nil {
		if p.works() { // somebody was faster
			o.p = p
			close(o.done)
			return o, nil
		}
		if time.Since(p.opened) > lasting {
			l.pause = 0
		}
		l.delay() // even a server that takes connections and drops them is not hammered
		l.cur.Store(nil)
	}
	if !l.d.running.Go(func() { l.run(o) }) {
		return nil, valkeyrie.ErrClosed
	}
	l.opening = o
	return o, nil
}

// delay puts off the next attempt; l.mu is held.
func (l *link) delay() {
	l.notYet = time.Now().Add(l.pause - rand.N(l.pause/2+1))
	l.pause = min(max(2*l.pause, firstPause), longestPause)
}

// run is the attempt.
func (l *link) run(o *opening) {
	l.mu.Lock()
	wait := time.Until(l.notYet)
	l.mu.Unlock()
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-l.d.ctx.Done():
		}
	}
	o.p, o.err = l.try()
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.err != nil {
		if l.pause == 0 {
			l.pause = firstPause
		}
		l.delay()
		l.d.log.Info("cannot connect", "error", o.err)
	} else {
		l.cur.Store(o.p)
	}
	l.opening, l.why = nil, o.err
	close(o.done)
}

// try opens a pipe within Config.ConnectionTimeout.
func (l *link) try() (*pipe, error) {
	ctx, cancel := context.WithTimeout(l.d.ctx, l.d.config.ConnectionTimeout)
	defer cancel()
	opened, err := l.dial(ctx)
	switch {
	case err == nil:
		return l.d.newPipe(opened, nil)
	case l.d.ctx.Err() != nil:
		return nil, valkeyrie.ErrClosed
	}
	return nil, l.d.late(err)
}

// late hides that a context ended which was made here for ConnectionTimeout: it
// was not that of a caller.
func (d *driver) late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no connection within %v: %v", d.config.ConnectionTimeout, err)
	}
	return err
}

// do sends a call and waits for its answer. It sends it again when the connection
// broke before it was sent, or when it changes nothing. The call that it returns
// is the one that was answered; free it.
func (l *link) do(ctx context.Context, c *call) (*call, error) {
	for attempt := 0; ; attempt++ {
		p, err := l.open(ctx)
		if err != nil {
			return c, &noReply{err: err}
		}
		used := false
		if l.express {
			used, err = p.doAlone(ctx, l.d, c)
		}
		if !used {
			err = p.do(ctx, c)
		}
		if err == nil {
			return c, nil
		}
		if !l.resend(ctx, c, err, attempt) {
			return c, err
		}
		c = c.again()
	}
}

// resend tells whether a call may be sent again after an error.
func (l *link) resend(ctx context.Context, c *call, err error, attempt int) bool {
	lost, ok := err.(*noReply)
	return ok && attempt < resends && (c.reads || !lost.sent) && ctx.Err() == nil && l.d.ctx.Err() == nil
}

// drop gives up the connection, as it leads to the wrong server.
func (l *link) drop(why error) {
	if p := l.cur.Load(); p != nil {
		p.fail(why)
	}
}
