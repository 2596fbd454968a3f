package store

import (
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// deaf is a driver whose calls take a minute whatever becomes of their context.
func deaf() *scripted {
	return &scripted{
		get: func(context.Context, string) (*valkeyrie.KVPair, error) {
			time.Sleep(time.Minute)
			return pair("a", "", 1), nil
		},
		write: func(context.Context, Write) (Written, error) {
			time.Sleep(time.Minute)
			return Written{Revision: 1}, nil
		},
		del: func(context.Context, string, uint64) error { time.Sleep(time.Minute); return nil },
		walk: func(context.Context, string) iter.Seq2[*valkeyrie.KVPair, error] {
			return func(yield func(*valkeyrie.KVPair, error) bool) {
				if yield(pair("a/1", "", 1), nil) {
					time.Sleep(time.Minute)
					yield(pair("a/2", "", 2), nil)
				}
			}
		},
	}
}

// calls are the calls that wait for the server, and whether they write.
func calls(s *front) map[string]struct {
	write bool
	call  func(ctx context.Context) error
} {
	type c = struct {
		write bool
		call  func(ctx context.Context) error
	}
	return map[string]c{
		"Get":        {false, func(ctx context.Context) error { _, err := s.Get(ctx, "a", nil); return err }},
		"Exists":     {false, func(ctx context.Context) error { _, err := s.Exists(ctx, "a", nil); return err }},
		"List":       {false, func(ctx context.Context) error { _, err := s.List(ctx, "a", nil); return err }},
		"Put":        {true, func(ctx context.Context) error { return s.Put(ctx, "a", nil, nil) }},
		"Delete":     {true, func(ctx context.Context) error { return s.Delete(ctx, "a") }},
		"DeleteTree": {true, func(ctx context.Context) error { return s.DeleteTree(ctx, "a") }},
		"AtomicPut":  {true, func(ctx context.Context) error { _, _, err := s.AtomicPut(ctx, "a", nil, nil, nil); return err }},
		"AtomicDelete": {true, func(ctx context.Context) error {
			_, err := s.AtomicDelete(ctx, "a", pair("a", "", 1))
			return err
		}},
	}
}

func TestCallsOfADeafClientReturnWithinTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, deaf(), nil)
		for name, c := range calls(s) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began := time.Now()
			err := c.call(ctx)
			cancel()
			assert.Equal(t, time.Second, time.Since(began), name)
			assert.ErrorIs(t, err, context.DeadlineExceeded, name)
			assert.Equal(t, c.write, errors.Is(err, valkeyrie.ErrAmbiguous), "%s: %v", name, err)
			var op *valkeyrie.OpError
			require.ErrorAs(t, err, &op)
			assert.Equal(t, valkeyrie.OpError{Op: name, Backend: "scripted", Key: "a", Err: op.Err}, *op)
		}
		time.Sleep(2 * time.Minute)
	})
}

func TestCallsThatWaitEndWithClose(t *testing.T) {
	for name, how := range map[string]Contexts{"ignored": ContextsIgnored, "honoured": ContextsHonoured} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := deaf()
				if how == ContextsHonoured {
					d.write = func(ctx context.Context, _ Write) (Written, error) { <-ctx.Done(); return Written{}, ctx.Err() }
				}
				d.info.Contexts = how
				s := open(t, d, nil)
				ended := make(chan error, 1)
				go func() { ended <- s.Put(t.Context(), "a", nil, nil) }()
				synctest.Wait()
				began := time.Now()
				require.NoError(t, s.Close())
				err := <-ended
				assert.ErrorIs(t, err, valkeyrie.ErrClosed)
				assert.ErrorIs(t, err, valkeyrie.ErrAmbiguous)
				assert.Zero(t, time.Since(began))
				for _, c := range calls(s) {
					require.ErrorIs(t, c.call(t.Context()), valkeyrie.ErrClosed)
				}
				require.NoError(t, s.Close())
				time.Sleep(2 * time.Minute)
			})
		})
	}
}

func TestAWalkCanBeLeftAndCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, deaf(), nil)
		for p, err := range s.Walk(t.Context(), "a", nil) {
			require.NoError(t, err)
			assert.Equal(t, "a/1", p.Key)
			break
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var got []string
		var last error
		for p, err := range s.Walk(ctx, "a", nil) {
			if last = err; err == nil {
				got = append(got, p.Key)
			}
		}
		assert.Equal(t, []string{"a/1"}, got)
		assert.ErrorIs(t, last, context.DeadlineExceeded)
		time.Sleep(2 * time.Minute)
	})
}

func TestAHoldThatADeafClientGotLateIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &scriptedHold{token: 1, revision: 1}
		s := open(t, &scripted{lock: func(context.Context, LockRequest) (Hold, error) {
			time.Sleep(time.Minute)
			return h, nil
		}}, nil)
		l, err := s.NewLock(t.Context(), "l", nil)
		require.NoError(t, err)
		_, err = l.Lock(t.Context())
		require.ErrorIs(t, err, valkeyrie.ErrNotReachable, "no answer within Config.ConnectionTimeout")
		time.Sleep(2 * time.Minute)
		assert.Equal(t, 1, h.releases())
	})
}

func TestADefiniteAnswerIsNotBlamedOnTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := open(t, &scripted{info: Info{Contexts: ContextsHonoured}, write: func(context.Context, Write) (Written, error) {
			cancel()
			return Written{}, valkeyrie.ErrKeyExists
		}}, nil)
		_, _, err := s.AtomicPut(ctx, "a", nil, nil, nil)
		require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
		assert.NotErrorIs(t, err, context.Canceled)
		assert.NotErrorIs(t, err, valkeyrie.ErrAmbiguous)
	})
}

func TestAWriteThatWasNotSentIsNotAmbiguousWhenTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := open(t, &scripted{info: Info{Contexts: ContextsHonoured}, write: func(context.Context, Write) (Written, error) {
			cancel()
			return Written{}, valkeyrie.ErrNotReachable
		}}, nil)
		err := s.Put(ctx, "a", nil, nil)
		require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
		require.ErrorIs(t, err, context.Canceled)
		assert.NotErrorIs(t, err, valkeyrie.ErrAmbiguous)
	})
}
