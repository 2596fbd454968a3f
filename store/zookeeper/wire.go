package zookeeper

import (
	"bufio"
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// wire is a connection as the ZooKeeper client uses it. It makes up for what the
// client does not do: it bounds the handshake, for which the client waits seven
// sessions long, tells how long a session the server granted, and saves system
// calls, of which the client makes six for each request.
type wire struct {
	net.Conn
	heard   func()                      // called when something was read
	granted func(session time.Duration) // called when the server has granted a session

	// Of the reading side, which is one goroutine at a time.
	reader    *bufio.Reader
	handshake time.Time // its deadline; zero when it is over
	left      int       // of the server's answer to it; 0: not begun
	wanted    time.Time // the read deadline that the client asked for
	readBy    time.Time // the one that is set

	// Of the writing side.
	writeBy time.Time // the deadline that is set
	lastly  time.Time // the time of the last request

	mu      sync.Mutex
	room    sync.Cond // there is room in the buffer, or an error
	waiting []byte    // requests that the flusher has to write
	writing bool      // somebody writes
	failed  error
	flush   chan struct{} // capacity 1
	closed  chan struct{}
	closing sync.Once
}

const (
	// burst is how soon a request must follow the one before to be written
	// together with those that follow it.
	burst = 40 * time.Microsecond

	// waitingMost bounds what waits to be written.
	waitingMost = 1 << 20
)

// Coarseness of deadlines: what is set may differ from what was asked for by as
// much, so that it need not be set for each request.
const deadlineGrain = 100 * time.Millisecond

func newWire(c net.Conn, handshake time.Time, heard func(), granted func(time.Duration)) *wire {
	w := &wire{Conn: c, heard: heard, granted: granted, handshake: handshake,
		flush: make(chan struct{}, 1), closed: make(chan struct{})}
	w.room.L = &w.mu
	w.reader = bufio.NewReaderSize(unbuffered{w}, 64<<10)
	return w
}

// unbuffered is the reading side below the buffer.
type unbuffered struct{ w *wire }

func (u unbuffered) Read(p []byte) (int, error) {
	w := u.w
	by := w.wanted
	if !w.handshake.IsZero() && (by.IsZero() || by.After(w.handshake)) {
		by = w.handshake
	}
	if by.IsZero() != w.readBy.IsZero() || by.Before(w.readBy) || by.Sub(w.readBy) > deadlineGrain {
		if err := w.Conn.SetReadDeadline(by); err != nil {
			return 0, err
		}
		w.readBy = by
	}
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard()
	}
	return n, err
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	if w.handshake.IsZero() {
		return w.reader.Read(p)
	}
	return w.readHandshake(p)
}

// readHandshake is Read until the server's answer to the handshake has been
// read: its length, the protocol's version, the session's length, its id, …
func (w *wire) readHandshake(p []byte) (int, error) {
	if w.left == 0 {
		head, err := w.reader.Peek(20)
		if err != nil {
			return 0, err
		}
		w.left = 4 + int(binary.BigEndian.Uint32(head))
		if id := binary.BigEndian.Uint64(head[12:]); id != 0 {
			w.granted(time.Duration(binary.BigEndian.Uint32(head[8:])) * time.Millisecond)
		}
	}
	n, err := w.reader.Read(p[:min(len(p), w.left)])
	if w.left -= n; w.left <= 0 {
		w.handshake = time.Time{}
	}
	return n, err
}

// Write implements net.Conn. A request that comes alone is written at once. Of
// those that come in quick succession all that are there when the flusher gets to
// write are written together. The client writes whole requests, so that one of
// which a part was not taken cannot have been applied.
func (w *wire) Write(p []byte) (int, error) {
	now := time.Now()
	alone := now.Sub(w.lastly) > burst
	w.lastly = now
	w.mu.Lock()
	for len(w.waiting) > waitingMost && w.failed == nil {
		w.room.Wait()
	}
	switch {
	case w.failed != nil:
		w.mu.Unlock()
		return 0, wrap(errUnsent, w.failed)
	case !alone || w.writing || len(w.waiting) > 0:
		w.waiting = append(w.waiting, p...)
		w.mu.Unlock()
		poke(w.flush)
		return len(p), nil
	}
	w.writing = true
	w.mu.Unlock()
	n, err := w.Conn.Write(p)
	w.wrote(err)
	if err != nil && n < len(p) {
		err = wrap(errUnsent, err)
	}
	return n, err
}

// wrote notes the end of a write.
func (w *wire) wrote(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = false
	if err != nil && w.failed == nil {
		w.failed = err
	}
	w.room.Broadcast()
	if len(w.waiting) > 0 {
		poke(w.flush)
	}
}

// flusher writes what waits until the connection is closed. After an error it
// closes it: the client then knows nothing of the requests that waited.
func (w *wire) flusher() {
	var spare []byte
	for {
		select {
		case <-w.flush:
		case <-w.closed:
			return
		}
		w.mu.Lock()
		if w.writing || w.failed != nil || len(w.waiting) == 0 {
			w.mu.Unlock()
			continue
		}
		out := w.waiting
		w.waiting, w.writing = spare[:0], true
		w.mu.Unlock()
		_, err := w.Conn.Write(out)
		if spare = out; cap(spare) > waitingMost {
			spare = nil
		}
		w.wrote(err)
		if err != nil {
			w.Close()
		}
	}
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.closing.Do(func() {
		close(w.closed)
		w.wrote(net.ErrClosed)
	})
	return w.Conn.Close()
}

// SetReadDeadline implements net.Conn. It takes effect when something has to be
// waited for.
func (w *wire) SetReadDeadline(t time.Time) error {
	w.wanted = t
	return nil
}

// SetWriteDeadline implements net.Conn. The client clears it after each write
// and sets it before the next one.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if t.IsZero() || t.Sub(w.writeBy) <= deadlineGrain {
		return nil
	}
	w.writeBy = t
	return w.Conn.SetWriteDeadline(t)
}
