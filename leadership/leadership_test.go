package leadership

import (
	"context"
	"errors"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/memory"
)

// The tests of this package run on the memory store, in the time of synctest,
// and show what happens when a store fails in a certain way. What holds on real
// servers, and in spite of networks and processes that fail, is tested with each
// backend: testutils.Run and testutils.RunFaults have elections.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	election = "service/leader"
	ttl      = 10 * time.Second
)

// inBubble runs a test on a store of its own in faked time.
func inBubble(t *testing.T, f func(t *testing.T, kv *failing)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := memory.New(nil, nil, nil)
		require.NoError(t, err)
		defer s.Close()
		f(t, &failing{Store: s})
	})
}

// failing is a store whose locks and watches fail as often as a test wants.
type failing struct {
	valkeyrie.Store

	mu     sync.Mutex
	lock   []error // what the next calls of Lock return
	events []error // how the next watches end at once
	broken error   // how all watches end that there are, and what reads return
	breaks chan struct{}
}

// next takes the first error of a list.
func (s *failing) next(list *[]error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(*list) == 0 {
		return nil
	}
	err := (*list)[0]
	*list = (*list)[1:]
	return err
}

// breakWatches ends all watches; while is how reads fail from now on.
func (s *failing) breakWatches(why, while error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, why)
	s.broken = while
	if s.breaks != nil {
		close(s.breaks)
		s.breaks = nil
	}
}

func (s *failing) Get(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	s.mu.Lock()
	err := s.broken
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, key, opts)
}

func (s *failing) Events(ctx context.Context, key string, opts *valkeyrie.WatchOptions) iter.Seq2[valkeyrie.Event, error] {
	return func(yield func(valkeyrie.Event, error) bool) {
		if err := s.next(&s.events); err != nil {
			yield(valkeyrie.Event{}, err)
			return
		}
		s.mu.Lock()
		if s.breaks == nil {
			s.breaks = make(chan struct{})
		}
		breaks := s.breaks
		s.mu.Unlock()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-breaks:
				cancel()
			case <-ctx.Done():
			}
		}()
		for e, err := range s.Store.Events(ctx, key, opts) {
			if !yield(e, err) {
				return
			}
		}
		select {
		case <-breaks:
			yield(valkeyrie.Event{}, s.next(&s.events))
		default:
		}
	}
}

func (s *failing) NewLock(ctx context.Context, key string, opts *valkeyrie.LockOptions) (valkeyrie.Locker, error) {
	l, err := s.Store.NewLock(ctx, key, opts)
	return &failingLock{l, s}, err
}

type failingLock struct {
	valkeyrie.Locker
	s *failing
}

func (l *failingLock) Lock(ctx context.Context) (<-chan struct{}, error) {
	if err := l.s.next(&l.s.lock); err != nil {
		return nil, err
	}
	return l.Locker.Lock(ctx)
}

// candidate makes one.
func candidate(t *testing.T, kv valkeyrie.Store, name string) *Candidate {
	t.Helper()
	c, err := NewCandidate(kv, election, name, &CandidateOptions{TTL: ttl})
	require.NoError(t, err)
	return c
}

// reign is a campaign in another goroutine, by a leader who leads until its
// context ends.
type reign struct {
	terms  chan context.Context // those that have begun
	stop   context.CancelFunc
	result chan error
	tokens []uint64 // of the terms; read after they were received
}

func campaign(t *testing.T, c *Candidate) *reign {
	ctx, stop := context.WithCancel(t.Context())
	r := &reign{terms: make(chan context.Context, 100), stop: stop, result: make(chan error, 1)}
	go func() {
		r.result <- c.Run(ctx, func(ctx context.Context, term Term) error {
			r.tokens = append(r.tokens, term.Token)
			r.terms <- ctx
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	return r
}

// leads waits until a term begins.
func (r *reign) leads(t *testing.T, within time.Duration) context.Context {
	t.Helper()
	select {
	case ctx := <-r.terms:
		return ctx
	case err := <-r.result:
		require.FailNow(t, "the campaign ended", "%v", err)
	case <-time.After(within):
		require.FailNow(t, "does not lead within "+within.String())
	}
	panic("not reached")
}

// ends stops the campaign and waits for it.
func (r *reign) ends(t *testing.T) {
	t.Helper()
	r.stop()
	select {
	case err := <-r.result:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(time.Second):
		require.FailNow(t, "the campaign does not stop")
	}
}

// free checks that nothing is left of an election.
func free(t *testing.T, kv valkeyrie.Store) {
	t.Helper()
	exists, err := kv.Exists(context.Background(), election, nil)
	require.NoError(t, err)
	assert.False(t, exists, "the key is left behind")
	l, err := kv.NewLock(context.Background(), election, nil)
	require.NoError(t, err)
	_, err = l.TryLock(context.Background())
	require.NoError(t, err, "the election is held")
	require.NoError(t, l.Unlock(context.Background()))
}

func TestArgumentsAreChecked(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		_, err := NewCandidate(kv, election, "", nil)
		require.ErrorIs(t, err, valkeyrie.ErrInvalidOption)
		_, err = NewCandidate(kv, "a/../b", "n", nil)
		require.ErrorIs(t, err, valkeyrie.ErrInvalidKey)
		_, err = NewCandidate(kv, election, "n", &CandidateOptions{TTL: -1})
		require.ErrorIs(t, err, valkeyrie.ErrInvalidOption)
		for name, err := range NewFollower(kv, "", nil).Leaders(t.Context()) {
			require.Empty(t, name)
			require.ErrorIs(t, err, valkeyrie.ErrInvalidKey)
		}
	})
}

var errOther = errors.New("an error of a client that nobody has foreseen")
