package consul

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// The front deletes a key when its TTL is over, at the revision that was written.
// A session that lasts as long is there for the case that this process dies.

const (
	// keysPerSession bounds how many keys one session takes along when it ends:
	// Consul deletes them in one step.
	keysPerSession = 1000

	// maxWindow bounds how much longer than its TTL a key may share a session.
	maxWindow = time.Minute
)

// sharedSessions shares sessions between keys of the same TTL that are written
// within a short window, so that most writes with a TTL cost what plain ones do.
// Nobody renews them: each lasts until the last of its keys has expired.
type sharedSessions struct {
	d  *driver
	mu sync.Mutex
	// open has, for each TTL of a session, the one that takes more keys.
	open map[time.Duration]*sharedSession
}

// sharedSession is a session; made is closed when it or err is there.
type sharedSession struct {
	made  chan struct{}
	err   error
	id    string
	until time.Time // it lasts at least until then
	keys  int       // guarded by sharedSessions.mu
}

// window is how long one session is shared for keys of a TTL: what they may live
// longer when their writer dies.
func window(ttl time.Duration) time.Duration {
	return min(max(ttl/20, time.Second), maxWindow)
}

// write writes a key that belongs to a session which others may share.
func (s *sharedSessions) write(ctx context.Context, w store.Write) (uint64, error) {
	if w.TTL > maxSessionTTL-window(w.TTL) {
		// No session lasts as long, and one that ends earlier would take along
		// what its writer's death must not shorten.
		return s.d.put(ctx, w, "")
	}
	index, err := retryRefused(ctx, func() (uint64, error) {
		session, err := s.get(ctx, w.TTL)
		if err != nil {
			return 0, err
		}
		index, err := s.d.put(ctx, w, session.id)
		if errors.Is(err, errLockRefused) { // nothing was written
			ended, look := s.d.sessionEnded(ctx, session.id)
			if look != nil {
				return 0, look
			}
			if ended { // by somebody else
				s.forget(session)
			}
		}
		return index, err
	})
	if errors.Is(err, errLockRefused) {
		return s.d.put(ctx, w, "") // this process times the key anyway
	}
	return index, err
}

// get returns a session that lasts for at least ttl from now.
func (s *sharedSessions) get(ctx context.Context, ttl time.Duration) (*sharedSession, error) {
	lasting := s.d.sessionTTL(ttl + window(ttl))
	for {
		s.mu.Lock()
		session := s.open[lasting]
		if session == nil || session.spent(ttl) {
			session = &sharedSession{made: make(chan struct{})}
			if !s.d.running.Go(func() { s.make(session, lasting) }) {
				s.mu.Unlock()
				return nil, valkeyrie.ErrClosed
			}
			if s.open == nil {
				s.open = make(map[time.Duration]*sharedSession)
			}
			s.open[lasting] = session
		}
		session.keys++
		s.mu.Unlock()

		select {
		case <-session.made:
		case <-ctx.Done():
			return nil, ctx.Err() // nothing was written
		}
		if session.err != nil {
			return nil, session.err
		}
		if time.Until(session.until) >= ttl {
			return session, nil
		}
		s.forget(session)
	}
}

// spent tells whether a session takes no more keys of this TTL; sharedSessions.mu
// is held.
func (s *sharedSession) spent(ttl time.Duration) bool {
	select {
	case <-s.made:
		return s.err != nil || s.keys >= keysPerSession || time.Until(s.until) < ttl
	default:
		return s.keys >= keysPerSession
	}
}

// make asks for a session on behalf of all who wait for it.
func (s *sharedSessions) make(session *sharedSession, lasting time.Duration) {
	defer close(session.made)
	sent := time.Now()
	session.id, session.err = s.d.createSession(s.d.ctx, "TTL", lasting)
	if session.err != nil {
		s.forget(session)
		return
	}
	session.until = sent.Add(lasting)
}

// forget takes a session out of use; its keys keep it.
func (s *sharedSessions) forget(session *sharedSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for lasting, open := range s.open {
		if open == session {
			delete(s.open, lasting)
		}
	}
}
