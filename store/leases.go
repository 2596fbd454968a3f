package store

import (
	"context"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
)

const (
	// keysPerLease bounds how many keys one lease takes along when it ends, as the
	// lease manager of the Kubernetes API server does.
	keysPerLease = 1000

	// longestWindow bounds how much longer than its TTL a key may share a lease.
	longestWindow = time.Minute
)

// LeaseWindow is how long one lease is shared between keys of a TTL, which is also
// what such a key may live longer when its writer dies.
func LeaseWindow(ttl time.Duration) time.Duration {
	return min(max(ttl/20, time.Second), longestWindow)
}

// Leases shares leases between keys of the same TTL that are written within a
// short window, so that most writes with a TTL cost what plain ones do. A lease is
// what the server deletes keys along with: a lease of etcd, a session of Consul.
// Nobody renews it: it lasts until the last of its keys has expired. A driver
// fills in the exported fields before the first use.
type Leases[ID any] struct {
	// Group owns the goroutines that ask for leases.
	Group *Group

	// Round returns the TTL of a lease that lasts at least as long.
	Round func(least time.Duration) time.Duration

	// Grant asks the server for a lease of that TTL, on behalf of all who wait for
	// it, and returns how long it lasts after that. A lease without keys changes
	// nothing, so that no error of it is ambiguous.
	Grant func(ttl time.Duration) (id ID, lasts time.Duration, err error)

	mu   sync.Mutex
	open map[time.Duration]*Lease[ID] // by its TTL, the lease that takes more keys
}

// Lease is a lease that keys share.
type Lease[ID any] struct {
	ID ID

	granted chan struct{} // closed when ID and until, or err, are there
	err     error
	until   time.Time // it lasts at least until then
	keys    int       // guarded by Leases.mu
}

// Get returns a lease that lasts for at least ttl from now. After an error nothing
// was asked for, or nothing came of it.
func (l *Leases[ID]) Get(ctx context.Context, ttl time.Duration) (*Lease[ID], error) {
	rounded := l.Round(ttl + LeaseWindow(ttl))
	for {
		lease, err := l.enter(rounded, ttl)
		if err != nil {
			return nil, err
		}
		select {
		case <-lease.granted:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if lease.err != nil {
			return nil, lease.err
		}
		if time.Until(lease.until) >= ttl {
			return lease, nil
		}
		l.Forget(lease)
	}
}

// enter takes a place for a key on the lease of that rounded TTL.
func (l *Leases[ID]) enter(rounded, ttl time.Duration) (*Lease[ID], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lease := l.open[rounded]
	if lease == nil || lease.spent(ttl) {
		lease = &Lease[ID]{granted: make(chan struct{})}
		if !l.Group.Go(func() { l.grant(lease, rounded) }) {
			return nil, valkeyrie.ErrClosed
		}
		if l.open == nil {
			l.open = make(map[time.Duration]*Lease[ID])
		}
		l.open[rounded] = lease
	}
	lease.keys++
	return lease, nil
}

// spent tells whether a lease takes no more keys of this TTL; Leases.mu is held.
func (s *Lease[ID]) spent(ttl time.Duration) bool {
	select {
	case <-s.granted:
		return s.err != nil || s.keys >= keysPerLease || time.Until(s.until) < ttl
	default:
		return s.keys >= keysPerLease
	}
}

func (l *Leases[ID]) grant(lease *Lease[ID], rounded time.Duration) {
	defer close(lease.granted)
	sent := time.Now()
	var lasts time.Duration
	lease.ID, lasts, lease.err = l.Grant(rounded)
	if lease.err != nil {
		l.Forget(lease)
		return
	}
	lease.until = sent.Add(lasts)
}

// Forget takes a lease out of use, as the server does not know it any more; its
// keys keep it.
func (l *Leases[ID]) Forget(lease *Lease[ID]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ttl, open := range l.open {
		if open == lease {
			delete(l.open, ttl)
		}
	}
}
