package etcdv2

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/kvtools/valkeyrie"
)

// conns is the connections of a store. Closing them ends the requests on them,
// which costs the requests nothing before that.
type conns struct {
	ctx    context.Context // ends with close
	cancel context.CancelFunc

	mu   sync.Mutex
	open map[*conn]struct{}
}

func newConns() *conns {
	s := &conns{open: make(map[*conn]struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// conn is a connection that is forgotten when it is closed.
type conn struct {
	net.Conn
	of *conns
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// dial returns a function that connects until close is called.
func (s *conns) dial(dialer *net.Dialer) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed() {
			_ = c.Close()
			return nil, valkeyrie.ErrClosed
		}
		own := &conn{Conn: c, of: s}
		s.open[own] = struct{}{}
		return own, nil
	}
}

// closed tells whether close was called.
func (s *conns) closed() bool { return s.ctx.Err() != nil }

// close closes all connections, and ends those that are being made.
func (s *conns) close() {
	s.cancel()
	s.mu.Lock()
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}
