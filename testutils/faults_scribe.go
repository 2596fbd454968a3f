package testutils

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvtools/valkeyrie"
)

// scribe is the only one who writes to some keys. It numbers its writes, so that
// it can tell whether what others saw came in the order in which it wrote.
type scribe struct {
	kv kvstore

	mu   sync.Mutex // held during a write: there is one at a time
	next int
	log  map[string][]entry
}

// entry is a write that was tried; value of a put is its number.
type entry struct {
	n       int
	deleted bool
}

func newScribe(kv kvstore) *scribe { return &scribe{kv: kv, log: make(map[string][]entry)} }

// put writes the next number; it may fail while the server is away.
func (s *scribe) put(ctx context.Context, key string) error {
	return s.write(ctx, key, false, func(n int) error {
		return s.kv.Put(ctx, key, []byte(strconv.Itoa(n)), nil)
	})
}

// delete deletes the key, if it is there.
func (s *scribe) delete(ctx context.Context, key string) error {
	return s.write(ctx, key, true, func(int) error {
		err := s.kv.Delete(ctx, key)
		if errors.Is(err, valkeyrie.ErrKeyNotFound) {
			err = nil
		}
		return err
	})
}

// write makes one write. After an unknown outcome it waits until the server
// answers again: the write is applied then or never.
func (s *scribe) write(ctx context.Context, key string, deleted bool, f func(n int) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	s.log[key] = append(s.log[key], entry{s.next, deleted})
	err := f(s.next)
	if err == nil {
		return nil
	}
	for {
		_, look := s.kv.Exists(ctx, key, nil)
		if look == nil || ctx.Err() != nil {
			return err
		}
		pauseFor(ctx, 10*time.Millisecond, 20*time.Millisecond)
	}
}

// must repeats a write until it was confirmed.
func must(ctx context.Context, write func(context.Context, string) error, key string) error {
	for {
		err := write(ctx, key)
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// work writes to the keys in turn until the function that it returns is called,
// and goes on when the server was away.
func (s *scribe) work(e *env, keys ...string) (stop func()) {
	var stopped atomic.Bool
	wait := e.start(1, func(int) error {
		for i := 0; !stopped.Load() && e.ctx.Err() == nil; i++ {
			key := keys[i%len(keys)]
			if i%5 == 4 {
				_ = s.delete(e.ctx, key) // errors are the server's absence
			} else {
				_ = s.put(e.ctx, key)
			}
			time.Sleep(2 * time.Millisecond) // leaves the machine to the watches
		}
		return nil
	})
	return func() {
		e.Helper()
		stopped.Store(true)
		wait()
	}
}

// forget drops what was written before the last write of each key, which the
// caller has seen to be confirmed and shown.
func (s *scribe) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, log := range s.log {
		s.log[key] = []entry{log[len(log)-1]}
	}
}

// keys returns the keys that were ever written.
func (s *scribe) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.log))
}

// inOrder checks that states of a key, as a watch showed them, come in the order
// in which they were written. 0 stands for the absent key.
func (s *scribe) inOrder(key string, states []int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log[key]
	at, absent := -1, true // where in the log the watch is at the earliest
	for i, state := range states {
		if state == 0 && absent {
			continue
		}
		if state != 0 && !absent && log[at].n == state {
			continue
		}
		found := -1
		for j := at + 1; j < len(log) && found < 0; j++ {
			if state == 0 && log[j].deleted || state != 0 && !log[j].deleted && log[j].n == state {
				found = j
			}
		}
		if found < 0 {
			return fmt.Errorf("state %d of %s goes back, or was never written: …%v", i, key, states[max(0, i-5):i+1])
		}
		at, absent = found, state == 0
	}
	return nil
}
