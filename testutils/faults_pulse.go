package testutils

import (
	"sync"
	"time"
)

// pulse notices when this process did not run for a while, as happens on a busy
// machine: what was late then is no proof of anything.
type pulse struct {
	stop chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	gaps []gap // the large ones, the latest last
}

// gap is a time in which the process did not run.
type gap struct {
	until time.Time
	long  time.Duration
}

const (
	beat    = 5 * time.Millisecond
	missing = 20 * time.Millisecond // a beat that is later than that is a gap
)

// startPulse starts one; end must be called.
func startPulse() *pulse {
	p := &pulse{stop: make(chan struct{})}
	p.done.Go(func() {
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-tick.C:
			case <-p.stop:
				return
			}
			now := time.Now()
			if d := now.Sub(last); d > missing {
				p.mu.Lock()
				p.gaps = append(p.gaps, gap{now, d})
				p.mu.Unlock()
			}
			last = now
		}
	})
	return p
}

func (p *pulse) end() {
	close(p.stop)
	p.done.Wait()
}

// missed returns for how long altogether the process did not run since then; 0
// of a nil pulse.
func (p *pulse) missed(since time.Time) time.Duration {
	if p == nil {
		return 0
	}
	time.Sleep(2 * beat) // a gap that ends now has to be noticed first
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum time.Duration
	for _, g := range p.gaps {
		if g.until.After(since) {
			sum += g.long
		}
	}
	return sum
}
