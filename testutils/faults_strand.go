package testutils

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"
)

// stranding is a forwarder that can leave the connections that exist open and
// silent for ever while new ones work, which no rule for a whole network says.
type stranding struct {
	ln     net.Listener
	target string
	ctx    context.Context
	wg     sync.WaitGroup

	mu    sync.Mutex
	links []*strandedLink
}

type strandedLink struct{ dead atomic.Bool }

// stranding starts a forwarder to the server.
func (r *rig) stranding() *stranding {
	r.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(r, err)
	ctx, cancel := context.WithCancel(context.Background())
	s := &stranding{ln: ln, target: r.server.Addr, ctx: ctx}
	s.wg.Go(s.accept)
	r.Cleanup(func() {
		cancel()
		_ = ln.Close()
		s.wg.Wait()
	})
	return s
}

func (s *stranding) addr() string { return s.ln.Addr().String() }

// strand makes the connections that exist silent.
func (s *stranding) strand() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.links {
		l.dead.Store(true)
	}
}

func (s *stranding) accept() {
	for {
		client, err := s.ln.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		server, err := d.DialContext(s.ctx, "tcp4", s.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		l := new(strandedLink)
		s.mu.Lock()
		s.links = append(s.links, l)
		s.mu.Unlock()
		s.wg.Go(func() { l.copy(server, client) })
		s.wg.Go(func() { l.copy(client, server) })
		context.AfterFunc(s.ctx, func() {
			_ = client.Close()
			_ = server.Close()
		})
	}
}

// copy forwards one direction. On a dead link it reads on, so that the sender
// sees nothing, and the end of one side is not told to the other.
func (l *strandedLink) copy(dst, src net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if !l.dead.Load() {
			if _, failed := dst.Write(buf[:n]); failed != nil || err != nil {
				_ = dst.Close()
			}
		}
		if err != nil {
			return
		}
	}
}
