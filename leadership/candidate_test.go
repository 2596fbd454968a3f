package leadership

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

func TestAnErrorDoesNotEndTheCampaign(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		kv.lock = []error{
			valkeyrie.ErrNotReachable, valkeyrie.ErrAmbiguous, context.DeadlineExceeded, errOther,
			&valkeyrie.OpError{Err: errOther}, errOther, errOther, errOther, errOther, errOther,
		}
		began := time.Now()
		r := campaign(t, candidate(t, kv, "a"))
		r.leads(t, time.Minute)
		took := time.Since(began)
		assert.GreaterOrEqual(t, took, 10*time.Second, "it does not bother a store that fails at short intervals")
		assert.LessOrEqual(t, took, 10*longestPause)

		// After a success the pauses are short again.
		kv.lock = []error{errOther}
		began = time.Now()
		require.NoError(t, kv.Delete(t.Context(), election))
		r.leads(t, time.Minute)
		assert.LessOrEqual(t, time.Since(began), firstPause)
		r.ends(t)
		free(t, kv)
	})
}

func TestAnErrorThatNoRetryCanMendIsReturned(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		kv.lock = []error{&valkeyrie.OpError{Err: valkeyrie.ErrUnauthorized}}
		r := campaign(t, candidate(t, kv, "a"))
		require.ErrorIs(t, <-r.result, valkeyrie.ErrUnauthorized)

		r = campaign(t, candidate(t, kv, "a"))
		term := r.leads(t, time.Second)
		require.NoError(t, kv.Close())
		require.ErrorIs(t, <-r.result, valkeyrie.ErrClosed)
		require.ErrorIs(t, context.Cause(term), ErrLost)
	})
}

func TestACandidateCanBeStoppedWhenItDoesNotLead(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		leader := campaign(t, candidate(t, kv, "a"))
		term := leader.leads(t, time.Second)

		waiting := campaign(t, candidate(t, kv, "b"))
		synctest.Wait()
		waiting.ends(t)
		assert.Empty(t, waiting.terms)

		kv.lock = []error{errOther, errOther, errOther, errOther, errOther, errOther, errOther}
		failing := campaign(t, candidate(t, kv, "c"))
		time.Sleep(time.Second) // it is in one of its pauses
		failing.ends(t)

		notStarted := campaign(t, candidate(t, kv, "d"))
		notStarted.ends(t)

		require.NoError(t, term.Err(), "the leader leads on")
		leader.ends(t)
		free(t, kv)
	})
}

func TestACancelledContextDoesNotPreventResigning(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		a, b := campaign(t, candidate(t, kv, "a")), (*reign)(nil)
		a.leads(t, time.Second)
		b = campaign(t, candidate(t, kv, "b"))
		synctest.Wait()
		began := time.Now()
		a.ends(t)
		b.leads(t, time.Second)
		assert.Less(t, time.Since(began), 100*time.Millisecond, "the lock was given back and did not expire")
		b.ends(t)
		free(t, kv)
	})
}

func TestARestartedNodeIsNotBlockedByItsOwnKey(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		// What is left of a leader of the same name that died.
		require.NoError(t, kv.Put(t.Context(), election, []byte("a"), &valkeyrie.WriteOptions{TTL: ttl}))
		began := time.Now()
		r := campaign(t, candidate(t, kv, "a"))
		r.leads(t, ttl+time.Second)
		assert.GreaterOrEqual(t, time.Since(began), ttl, "it may still live")
		r.ends(t)
		free(t, kv)
	})
}

func TestTheContextOfALostTermEndsAndTheCampaignGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		c := candidate(t, kv, "a")
		r := campaign(t, c)
		for range 3 {
			term := r.leads(t, time.Second)
			now, leads := c.Term()
			require.True(t, leads)
			require.NotZero(t, now.Token)
			require.NoError(t, kv.Delete(t.Context(), election))
			<-term.Done()
			require.ErrorIs(t, context.Cause(term), ErrLost)
		}
		r.leads(t, time.Second)
		require.Len(t, r.tokens, 4)
		for i := range r.tokens[1:] {
			require.Greater(t, r.tokens[i+1], r.tokens[i])
		}
		require.NoError(t, kv.Put(t.Context(), election, []byte("usurper"), nil))
		synctest.Wait()
		_, leads := c.Term()
		require.False(t, leads)
		r.ends(t)
		p, err := kv.Get(t.Context(), election, nil)
		require.NoError(t, err)
		require.Equal(t, "usurper", string(p.Value), "what is not its own is left alone")
	})
}

