package zookeeper

import (
	"sync"

	"github.com/go-zookeeper/zk"
)

// syncs lets reads that are made at the same time share a Sync: one that is sent
// after a read was asked for makes it see all that was written before.
type syncs struct {
	mu      sync.Mutex
	running bool
	next    *syncRound // of those who came while one was running
}

// syncRound is one Sync for all who wait for it.
type syncRound struct {
	lead chan struct{} // capacity 1: who takes from it runs the round
	done chan struct{}
	err  error
}

// sync makes what is read on the same session afterwards see all that was
// written before the call.
func (c *client) sync(conn *zk.Conn) error {
	s := &c.syncs
	s.mu.Lock()
	if !s.running {
		s.running = true
		s.mu.Unlock()
		_, err := conn.Sync("/")
		s.ended()
		return err
	}
	if s.next == nil {
		s.next = &syncRound{lead: make(chan struct{}, 1), done: make(chan struct{})}
	}
	r := s.next
	s.mu.Unlock()
	select {
	case <-r.done:
	case <-r.lead:
		_, r.err = conn.Sync("/")
		close(r.done)
		s.ended()
	}
	return r.err
}

// ended lets the next round begin.
func (s *syncs) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.running = false
		return
	}
	s.next.lead <- struct{}{}
	s.next = nil
}
