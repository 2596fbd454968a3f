// Package faultproxy is a TCP proxy in the test's own process that misbehaves on
// demand: it stands between a store and a real server and cuts, refuses,
// blackholes, holds, delays or limits what passes, switched at run time.
//
// Faults of the two directions are independent, and apply to connections that
// exist and to new ones alike:
//
//	p, err := faultproxy.New(server.Addr())
//	…                                       // the store connects to p.Addr()
//	p.Blackhole(faultproxy.ToClient)        // requests arrive, answers do not
//	err = p.Pass()                          // the network is whole again
//
// A proxy accepts before it knows whether the server is there: a client of a
// dead server sees a connection that is reset at once, not a refused one; for
// that there is Refuse.
package faultproxy

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie/internal/loopback"
)

// Direction says which way bytes go. Both is the two of them.
type Direction int

// The directions.
const (
	ToServer Direction = 1 << iota // requests
	ToClient                       // answers
	Both     = ToServer | ToClient
)

// index of a single direction in Proxy.rules and link.lost.
func (d Direction) index() int { return int(d) - 1 }

// mode says what happens to the bytes of one direction.
type mode int

const (
	pass      mode = iota
	blackhole      // read and thrown away
	hold           // kept until the mode changes
)

// rules are what is done to one direction.
type rules struct {
	mode  mode
	delay time.Duration
	rate  int // bytes per second, 0: no limit
}

// Proxy forwards TCP connections to one target. Its methods are safe for
// concurrent use.
type Proxy struct {
	target string
	port   *loopback.Port
	ctx    context.Context // of everything that the proxy runs
	cancel context.CancelFunc
	wg     sync.WaitGroup // its goroutines

	mu      sync.Mutex
	ln      net.Listener // nil while connections are refused
	rules   [2]rules
	changed chan struct{} // closed and replaced when the rules change
	links   map[*link]struct{}
}

// New starts a proxy on a free port of 127.0.0.1 that passes everything to the
// target, a host:port. Close must be called.
func New(target string) (*Proxy, error) {
	port, err := loopback.Reserve()
	if err != nil {
		return nil, fmt.Errorf("faultproxy: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{
		target: target, port: port, ctx: ctx, cancel: cancel,
		changed: make(chan struct{}), links: make(map[*link]struct{}),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.listen(); err != nil {
		cancel()
		port.Release()
		return nil, err
	}
	return p, nil
}

// Addr returns the host:port to connect to. It never changes.
func (p *Proxy) Addr() string { return p.port.Addr() }

// Pass ends all faults. Connections that lost bytes to a blackhole are reset, as
// what follows would not fit what came before; all others go on. The error says
// that the port cannot be listened on again, which only happens after Refuse.
func (p *Proxy) Pass() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change(Both, func(r *rules) { *r = rules{} })
	if p.ln != nil || p.ctx.Err() != nil {
		return nil
	}
	return p.listen()
}

// Cut resets all connections that exist. New ones are treated as before.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Refuse makes new connections fail with "connection refused" until Pass, as
// when the server's process is gone. Those that exist go on; see Cut.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ln != nil {
		_ = p.ln.Close()
		p.ln = nil
	}
}

// Blackhole throws away what is sent in the direction: connections are accepted
// and silent, ends of connections are not passed on. Senders see nothing of it.
func (p *Proxy) Blackhole(d Direction) { p.set(d, func(r *rules) { r.mode = blackhole }) }

// Hold keeps what is sent in the direction until Pass and then delivers it, as a
// network does that comes back within TCP's patience: requests arrive late.
// Beyond a few megabytes a connection the sender is stopped.
func (p *Proxy) Hold(d Direction) { p.set(d, func(r *rules) { r.mode = hold }) }

// Delay delivers everything in the direction that much later; 0 ends it.
func (p *Proxy) Delay(d Direction, by time.Duration) { p.set(d, func(r *rules) { r.delay = by }) }

// Limit lets each connection pass that many bytes per second in the direction;
// 0 ends it.
func (p *Proxy) Limit(d Direction, bytesPerSecond int) {
	p.set(d, func(r *rules) { r.rate = bytesPerSecond })
}

// Connections returns how many connections there are now.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Clients returns how many of the connections their clients have not ended. A
// server may take its time to end the rest: until it has an answer that nobody waits for.
func (p *Proxy) Clients() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for l := range p.links {
		if !l.left {
			n++
		}
	}
	return n
}

// Close resets all connections, stops everything and frees the port. When it
// returns no goroutine is left. Further calls do nothing.
func (p *Proxy) Close() {
	p.mu.Lock()
	closed := p.ctx.Err() != nil
	p.cancel()
	p.mu.Unlock()
	p.Refuse()
	p.Cut()
	p.wg.Wait()
	if !closed {
		p.port.Release()
	}
}

// set changes the rules of the direction.
func (p *Proxy) set(d Direction, f func(*rules)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change(d, f)
}

// change changes the rules of the direction, with p.mu held, and wakes whoever
// acts on the old ones.
func (p *Proxy) change(d Direction, f func(*rules)) {
	for _, one := range []Direction{ToServer, ToClient} {
		if d&one == 0 {
			continue
		}
		i := one.index()
		f(&p.rules[i])
		if p.rules[i].mode == blackhole {
			continue
		}
		for l := range p.links {
			if l.lost[i] {
				l.reset()
			}
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// listen starts accepting, with p.mu held.
func (p *Proxy) listen() error {
	ln, err := net.Listen("tcp4", p.Addr())
	if err != nil {
		return fmt.Errorf("faultproxy: %w", err)
	}
	p.ln = ln
	p.wg.Go(func() { p.accept(ln) })
	return nil
}

// accept takes connections until the listener is closed.
func (p *Proxy) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return // closed by Refuse or Close
		}
		p.mu.Lock()
		if p.ln != ln {
			resetConn(c) // refused meanwhile
		} else {
			l := newLink(p, c)
			p.links[l] = struct{}{}
			p.wg.Go(l.run)
		}
		p.mu.Unlock()
	}
}
