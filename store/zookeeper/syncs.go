package zookeeper

import (
	"sync"

	"github.com/go-zookeeper/zk"
)

// syncs lets reads that are made at the same time share a Sync: one that is sent
// after a read was asked for makes it see all that was written before.
type syncs struct {
	turn sync.Mutex // of the round that is under way

	mu   sync.Mutex
	next *syncRound // has not begun; nil when nobody has asked for it
}

// syncRound is one Sync for all who wait for it.
type syncRound struct {
	done chan struct{}
	err  error
}

// sync makes what is read on the same session afterwards see all that was
// written before the call.
func (c *client) sync(conn *zk.Conn) error {
	s := &c.syncs
	s.mu.Lock()
	r := s.next
	if r != nil {
		s.mu.Unlock()
		<-r.done
		return r.err
	}
	r = &syncRound{done: make(chan struct{})}
	s.next = r
	s.mu.Unlock()

	s.turn.Lock()
	s.mu.Lock()
	s.next = nil // who comes from now on needs the next one
	s.mu.Unlock()
	_, r.err = conn.Sync("/")
	close(r.done)
	s.turn.Unlock()
	return r.err
}
