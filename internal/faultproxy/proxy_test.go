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
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	soon    = 10 * time.Second       // for what must happen
	silence = 100 * time.Millisecond // how long nothing must happen
)

func TestPassForwardsBothWaysAndEnds(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	send(t, c, "hello")
	expect(t, c, "hello")
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "a half-closed connection ends in order")
	require.Eventually(t, func() bool { return p.Connections() == 0 }, soon, time.Millisecond)
}

func TestPassCarriesMoreThanTheQueues(t *testing.T) {
	c := dial(t, start(t))
	const size = 3 * chunkSize * queueLimit
	go func() { _, _ = c.Write(make([]byte, size)) }()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
	n, err := io.CopyN(io.Discard, c, size)
	require.NoError(t, err)
	require.EqualValues(t, size, n)
}

func TestCutResetsWhatExistsAndNothingElse(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	send(t, c, "a")
	expect(t, c, "a")
	p.Cut()
	ended(t, c)
	c = dial(t, p)
	send(t, c, "b")
	expect(t, c, "b")
}

func TestRefuseRefusesNewConnectionsUntilPass(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	send(t, c, "a")
	expect(t, c, "a")
	for range 3 {
		p.Refuse()
		_, err := net.Dial("tcp4", p.Addr())
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		send(t, c, "still here")
		expect(t, c, "still here")
		require.NoError(t, p.Pass())
		d := dial(t, p)
		send(t, d, "new")
		expect(t, d, "new")
	}
}

func TestBlackholeIsSilentAndAcceptsConnections(t *testing.T) {
	for _, d := range []Direction{ToServer, ToClient, Both} {
		p := start(t)
		old := dial(t, p)
		send(t, old, "a")
		expect(t, old, "a")
		p.Blackhole(d)
		fresh := dial(t, p)
		send(t, old, "lost")
		send(t, fresh, "lost")
		silent(t, old)
		silent(t, fresh)
		require.NoError(t, p.Pass())
		ended(t, old)
		ended(t, fresh)
		again := dial(t, p)
		send(t, again, "b")
		expect(t, again, "b")
	}
}

func TestBlackholeKeepsConnectionsThatLostNothing(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	send(t, c, "a")
	expect(t, c, "a")
	p.Blackhole(Both)
	silent(t, c)
	require.NoError(t, p.Pass())
	send(t, c, "b")
	expect(t, c, "b")
}

func TestBlackholeHidesTheDeathOfTheServer(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	p, err := New(ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(p.Close)
	c := dial(t, p)
	s, err := ln.Accept()
	require.NoError(t, err)
	p.Blackhole(Both)
	require.NoError(t, s.Close())
	require.NoError(t, ln.Close())
	silent(t, c)
	fresh := dial(t, p)
	silent(t, fresh)
	require.NoError(t, p.Pass())
	ended(t, fresh)
}

func TestHoldDeliversLater(t *testing.T) {
	for _, d := range []Direction{ToServer, ToClient} {
		p := start(t)
		c := dial(t, p)
		p.Hold(d)
		send(t, c, "late")
		silent(t, c)
		require.NoError(t, p.Pass())
		expect(t, c, "late")
	}
}

func TestDelayAddsLatencyNotPauses(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	const by = 50 * time.Millisecond
	p.Delay(Both, by)
	began := time.Now()
	for range 20 { // all of them are on their way at once
		send(t, c, "x")
	}
	expect(t, c, "xxxxxxxxxxxxxxxxxxxx")
	took := time.Since(began)
	require.GreaterOrEqual(t, took, 2*by)
	require.Less(t, took, 20*by)

	p.Delay(Both, time.Hour)
	send(t, c, "y")
	silent(t, c)
	p.Delay(Both, 0)
	expect(t, c, "y")
}

func TestLimitSlowsDown(t *testing.T) {
	p := start(t)
	c := dial(t, p)
	p.Limit(ToServer, 10_000)
	began := time.Now()
	message := string(make([]byte, 2_000))
	send(t, c, message)
	expect(t, c, message)
	require.GreaterOrEqual(t, time.Since(began), 150*time.Millisecond)

	p.Limit(ToServer, 1)
	send(t, c, message)
	expect(t, c, message[:1]) // the first byte passes at once
	require.NoError(t, p.Pass())
	expect(t, c, message[1:])
}

func TestDeadServerResets(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	p, err := New(ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(p.Close)
	c, err := net.Dial("tcp4", p.Addr())
	if err == nil { // the reset may come before or after connect returns
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestCloseEndsEveryKindOfWaiting(t *testing.T) {
	p := start(t)
	var conns []net.Conn
	for _, fault := range []func(){
		func() {},
		func() { p.Blackhole(Both) },
		func() { p.Hold(Both) },
		func() { p.Delay(Both, time.Hour) },
		func() { p.Limit(Both, 1) },
	} {
		fault()
		c := dial(t, p)
		send(t, c, "some bytes")
		conns = append(conns, c)
	}
	p.Close()
	p.Close()
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(soon))
		_, err := io.Copy(io.Discard, c)
		require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "connection left open")
	}
	_, err := net.Dial("tcp4", p.Addr())
	require.Error(t, err)
	require.NoError(t, p.Pass())
}

func TestSwitchingUnderLoadIsSafe(t *testing.T) {
	p := start(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp4", p.Addr())
				if err != nil {
					continue
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Millisecond))
				for i := byte(0); ; i++ {
					if _, err := c.Write([]byte{i}); err != nil {
						break
					}
					b := make([]byte, 1)
					if _, err := io.ReadFull(c, b); err != nil {
						break
					}
					if b[0] != i {
						t.Error("bytes out of order")
					}
				}
				_ = c.Close()
			}
		})
	}
	for range 200 {
		for _, fault := range []func(){
			p.Cut, p.Refuse,
			func() { p.Blackhole(ToClient) },
			func() { p.Hold(ToServer) },
			func() { p.Delay(Both, time.Millisecond) },
			func() { p.Limit(ToClient, 1000) },
		} {
			fault()
			if err := p.Pass(); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	wg.Wait()
}
