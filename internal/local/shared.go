package local

import (
	"context"
	"slices"
	"sync"
)

// Shared hands one value per key to all who want it at the same time. The first
// opens it, the last closes it.
type Shared[K, V any] struct {
	// Same tells whether two keys mean the same value.
	Same func(a, b K) bool

	mu      sync.Mutex
	entries []*sharedEntry[K, V]
}

type sharedEntry[K, V any] struct {
	key   K
	users int           // who have the value or wait for it; guarded by Shared.mu
	turn  chan struct{} // holds a token unless somebody opens or closes the value

	// Guarded by turn.
	holders int
	value   V
}

// Acquire returns the value of the key, which open makes if nobody has it. It
// waits, until ctx is done, while another caller opens or closes it. Each
// caller calls release once; the last one to do so has close called.
func (s *Shared[K, V]) Acquire(ctx context.Context, key K, open func() (V, error), close func(V) error) (value V, release func() error, err error) {
	e := s.enter(key)
	select {
	case <-e.turn: // nobody to wait for, however little time there is
	default:
		select {
		case <-e.turn:
		case <-ctx.Done():
			s.leave(e)
			return value, nil, ctx.Err()
		}
	}
	if e.holders == 0 {
		e.value, err = open()
	}
	if err == nil {
		e.holders++
		value = e.value
	}
	e.turn <- struct{}{}
	if err != nil {
		s.leave(e)
		return value, nil, err
	}
	return value, func() error {
		defer s.leave(e)
		<-e.turn
		defer func() { e.turn <- struct{}{} }()
		if e.holders--; e.holders > 0 {
			return nil
		}
		return close(e.value)
	}, nil
}

func (s *Shared[K, V]) enter(key K) *sharedEntry[K, V] {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.entries, func(e *sharedEntry[K, V]) bool { return s.Same(e.key, key) })
	if i < 0 {
		i = len(s.entries)
		s.entries = append(s.entries, &sharedEntry[K, V]{key: key, turn: make(chan struct{}, 1)})
		s.entries[i].turn <- struct{}{}
	}
	s.entries[i].users++
	return s.entries[i]
}

func (s *Shared[K, V]) leave(e *sharedEntry[K, V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.users--; e.users == 0 {
		s.entries = slices.DeleteFunc(s.entries, func(o *sharedEntry[K, V]) bool { return o == e })
	}
}
