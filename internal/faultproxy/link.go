package faultproxy

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// Bytes on their way are kept in queues of chunks, one queue a direction, so that
// a delay does not slow the reading down.
const (
	chunkSize  = 32 << 10
	queueLimit = 128
)

// link is one connection of a client and the one to the server that belongs to it.
type link struct {
	p      *Proxy
	ctx    context.Context // ends with the link
	cancel context.CancelFunc
	client net.Conn
	lost   [2]bool // bytes of that direction were thrown away; guarded by p.mu
	left   bool    // the client has ended its side; guarded by p.mu

	mu     sync.Mutex
	server net.Conn // nil until connected
}

// chunk is what one Read returned.
type chunk struct {
	data []byte
	at   time.Time
	err  error // how the stream ended; io.EOF: in order
}

// newLink makes a link of a new connection of a client.
func newLink(p *Proxy, client net.Conn) *link {
	ctx, cancel := context.WithCancel(p.ctx)
	return &link{p: p, ctx: ctx, cancel: cancel, client: client}
}

// run connects to the server and forwards until both directions have ended.
func (l *link) run() {
	defer l.forget()
	var d net.Dialer
	server, err := d.DialContext(l.ctx, "tcp", l.p.target)
	if err != nil {
		// A dead server behind a dead network is not seen to be dead.
		l.waitAudible(ToClient)
		l.reset()
		return
	}
	if !l.adopt(server) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.pump(ToServer, l.client, server) })
	wg.Go(func() { l.pump(ToClient, server, l.client) })
	wg.Wait()
}

// adopt takes over the connection to the server, unless the link was reset.
func (l *link) adopt(server net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		resetConn(server)
		return false
	}
	l.server = server
	return true
}

// pump forwards one direction until its stream or the link ends.
func (l *link) pump(d Direction, src, dst net.Conn) {
	queue := make(chan chunk, queueLimit)
	var wg sync.WaitGroup
	wg.Go(func() { l.read(src, queue) })
	defer wg.Wait()
	for {
		select {
		case <-l.ctx.Done():
			return
		case c := <-queue:
			if c.err == nil {
				if !l.deliver(d, dst, c) {
					return
				}
				continue
			}
			// The end goes through the same delays as the bytes before it.
			l.waitAudible(d)
			l.waitUntil(d, c.at)
			if c.err != io.EOF {
				l.reset()
			} else if half, ok := dst.(*net.TCPConn); ok {
				_ = half.CloseWrite() // an error shows in the other direction, too
			}
			return
		}
	}
}

// read puts what src sends into the queue.
func (l *link) read(src net.Conn, queue chan<- chunk) {
	for {
		buf := make([]byte, chunkSize)
		n, err := src.Read(buf)
		c := chunk{data: buf[:n], at: time.Now(), err: err}
		if n > 0 {
			c.err = nil
			select {
			case queue <- c:
			case <-l.ctx.Done():
				return
			}
		}
		if err != nil {
			if src == l.client {
				l.p.mu.Lock()
				l.left = true
				l.p.mu.Unlock()
			}
			select {
			case queue <- chunk{at: c.at, err: err}:
			case <-l.ctx.Done():
			}
			return
		}
	}
}

// deliver writes a chunk by the rules of the direction, which may change while
// it does. It reports false when the link is over.
func (l *link) deliver(d Direction, dst net.Conn, c chunk) bool {
	for len(c.data) > 0 {
		r, changed := l.decide(d)
		wait := time.Until(c.at.Add(r.delay))
		switch {
		case r.mode == blackhole:
			return true
		case r.mode == hold:
			wait = time.Hour // until the rules change
		case wait <= 0:
			n := len(c.data)
			if r.rate > 0 {
				// Steps of about 10 ms, so that a slow stream is an even one.
				n = min(n, max(1, r.rate/100))
				wait = time.Duration(n) * time.Second / time.Duration(r.rate)
			}
			if _, err := dst.Write(c.data[:n]); err != nil {
				l.reset()
				return false
			}
			c.data = c.data[n:]
		}
		if !l.sleep(wait, changed) {
			return false
		}
	}
	return true
}

// decide returns the rules of the direction for the chunk at hand, and notes
// that its bytes are lost if that is what they say: in one step with any change
// of the rules, so that no loss goes unnoticed.
func (l *link) decide(d Direction) (rules, <-chan struct{}) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	r := l.p.rules[d.index()]
	if r.mode == blackhole {
		l.lost[d.index()] = true
	}
	return r, l.p.changed
}

// rule returns the rules of the direction.
func (l *link) rule(d Direction) (rules, <-chan struct{}) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.p.rules[d.index()], l.p.changed
}

// waitAudible waits until the direction passes anything, or the link ends.
func (l *link) waitAudible(d Direction) {
	for {
		r, changed := l.rule(d)
		if r.mode == pass || !l.sleep(time.Hour, changed) {
			return
		}
	}
}

// waitUntil waits for the delay of what came at the given time.
func (l *link) waitUntil(d Direction, at time.Time) {
	for {
		r, changed := l.rule(d)
		wait := time.Until(at.Add(r.delay))
		if wait <= 0 || !l.sleep(wait, changed) {
			return
		}
	}
}

// sleep waits, at most until the rules change. It reports false when the link is over.
func (l *link) sleep(d time.Duration, changed <-chan struct{}) bool {
	if d <= 0 {
		return l.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-changed:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// reset ends the link at once; both sides see a connection reset.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel()
	resetConn(l.client)
	if l.server != nil {
		resetConn(l.server)
	}
}

// forget closes what is open, in order, and takes the link off the proxy's list.
func (l *link) forget() {
	l.p.mu.Lock()
	delete(l.p.links, l)
	l.p.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel()
	_ = l.client.Close()
	if l.server != nil {
		_ = l.server.Close()
	}
}

// resetConn closes a connection with RST instead of FIN.
func resetConn(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
