package redis

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"
)

// bufferSize is that of a socket's buffers, so that many small commands or
// replies take one system call.
const bufferSize = 64 << 10

// socket is the net.Conn under a redigo connection: buffered by more than
// redigo's 4 KiB, and with the time of its last sign of life. It has no deadlines,
// which would cost something for every reply; who owns it closes it.
type socket struct {
	net.Conn
	in      *bufio.Reader
	out     []byte // written, not flushed
	started time.Time
	life    atomic.Int64 // when bytes last moved, in nanoseconds after started
}

func newSocket(c net.Conn) *socket {
	s := &socket{Conn: c, started: time.Now()}
	s.in = bufio.NewReaderSize(incoming{s}, bufferSize)
	return s
}

// touch notes a sign of life.
func (s *socket) touch() { s.life.Store(int64(time.Since(s.started))) }

// silence is how long there has been none.
func (s *socket) silence() time.Duration { return time.Since(s.started) - time.Duration(s.life.Load()) }

// incoming reads from the network.
type incoming struct{ s *socket }

func (i incoming) Read(p []byte) (int, error) {
	n, err := i.s.Conn.Read(p)
	if n > 0 {
		i.s.touch()
	}
	return n, err
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) { return s.in.Read(p) }

// Write implements net.Conn. It keeps what redigo flushes after every 4 KiB.
func (s *socket) Write(p []byte) (int, error) {
	if len(s.out)+len(p) <= bufferSize {
		s.out = append(s.out, p...)
		return len(p), nil
	}
	if err := s.flush(); err != nil {
		return 0, err
	}
	if len(p) < bufferSize {
		s.out = append(s.out, p...)
		return len(p), nil
	}
	return s.pour(p)
}

// flush sends what is kept.
func (s *socket) flush() error {
	_, err := s.pour(s.out)
	s.out = s.out[:0]
	return err
}

// pour writes to the network. Much of it goes in pieces, each of which is a sign
// of life when the network has taken it.
func (s *socket) pour(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n, err := s.Conn.Write(p[:min(len(p), bufferSize)])
		written += n
		if err != nil {
			return written, err
		}
		if p = p[n:]; len(p) > 0 {
			s.touch()
		}
	}
	return written, nil
}

// SetReadDeadline implements net.Conn. redigo calls it for every reply.
func (s *socket) SetReadDeadline(time.Time) error { return nil }

// dialSocket connects, within ctx.
func dialSocket(ctx context.Context, addr string, cfg *tls.Config) (*socket, error) {
	dialer := net.Dialer{KeepAlive: 15 * time.Second}
	c, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil || cfg == nil {
		if err != nil {
			return nil, err
		}
		return newSocket(c), nil
	}
	cfg = cfg.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(addr)
	}
	secured := tls.Client(c, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return newSocket(secured), nil
}
