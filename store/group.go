package store

import "sync"

// Group owns goroutines: who started them can refuse further ones and wait for
// the end of all. The zero value is ready to use. Drivers use it for what they
// do in the background.
type Group struct {
	mu      sync.Mutex
	stopped bool
	running sync.WaitGroup
}

// Go runs f in a goroutine; false, and f does not run, after Stop.
func (g *Group) Go(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return false
	}
	g.running.Go(f)
	return true
}

// Stop makes Go refuse from now on; false when it did already.
func (g *Group) Stop() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := !g.stopped
	g.stopped = true
	return first
}

// Wait waits until every f has returned. Call Stop first.
func (g *Group) Wait() { g.running.Wait() }
