package zookeeper

import (
	"bufio"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie/store"
)

// wire is a connection as the ZooKeeper client uses it. It makes up for what the
// client does not do: it bounds the handshake, for which the client waits seven
// sessions long, tells how long a session the server granted, notes when the
// server was heard last, and reads answers that come together together. And it
// holds back the first answer until the client has registered its watches anew:
// it says there up to which zxid it knows what happened, which an answer raises,
// and does not guard the one against the other.
type wire struct {
	net.Conn
	l *link

	// Of the reading side, which is one goroutine at a time.
	reader    *bufio.Reader
	handshake bool // the server's answer to it has not been read yet
	left      int  // of that answer; 0: not begun
	held      bool // the first answer after it is to be held back

	// Of the writing side.
	wrote bool // the handshake

	registered chan struct{} // closed when the watches are registered, or by Close
	once       sync.Once     // closes it
}

const (
	// holdBack is for how long at the most: there may be no watches.
	holdBack = 300 * time.Millisecond

	// opSetWatches is the request that registers watches.
	opSetWatches = 101
)

// newWire returns the wire of a connection whose handshake must be over by that
// time.
func newWire(c net.Conn, l *link, by time.Time) *wire {
	w := &wire{Conn: c, l: l, handshake: true, held: l.c.hub.watched.Load(), registered: make(chan struct{})}
	w.reader = bufio.NewReaderSize(unbuffered{w}, 64<<10)
	_ = c.SetReadDeadline(by) // where it fails reading does
	return w
}

// unbuffered is the reading side below the buffer.
type unbuffered struct{ w *wire }

func (u unbuffered) Read(p []byte) (int, error) {
	n, err := u.w.Conn.Read(p)
	if n > 0 {
		u.w.l.heard.Store(int64(time.Since(u.w.l.began)))
	}
	return n, err
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	if !w.handshake {
		if w.held {
			w.held = false
			select {
			case <-w.registered:
			case <-time.After(holdBack):
			}
		}
		return w.reader.Read(p)
	}
	// Its length, the protocol's version, the session's length, its id, …
	if w.left == 0 {
		head, err := w.reader.Peek(20)
		if err != nil {
			return 0, err
		}
		w.left = 4 + int(binary.BigEndian.Uint32(head))
		if id := binary.BigEndian.Uint64(head[12:]); id != 0 {
			w.l.granted.Store(int64(time.Duration(binary.BigEndian.Uint32(head[8:])) * time.Millisecond))
		}
	}
	n, err := w.reader.Read(p[:min(len(p), w.left)])
	w.left -= n
	w.handshake = w.left > 0
	return n, err
}

// SetReadDeadline implements net.Conn. It leaves the handshake's own as it is.
func (w *wire) SetReadDeadline(t time.Time) error {
	if w.handshake {
		return nil
	}
	return w.Conn.SetReadDeadline(t)
}

// Write implements net.Conn. The client writes whole requests, so that one of
// which a part was not taken cannot have been applied. While it is closed the client
// hears of no failure: of a request that is begun at that time it would tell the
// caller once too often, and wait for ever for one who has gone.
func (w *wire) Write(p []byte) (int, error) {
	if w.wrote && len(p) >= 12 && binary.BigEndian.Uint32(p[8:]) == opSetWatches { // its length, its number, what it is, …
		w.once.Do(func() { close(w.registered) })
	}
	w.wrote = true
	n, err := w.Conn.Write(p)
	if err != nil && w.l.over.Load() {
		return len(p), nil
	}
	if err != nil && n < len(p) {
		err = store.Wrap(errUnsent, err)
	}
	return n, err
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.once.Do(func() { close(w.registered) })
	return w.Conn.Close()
}
