package testutils

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/kvtools/valkeyrie"
)

// recorder keeps what a watch shows.
type recorder struct {
	name string

	mu     sync.Mutex
	states map[string][]int // by key, in order, 0 for absent
	last   map[string]*pair
	seen   int
	ended  error         // not nil when the watch has ended
	done   chan struct{} // closed then
}

func newRecorder(name string) *recorder {
	return &recorder{name: name, states: make(map[string][]int), last: make(map[string]*pair), done: make(chan struct{})}
}

// watch records a Watch in a goroutine of its own.
func (r *recorder) watch(ctx context.Context, s kvstore, key string) error {
	ch, err := s.Watch(ctx, key, nil)
	if err != nil {
		return err
	}
	go func() {
		for p := range ch {
			r.note(p)
		}
		r.end(nil)
	}()
	return nil
}

// watchTree records a WatchTree in a goroutine of its own.
func (r *recorder) watchTree(ctx context.Context, s kvstore, dir string) error {
	ch, err := s.WatchTree(ctx, dir, nil)
	if err != nil {
		return err
	}
	go func() {
		for pairs := range ch {
			r.noteAll(pairs)
		}
		r.end(nil)
	}()
	return nil
}

// events records Events in a goroutine of its own; synced is closed by Synced.
func (r *recorder) events(ctx context.Context, s kvstore, key string, tree bool) (synced <-chan struct{}) {
	begun := make(chan struct{})
	go func() {
		var ended error
		for ev, err := range s.Events(ctx, key, &valkeyrie.WatchOptions{Tree: tree}) {
			switch {
			case err != nil:
				ended = err
			case ev.Type == valkeyrie.Synced:
				close(begun)
			default:
				if ev.Type == valkeyrie.Delete && ev.Pair.Value != nil {
					ended = errors.New("a Delete has a value")
				}
				r.note(ev.Pair)
			}
		}
		r.end(ended)
	}()
	return begun
}

// forget drops all states of each key but the last.
func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, states := range r.states {
		r.states[key] = []int{states[len(states)-1]}
	}
}

// note adds the state of one key.
func (r *recorder) note(p *pair) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen++
	r.add(p)
}

// noteAll adds the state of a whole directory.
func (r *recorder) noteAll(pairs []*pair) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen++
	there := make(map[string]bool)
	for _, p := range pairs {
		there[p.Key] = true
		r.add(p)
	}
	for key := range r.last {
		if !there[key] {
			r.add(&pair{Key: key})
		}
	}
}

// add is note with mu held.
func (r *recorder) add(p *pair) {
	n := 0
	if p.Value != nil {
		n, _ = strconv.Atoi(string(p.Value)) // what is no number was never written, and then goes back
		if n == 0 {
			n = -1
		}
	}
	states := r.states[p.Key]
	if len(states) == 0 || states[len(states)-1] != n {
		r.states[p.Key] = append(states, n)
	}
	if n == 0 {
		delete(r.last, p.Key)
	} else {
		r.last[p.Key] = p
	}
}

// errEnded is the end of a watch that gave no reason.
var errEnded = errors.New("the channel was closed")

// end notes that the watch has ended.
func (r *recorder) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended = err; err == nil {
		r.ended = errEnded
	}
	close(r.done)
}

// is tells whether the last state that was shown is this one.
func (r *recorder) is(want []*pair) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.last) != len(want) {
		return false
	}
	for _, p := range want {
		last := r.last[p.Key]
		if last == nil || last.LastIndex != p.LastIndex || string(last.Value) != string(p.Value) {
			return false
		}
	}
	return true
}

// judge returns how much was shown, and an error if the watch has ended or showed
// a state after a later one.
func (r *recorder) judge(s *scribe) (seen int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err = r.ended
	for key, states := range r.states {
		err = errors.Join(err, s.inOrder(key, states))
	}
	return r.seen, err
}

// String shows the last state, for messages.
func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := fmt.Sprintf("%s after %d steps (ended: %v):", r.name, r.seen, r.ended)
	for _, p := range r.last {
		s += " " + show(p)
	}
	return s
}
