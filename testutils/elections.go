package testutils

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/leadership"
)

// Package leadership has no code for a backend: what it promises follows from
// the contract. These checks hold each backend to it.
var electionChecks = []check{
	{"of five candidates one leads at a time, and tokens grow", electionExcludes},
	{"who stops or resigns is followed promptly", electionHandOver},
	{"a leader whose key is deleted or overwritten has lost, and campaigns again", electionDeposed},
	{"a candidate stops at any moment and leaves nothing behind", electionStops},
	{"a restarted node waits no longer than the TTL for its own key", electionOfRestarted},
	{"a follower is told who leads, and none", electionFollowed},
}

// campaign is a candidate that runs in a goroutine of its own.
type campaign struct {
	e     *env
	name  string
	c     *leadership.Candidate
	stop  context.CancelFunc
	ended chan error // what Run returned, or what the holders found
	term  atomic.Pointer[term]
}

// term is a time in which a candidate leads.
type term struct {
	token uint64
	ctx   context.Context
	began time.Time
}

func (t *term) Token() uint64 { return t.token }

// campaign starts a candidate who leads until his term ends. g, who guards what
// the leaders do, may be nil.
func (e *env) campaign(kv kvstore, key, name string, ttl time.Duration, g *holders) *campaign {
	e.Helper()
	c, err := leadership.NewCandidate(kv, key, name, &leadership.CandidateOptions{TTL: ttl})
	require.NoError(e, err)
	ctx, stop := context.WithCancel(e.ctx)
	e.Cleanup(stop)
	r := &campaign{e: e, name: name, c: c, stop: stop, ended: make(chan error, 1)}
	go func() {
		var broken error
		err := c.Run(ctx, func(ctx context.Context, now leadership.Term) error {
			t := &term{now.Token, ctx, time.Now()}
			r.term.Store(t)
			if g != nil {
				broken = errors.Join(broken, g.enter(t, ctx.Done()))
				defer g.leave(t)
			}
			<-ctx.Done()
			return nil
		})
		if broken == nil && !errors.Is(err, context.Canceled) {
			broken = fmt.Errorf("the campaign of %s ended: %w", name, err)
		}
		r.ended <- broken
	}()
	return r
}

// leading returns the present term of the candidate, nil when he does not lead.
func (r *campaign) leading() *term {
	if t := r.term.Load(); t != nil && t.ctx.Err() == nil {
		return t
	}
	return nil
}

// leads waits until the candidate leads.
func (r *campaign) leads(within time.Duration) *term {
	r.e.Helper()
	_, t := r.e.leader(within, r)
	return t
}

// leader waits until one of the candidates leads.
func (e *env) leader(within time.Duration, of ...*campaign) (r *campaign, t *term) {
	e.Helper()
	e.eventually(within, "a leader", func() bool {
		for _, r = range of {
			if t = r.leading(); t != nil {
				return true
			}
		}
		return false
	})
	return r, t
}

// ends stops the candidate and checks how its campaign went.
func (r *campaign) ends(within time.Duration) {
	r.e.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		require.NoError(r.e, err)
	case <-time.After(within):
		require.FailNow(r.e, "the candidate "+r.name+" does not stop within "+within.String())
	}
}

// lost checks that a term ends because it was lost.
func (e *env) lost(t *term, within time.Duration) {
	e.Helper()
	closes(e, t.ctx.Done(), within, "the term's context")
	require.ErrorIs(e, context.Cause(t.ctx), leadership.ErrLost)
}

func electionExcludes(e *env) {
	key, kvs := e.key("leader"), []kvstore{e.kv, e.open(nil), e.open(nil)}
	var g holders
	var inside guarded
	e.start(5, func(i int) error {
		c, err := leadership.NewCandidate(kvs[i%len(kvs)], key, "same", nil)
		if err != nil {
			return err
		}
		for range 3 {
			err := c.Run(e.ctx, func(ctx context.Context, now leadership.Term) error {
				t := &term{token: now.Token}
				defer g.leave(t)
				return errors.Join(g.enter(t, ctx.Done()), inside.enter())
			})
			if err != nil {
				return err
			}
		}
		return nil
	})()
	require.EqualValues(e, 15, inside.count.Load(), "counts were lost")
	require.Equal(e, 15, g.count)
	e.mustBeFree(e.kv, key)
}

