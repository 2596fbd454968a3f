package faultproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echo starts a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// start starts an echo server and a proxy in front of it.
func start(t *testing.T) *Proxy {
	t.Helper()
	target := echo(t)
	p, err := New(target)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

// dial connects to the proxy.
func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp4", p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// send writes a message.
func send(t *testing.T, c net.Conn, message string) {
	t.Helper()
	_, err := io.WriteString(c, message)
	require.NoError(t, err)
}

// expect reads exactly the message.
func expect(t *testing.T, c net.Conn, message string) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
	buf := make([]byte, len(message))
	_, err := io.ReadFull(c, buf)
	require.NoError(t, err)
	require.Equal(t, message, string(buf))
}

// silent asserts that nothing arrives, not even an end.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(silence)))
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// ended asserts that the connection is reset.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
	_, err := c.Read(make([]byte, 1))
	require.True(t, errors.Is(err, syscall.ECONNRESET), "want a reset connection, got %v", err)
}
