package testutils

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie/leadership"
)

// beCandidate campaigns until its input ends. It tells its parent when its terms
// begin and when their contexts end, by the clock that all processes share:
//
//	leads TOKEN NANOSECONDS
//	ended TOKEN NANOSECONDS MISSED
//
// where MISSED is for how long the process did not run shortly before.
// A line "resign" makes it resign.
func beCandidate(t *testing.T, s kvstore, key string, ttl time.Duration, more []string) {
	p := startPulse()
	defer p.end()
	require.Len(t, more, 1, "the name")
	c, err := leadership.NewCandidate(s, key, more[0], &leadership.CandidateOptions{TTL: ttl})
	require.NoError(t, err)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- c.Run(ctx, func(ctx context.Context, term leadership.Term) error {
			tell("leads %d %d", term.Token, time.Now().UnixNano())
			<-ctx.Done()
			ended := time.Now()
			tell("ended %d %d %d", term.Token, ended.UnixNano(), p.missed(ended.Add(-5*time.Second)))
			return nil
		})
	}()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if lines.Text() == "resign" {
			c.Resign()
		}
	}
	stop()
	require.ErrorIs(t, <-done, context.Canceled)
}

// electorate is candidates in processes of their own, and who of them led.
type electorate struct {
	r      *rig
	key    string
	living map[string]*child
	said   chan saying
	reigns []*reign // by token
}

// saying is a line of a candidate.
type saying struct{ name, line string }

// reign is a term of one of them.
type reign struct {
	name     string
	token    uint64
	from, to time.Time // to is zero while it lasts
	missed   time.Duration
}

// add starts a candidate.
func (v *electorate) add(name string) {
	v.r.Helper()
	c := v.r.startChild("candidate", v.key, v.r.h.LockTTL, name)
	v.living[name] = c
	go func() {
		for line := range c.answers {
			v.said <- saying{name, line} // has room for all there can be
		}
	}()
}

// leader waits until somebody leads with a greater token than that.
func (v *electorate) leader(after uint64, within time.Duration) *reign {
	v.r.Helper()
	var last *reign
	v.until(within, "a leader", func() bool {
		if n := len(v.reigns); n > 0 {
			last = v.reigns[n-1]
		}
		return last != nil && last.token > after && last.to.IsZero()
	})
	return last
}

// until listens to the candidates until something is so.
func (v *electorate) until(within time.Duration, what string, is func() bool) {
	v.r.Helper()
	timeout := time.After(within)
	for {
		select {
		case s := <-v.said:
			v.note(s)
			continue
		default: // nobody has anything to say
		}
		if is() {
			return
		}
		select {
		case s := <-v.said:
			v.note(s)
		case <-timeout:
			require.FailNow(v.r, "not within "+within.String()+": "+what)
		}
	}
}

// note keeps what a candidate said.
func (v *electorate) note(s saying) {
	v.r.Helper()
	var what string
	var token uint64
	var at, missed int64
	_, err := fmt.Sscan(s.line+" 0", &what, &token, &at, &missed) // the 0 is read for "leads"
	require.NoError(v.r, err, s.line)
	when := time.Unix(0, at)
	if what == "leads" {
		v.reigns = append(v.reigns, &reign{name: s.name, token: token, from: when})
		slices.SortFunc(v.reigns, func(a, b *reign) int { return cmp.Compare(a.token, b.token) })
		return
	}
	for _, one := range v.reigns {
		if one.token == token && (one.to.IsZero() || when.Before(one.to)) { // perhaps it was killed right after that
			one.to, one.missed = when, time.Duration(missed)
		}
	}
}

// kill ends a candidate at once.
func (v *electorate) kill(one *reign) {
	v.r.Helper()
	one.to = time.Now()
	require.NoError(v.r, v.living[one.name].process.Kill())
	delete(v.living, one.name)
}

// retire lets a candidate stop.
func (v *electorate) retire(name string) {
	v.r.Helper()
	require.NoError(v.r, v.living[name].in.Close())
	delete(v.living, name)
}

// check is that no two led at a time, in the order of their tokens.
func (v *electorate) check() {
	v.r.Helper()
	least := time.Duration(-1)
	for i, one := range v.reigns {
		require.False(v.r, one.to.IsZero(), "%s never stopped leading with token %d", one.name, one.token)
		if i == 0 {
			continue
		}
		before := v.reigns[i-1]
		apart := one.from.Sub(before.to)
		require.GreaterOrEqual(v.r, apart+before.missed, time.Duration(0),
			"%s led from token %d on while the context of %s with token %d was alive", one.name, one.token, before.name, before.token)
		if before.missed == 0 && (least < 0 || apart < least) {
			least = apart
		}
	}
	v.r.Logf("%d terms of candidates in processes of their own; at least %v between two", len(v.reigns), least)
}

func electionOfProcesses(r *rig) {
	lockThread(r)
	v := &electorate{r: r, key: r.key("leader"), living: make(map[string]*child), said: make(chan saying, 1000)}
	f := r.follow(r.kv, v.key)
	f.shows("")
	for i := range 5 {
		v.add(fmt.Sprint("node-", i))
	}
	f.shows(v.leader(0, patience).name)

	kills, bound := 3, r.leaderBound()
	if bound > 15*time.Second {
		kills = 1 // such a backend takes its time
	}
	var took []time.Duration
	for range kills {
		pauseFor(r.ctx, 0, r.h.LockTTL)
		old := v.leader(0, patience)
		v.kill(old)
		next := v.leader(old.token, bound)
		took = append(took, next.from.Sub(old.to))
		v.add(old.name) // a node that restarts
		f.shows(next.name)
	}
	r.Logf("TTL %v: after a leader was killed another led within %v", r.h.LockTTL, took)

	old := v.leader(0, patience)
	_, err := fmt.Fprintln(v.living[old.name].in, "resign")
	require.NoError(r, err)
	next := v.leader(old.token, soon)
	require.NotEqual(r, old.name, next.name)

	if kills > 1 { // a process that is stopped, and does not know it when it goes on
		require.NoError(r, suspend(v.living[next.name].process))
		v.leader(next.token, bound)
		require.NoError(r, resume(v.living[next.name].process))
		v.until(soon, "the process that was stopped notices that it leads no more", func() bool { return !next.to.IsZero() })
	}

	// A node that finds nothing but its own key leads again.
	last := v.leader(0, patience)
	for name := range v.living {
		if name != last.name {
			v.retire(name)
		}
	}
	v.kill(last)
	v.add(last.name)
	again := v.leader(last.token, bound)
	require.Equal(r, last.name, again.name)
	f.shows(last.name)
	v.retire(again.name)
	v.until(patience, "the last one stops", func() bool { return !again.to.IsZero() })
	f.shows("")
	f.ends()
	r.becomesFree(r.kv, v.key)
	v.check()
}
