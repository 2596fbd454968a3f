package zookeeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

// link is one zk.Conn and what it is made of: it chooses the servers and connects
// to them. It is given up for another one when its session must have ended.
type link struct {
	c      *client
	conn   *zk.Conn
	events <-chan zk.Event
	ctx    context.Context // ends when it is given up
	cancel context.CancelFunc

	granted atomic.Int64 // the length of the session in nanoseconds, 0 before there is one
	heard   atomic.Int64 // when something came from the server, in nanoseconds since began
	over    atomic.Bool  // the session must have ended, or the link is being closed
	began   time.Time

	dialled time.Time // the last time; of the goroutine that dials

	mu       sync.Mutex
	next     int   // endpoint
	attempts int   // to connect, since the last session
	last     error // why the last one failed
	wire     *wire // the last connection
}

const (
	// firstPause and longestPause bound the pause between two attempts to connect.
	firstPause   = 50 * time.Millisecond
	longestPause = 300 * time.Millisecond

	// flushEvery is after how many rounds over all endpoints the client is told
	// to fail the requests that it keeps for the next connection. It then pauses
	// for a second.
	flushEvery = 10
)

var (
	// errSilent: why an attempt failed whose connection was accepted.
	errSilent = errors.New("the server accepted the connection and granted no session")

	// errOver: the link is given up.
	errOver = errors.New("the session must have ended, as nothing was heard of the server for so long")
)

func newLink(c *client) (*link, error) {
	l := &link{c: c, began: time.Now(), next: rand.IntN(len(c.d.settings.endpoints))} // not all stores the same
	l.ctx, l.cancel = context.WithCancel(c.d.ctx)
	var err error
	l.conn, l.events, err = zk.Connect(c.d.settings.endpoints, c.session,
		zk.WithHostProvider(l), zk.WithDialer(l.dial), zk.WithEventCallback(func(e zk.Event) { c.event(l, e) }),
		zk.WithLogger(clientLog{c}), zk.WithLogInfo(false),
		zk.WithMaxConnBufferSize(max(1536<<10, c.d.settings.maxValue+64<<10)))
	return l, err
}

// clientLog is the zk.Logger: what a user has to know is in the errors.
type clientLog struct{ c *client }

func (l clientLog) Printf(format string, args ...any) {
	l.c.d.log.Debug("zookeeper client", "says", fmt.Sprintf(format, args...))
}

// Init implements zk.HostProvider; names are looked up when they are dialled.
func (l *link) Init([]string) error { return nil }

// Len implements zk.HostProvider.
func (l *link) Len() int { return len(l.c.d.settings.endpoints) }

// Next implements zk.HostProvider: the endpoints in turn.
func (l *link) Next() (addr string, flush bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.Len()
	if l.attempts > 0 && l.attempts%n == 0 { // all of them in vain
		l.c.roundFailed(l.last)
		flush = l.attempts/n%flushEvery == 0
	}
	l.attempts++
	l.next = (l.next + 1) % n
	return l.c.d.settings.endpoints[l.next], flush
}

// Connected implements zk.HostProvider.
func (l *link) Connected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts = 0
}

// pause is how long to wait before the next attempt: nothing for the first
// round, if the last connection was not made just now.
func (l *link) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	pause := firstPause
	for range (l.attempts - 1) / l.Len() {
		pause = min(2*pause, longestPause)
	}
	return pause - time.Since(l.dialled)
}

// dial is the zk.Dialer. The handshakes, of TLS and of the session, are bounded
// along with it.
func (l *link) dial(_, addr string, _ time.Duration) (net.Conn, error) {
	select {
	case <-time.After(l.pause()):
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
	if l.expired() {
		<-l.ctx.Done()
		return nil, errOver
	}
	l.dialled = time.Now()
	deadline := l.dialled.Add(l.attempt())
	ctx, cancel := context.WithDeadline(l.ctx, deadline)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err == nil && l.c.d.settings.tls != nil {
		raw, err = secure(ctx, raw, addr, l.c.d.settings.tls)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.last = err
		return nil, err
	}
	l.last = errSilent // until there is a session
	if l.wire != nil { // the client does not close that on which it heard that the session has ended
		l.wire.Close()
	}
	l.wire = newWire(raw, l, deadline)
	if l.ctx.Err() != nil { // given up meanwhile
		l.wire.Close()
	}
	return l.wire, nil
}

// attempt is how long one attempt to connect may take: a session must not end
// because one of several servers is silent. Before there is one there is no hurry,
// and a busy server may need longer.
func (l *link) attempt() time.Duration {
	least := 3 * time.Second
	if l.granted.Load() != 0 {
		least = time.Second
	}
	return min(l.c.d.settings.timeout, max(l.c.session/3, least))
}

// expired tells whether the session must have ended. When only the way from the
// server is broken it has not: each attempt to connect reaches the server and
// prolongs the session, with its locks, for a client that does not know that it
// has it. So there are no further ones.
func (l *link) expired() bool {
	granted := time.Duration(l.granted.Load())
	if granted == 0 || time.Since(l.began)-time.Duration(l.heard.Load()) <= granted {
		return false
	}
	if !l.over.Swap(true) {
		l.c.d.tasks.Go(func() { l.c.relink(l) })
	}
	return true
}

// secure does the TLS handshake.
func secure(ctx context.Context, raw net.Conn, addr string, cfg *tls.Config) (net.Conn, error) {
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		cfg = cfg.Clone()
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			raw.Close()
			return nil, err
		}
		cfg.ServerName = host
	}
	t := tls.Client(raw, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return t, nil
}

// goodbye is how long close waits for the server to hear that the session is
// over; it ends by itself otherwise.
const goodbye = 300 * time.Millisecond

// close ends all goroutines of the link, and its session if it is connected.
func (l *link) close(connected bool) {
	l.over.Store(true)
	told := make(chan struct{})
	go func() {
		defer close(told)
		l.conn.Close()
	}()
	if connected {
		select {
		case <-told:
		case <-time.After(goodbye):
		}
	}
	l.cancel() // ends dialling
	l.mu.Lock()
	if l.wire != nil {
		l.wire.Close()
	}
	l.mu.Unlock()
	<-told
	for range l.events { // it is closed when the last goroutine ends
	}
}
