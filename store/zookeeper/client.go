package zookeeper

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// client is one session at a time of the ZooKeeper client. Calls go through a
// gate that is open while the session can be used: what the client would keep
// until some later connection is so known not to have been sent.
type client struct {
	d       *driver
	session time.Duration // the length that is asked for

	gate  atomic.Pointer[gate]
	syncs syncs
	hub   *hub
	wake  chan struct{} // capacity 1: the keeper has to look

	mu   sync.Mutex
	link *link  // nil until the first call
	seq  uint64 // counts connections and their ends
}

// gate is what is known of the session. It never changes; the next one takes its
// place, and changed is closed.
type gate struct {
	open    bool
	conn    *zk.Conn
	id      int64 // of the session
	length  time.Duration
	rounds  uint64 // how often all endpoints were tried in vain
	why     error  // of the last time
	refused error  // the server refuses the credentials
	changed chan struct{}
}

func newClient(d *driver, session time.Duration) *client {
	c := &client{d: d, session: session, wake: make(chan struct{}, 1)}
	c.gate.Store(&gate{changed: make(chan struct{})})
	c.hub = newHub(c)
	return c
}

// start begins to connect.
func (c *client) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.d.ctx.Err() != nil:
		return valkeyrie.ErrClosed
	case c.link != nil:
		return nil
	}
	l, err := newLink(c)
	if err != nil {
		return store.Wrap(valkeyrie.ErrNotReachable, err)
	}
	c.link = l
	if !c.d.tasks.Go(c.keep) {
		return valkeyrie.ErrClosed
	}
	return nil
}

// change replaces the gate.
func (c *client) change(f func(*gate)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changeLocked(f)
}

func (c *client) changeLocked(f func(*gate)) {
	old := c.gate.Load()
	next := *old
	next.changed = make(chan struct{})
	f(&next)
	c.gate.Store(&next)
	close(old.changed)
}

// event is called for each event of a link.
func (c *client) event(l *link, e zk.Event) {
	c.mu.Lock()
	current := c.link == l || c.link == nil // it is being made
	switch {
	case !current || e.Type != zk.EventSession:
	case e.State == zk.StateHasSession:
		c.seq++
		store.Poke(c.wake)
	case e.State == zk.StateDisconnected:
		c.seq++
		if c.gate.Load().open {
			c.changeLocked(func(g *gate) { g.open = false })
		}
	}
	c.mu.Unlock()
	switch {
	case !current:
	case e.Type != zk.EventSession:
		c.hub.event(e)
	case e.State == zk.StateExpired:
		c.hub.forgetAll()
	case e.State == zk.StateDisconnected:
		c.hub.fail(errSessionLost)
	}
}

// keep is the keeper: it opens the gate after each connection, when the server
// has taken the credentials and answered once. By then the client has registered
// the watches anew that there are.
func (c *client) keep() {
	var authenticated *link // the client does it itself from then on
	for {
		select {
		case <-c.wake:
		case <-c.d.ctx.Done():
			return
		}
		c.mu.Lock()
		l, seq := c.link, c.seq
		c.mu.Unlock()
		if c.d.settings.auth != "" && authenticated != l {
			err := l.conn.AddAuth("digest", []byte(c.d.settings.auth))
			if isOneOf(err, zk.ErrAuthFailed, zk.ErrNoAuth) {
				c.change(func(g *gate) { g.refused = readError(err) })
			}
			if err != nil {
				continue // the connection is over; there will be another
			}
			authenticated = l
		}
		if _, err := l.conn.Sync("/"); err != nil {
			continue
		}
		if c == c.d.main {
			c.d.arrive(l.conn)
		}
		c.opened(l, seq)
	}
}

// opened opens the gate if the connection is still the same.
func (c *client) opened(l *link, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seq == seq {
		c.changeLocked(func(g *gate) {
			g.open, g.conn, g.id, g.refused = true, l.conn, l.conn.SessionID(), nil
			g.length = time.Duration(l.granted.Load())
		})
	}
}

// relink takes another link in the place of one whose session must have ended.
func (c *client) relink(old *link) {
	next, err := newLink(c)
	if err != nil { // cannot be, as there was one
		c.d.log.Error("cannot make another zookeeper client", "error", err)
		return
	}
	c.mu.Lock()
	if c.d.ctx.Err() != nil { // close has the old one
		c.mu.Unlock()
		next.close(false)
		return
	}
	c.link = next
	c.seq++
	c.mu.Unlock()
	c.hub.forgetAll()
	c.hub.fail(errSessionLost)
	store.Poke(c.wake) // it may have been connected before it was the current one
	old.close(false)
}

// roundFailed notes that all endpoints were tried in vain.
func (c *client) roundFailed(why error) {
	c.change(func(g *gate) { g.rounds++; g.why = why })
}

// ready returns the gate when it is open. It fails when all endpoints were tried
// in vain meanwhile; a patient caller waits on.
func (c *client) ready(ctx context.Context, patient bool) (*gate, error) {
	g := c.gate.Load()
	if g.open {
		return g, nil
	}
	if err := c.start(); err != nil {
		return nil, err
	}
	rounds := g.rounds
	for {
		switch {
		case g.open:
			return g, nil
		case g.refused != nil:
			return nil, g.refused
		case g.rounds != rounds && !patient:
			return nil, store.Wrap(valkeyrie.ErrNotReachable, g.why)
		}
		select {
		case <-g.changed:
		case <-ctx.Done():
			return nil, tooLate(context.Cause(ctx), g.why)
		case <-c.d.ctx.Done():
			return nil, valkeyrie.ErrClosed
		}
		g = c.gate.Load()
	}
}

// tooLate is the error of a caller whose context ended before there was a session.
func tooLate(err, why error) error {
	if why == nil {
		return fmt.Errorf("there is no session yet: %w", err)
	}
	return fmt.Errorf("there is no session: %w; the last attempt ended with: %v", err, why)
}

// now is ready that does not wait.
func (c *client) now() (*gate, error) {
	if g := c.gate.Load(); g.open {
		return g, nil
	}
	return nil, errSessionLost
}

// same is nil while the session is still that of the gate: what was read after a
// Sync is then as new as that.
func (g *gate) same() error {
	if g.conn.SessionID() != g.id {
		return errSessionLost
	}
	return nil
}

// close ends the session and all goroutines of the client, after the driver's
// context. Calls under way fail.
func (c *client) close() {
	c.mu.Lock()
	l, open := c.link, c.gate.Load().open
	c.mu.Unlock()
	if l != nil {
		l.close(open)
	}
}