// electionHandOver has terms with a TTL that is too long to be waited for.
func electionHandOver(e *env) {
	key := e.key("leader")
	a := e.campaign(e.kv, key, "a", 0, nil)
	first := a.leads(patience)
	b := e.campaign(e.open(nil), key, "b", 0, nil)
	time.Sleep(pause) // b gets in line, which nothing shows
	a.c.Resign()
	closes(e, first.ctx.Done(), soon, "the term of who resigned")
	require.ErrorIs(e, context.Cause(first.ctx), leadership.ErrResigned)
	second := b.leads(soon)
	require.Greater(e, second.token, first.token)
	require.NoError(e, e.ctx.Err())

	time.Sleep(leadershipPause + pause) // a campaigns again
	require.Nil(e, a.leading())
	b.ends(soon)
	third := a.leads(soon)
	require.Greater(e, third.token, second.token)
	a.ends(soon)
	e.mustBeFree(e.kv, key)
}

// leadershipPause is how long a candidate that resigned lets others go first.
const leadershipPause = time.Second

func electionDeposed(e *env) {
	key, other := e.key("leader"), e.open(nil)
	c := e.campaign(e.kv, key, "a", 0, nil)
	first := c.leads(patience)
	require.NoError(e, other.Delete(e.ctx, key))
	e.lost(first, soon)
	second := c.leads(soon)
	require.Greater(e, second.token, first.token)

	require.NoError(e, other.Put(e.ctx, key, []byte("usurper"), nil))
	e.lost(second, soon)
	for end := time.Now().Add(pause); time.Now().Before(end); time.Sleep(pause / 10) {
		require.Nil(e, c.leading(), "leads although somebody else holds the key")
	}
	require.Equal(e, "usurper", string(e.get(key).Value))
	require.NoError(e, other.Delete(e.ctx, key))
	third := c.leads(soon)
	require.Greater(e, third.token, second.token)
	c.ends(soon)
	e.mustBeFree(other, key)
}

func electionStops(e *env) {
	key := e.key("leader")
	leader := e.campaign(e.kv, key, "leader", 0, nil)
	leader.leads(patience)
	for i, kv := range []kvstore{e.kv, e.open(nil)} {
		early := e.campaign(kv, key, fmt.Sprint("early ", i), 0, nil)
		early.ends(soon)
		waiting := e.campaign(kv, key, fmt.Sprint("waiting ", i), 0, nil)
		time.Sleep(pause) // it gets in line
		waiting.ends(soon)
		require.Nil(e, waiting.term.Load())
	}
	require.NotNil(e, leader.leading())
	leader.ends(soon)
	e.mustBeFree(e.kv, key)
}

// electionOfRestarted finds what a node of the same name left that died.
func electionOfRestarted(e *env) {
	key, ttl := e.key("leader"), e.h.LockTTL
	put := time.Now()
	require.NoError(e, e.kv.Put(e.ctx, key, []byte("node"), &valkeyrie.WriteOptions{TTL: ttl}))
	c := e.campaign(e.open(nil), key, "node", ttl, nil)
	t := c.leads(ttl + e.h.CrashBound + soon)
	require.GreaterOrEqual(e, t.began.Sub(put), ttl, "it may still live")
	c.ends(soon)
	e.mustBeFree(e.kv, key)
}

func electionFollowed(e *env) {
	key := e.key("leader")
	f := e.follow(e.open(nil), key)
	f.shows("")
	for _, name := range []string{"a", "b"} {
		c := e.campaign(e.kv, key, name, 0, nil)
		f.shows(name)
		c.ends(soon)
		f.shows("")
	}
	c := e.campaign(e.kv, key, "last", 0, nil)
	f.shows("last")
	e.follow(e.kv, key).shows("last")
	name, err := leadership.NewFollower(e.open(nil), key, nil).Leader(e.ctx)
	require.NoError(e, err)
	require.Equal(e, "last", name)
	f.ends()
	c.ends(soon)
}

// following is a follower that runs in a goroutine of its own.
type following struct {
	e     *env
	stop  context.CancelFunc
	last  atomic.Pointer[string]
	ended chan error
}

func (e *env) follow(kv kvstore, key string) *following {
	ctx, stop := context.WithCancel(e.ctx)
	e.Cleanup(stop)
	f := &following{e: e, stop: stop, ended: make(chan error, 1)}
	go func() {
		var last error
		for name, err := range leadership.NewFollower(kv, key, nil).Leaders(ctx) {
			last = err
			f.last.Store(&name)
		}
		f.ended <- last
	}()
	return f
}

// shows waits until the follower shows this leader.
func (f *following) shows(name string) {
	f.e.Helper()
	f.e.eventually(patience, "the follower shows "+fmt.Sprintf("%q", name), func() bool {
		last := f.last.Load()
		return last != nil && *last == name
	})
}

// ends stops the follower.
func (f *following) ends() {
	f.e.Helper()
	f.stop()
	require.NoError(f.e, receive(f.e, f.ended, "the end of the follower"))
}