func TestOneLeadsAtATimeAndTokensGrow(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		ctx, stop := context.WithCancel(t.Context())
		var leading, terms int // what the election guards
		var last uint64
		results := make(chan error, 5)
		for range 5 {
			c := candidate(t, kv, "same name")
			go func() {
				results <- c.Run(ctx, func(ctx context.Context, term Term) error {
					leading++
					terms++
					assert.Equal(t, 1, leading, "leaders at a time")
					assert.Greater(t, term.Token, last)
					last = term.Token
					sleep(ctx, 100*time.Millisecond)
					c.Resign()
					<-ctx.Done()
					if errors.Is(context.Cause(ctx), ErrResigned) {
						time.Sleep(50 * time.Millisecond) // it takes its time to stop
					}
					leading--
					return nil
				})
			}()
		}
		time.Sleep(15*time.Second + time.Millisecond)
		stop()
		for range 5 {
			require.ErrorIs(t, <-results, context.Canceled)
		}
		assert.InDelta(t, 67, terms, 3, "15 s of hand-overs after 150 ms and, between 5 candidates, a second's pause")
		free(t, kv)
	})
}

func TestWhoResignsLetsOthersGoFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		c := candidate(t, kv, "a")
		c.Resign() // does not lead: no effect
		a := campaign(t, c)
		term := a.leads(t, time.Second)
		b := campaign(t, candidate(t, kv, "b"))
		synctest.Wait()
		c.Resign()
		<-term.Done()
		require.ErrorIs(t, context.Cause(term), ErrResigned)
		next := b.leads(t, 100*time.Millisecond)
		time.Sleep(3 * afterResigning)
		require.NoError(t, next.Err())
		b.ends(t)
		a.leads(t, time.Second) // it campaigns again by itself

		began := time.Now()
		c.Resign()
		a.leads(t, time.Minute)
		assert.InDelta(t, afterResigning, time.Since(began), float64(100*time.Millisecond), "nobody else wants to")
		c.Resign()
		time.Sleep(afterResigning / 2)
		a.ends(t)
		free(t, kv)
	})
}

func TestWhatLeadReturns(t *testing.T) {
	failed := errors.New("the leader's own error")
	for name, c := range map[string]struct {
		before func(kv *failing, c *Candidate, stop func())
		lead   error
		want   error // nil: it campaigns again
	}{
		"an error while it leads ends Run":                {nil, failed, failed},
		"an error after it was stopped is not swallowed":  {func(_ *failing, _ *Candidate, stop func()) { stop() }, failed, failed},
		"nil after it was stopped is the context's error": {func(_ *failing, _ *Candidate, stop func()) { stop() }, nil, context.Canceled},
		"an error after a loss does not end Run": {func(kv *failing, _ *Candidate, _ func()) {
			_ = kv.Delete(context.Background(), election)
			synctest.Wait()
		}, failed, nil},
		"an error after it resigned does not end Run": {func(_ *failing, c *Candidate, _ func()) { c.Resign() }, failed, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, kv *failing) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				one := candidate(t, kv, "a")
				terms := 0
				again := errors.New("the second term")
				err := one.Run(ctx, func(context.Context, Term) error {
					if terms++; terms > 1 {
						return again
					}
					if c.before != nil {
						c.before(kv, one, stop)
					}
					return c.lead
				})
				if c.want == nil {
					c.want = again
				}
				require.ErrorIs(t, err, c.want)
				free(t, kv)
			})
		})
	}
	inBubble(t, func(t *testing.T, kv *failing) {
		require.NoError(t, candidate(t, kv, "a").Run(t.Context(), func(context.Context, Term) error { return nil }),
			"who has done what there was to do returns nil")
		free(t, kv)
	})
}

func TestTheLockIsGivenBackAfterLeadReturnedAndNotBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		ctx, stop := context.WithCancel(t.Context())
		result := make(chan error, 1)
		leads := make(chan bool)
		a := candidate(t, kv, "a")
		go func() {
			result <- a.Run(ctx, func(ctx context.Context, _ Term) error {
				leads <- true
				<-ctx.Done()
				time.Sleep(5 * ttl) // much too long, and still nobody else leads
				return nil
			})
		}()
		<-leads
		b := campaign(t, candidate(t, kv, "b"))
		stop()
		time.Sleep(4 * ttl)
		require.Empty(t, b.terms)
		_, still := a.Term()
		require.False(t, still, "it is expected to stop")
		b.leads(t, 2*ttl)
		require.ErrorIs(t, <-result, context.Canceled)
		b.ends(t)
	})
}

func TestALeaderThatPanicsGivesTheLockBack(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		c := candidate(t, kv, "a")
		require.PanicsWithValue(t, "as asked", func() {
			_ = c.Run(t.Context(), func(context.Context, Term) error { panic("as asked") })
		})
		free(t, kv)
		r := campaign(t, c) // and can be used again
		r.leads(t, time.Second)
		r.ends(t)
	})
}

func TestACandidateRunsOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		c := candidate(t, kv, "a")
		r := campaign(t, c)
		r.leads(t, time.Second)
		require.ErrorIs(t, c.Run(t.Context(), nil), errRunning)
		elected, errs := c.RunForElection(t.Context())
		_, open := <-elected
		require.False(t, open)
		require.ErrorIs(t, <-errs, errRunning)
		r.ends(t)
		r = campaign(t, c)
		r.leads(t, time.Second)
		r.ends(t)
		free(t, kv)
	})
}
