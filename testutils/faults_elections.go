package testutils

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie/internal/faultproxy"
)

var electionFaults = []faultCheck{
	{"one leads at a time, and one leads again, whatever the network and the server do", true, electionOfFaults},
	{"a leader that is killed is followed by another, and by itself when it is back", false, electionOfProcesses},
	{"a leader that is cut off has stopped before another leads, and can lead again", false, electionOfCutOff},
}

// leaderBound is how long after a leader died another leads at the latest.
func (r *rig) leaderBound() time.Duration { return r.h.LockTTL + r.h.CrashBound + soon }

// electionOfFaults has five candidates that start before their server does, and
// lose it for longer than the TTL and then at random.
func electionOfFaults(r *rig) {
	const length = 6 * time.Second
	key := r.key("leader")
	g := holders{pulse: r.pulse}
	require.NoError(r, r.server.Kill())
	var (
		proxies []*faultproxy.Proxy
		all     []*campaign
	)
	for i := range 5 {
		p := r.proxy()
		proxies = append(proxies, p)
		all = append(all, r.campaign(r.through(p, nil), key, fmt.Sprint("node-", i), r.h.LockTTL, &g))
	}
	f := r.follow(r.through(proxies[0], nil), key)
	time.Sleep(pause) // they try
	require.NoError(r, r.server.Restart())
	restarted := time.Now()
	_, t := r.leader(r.leaderBound()+patience, all...)
	r.Logf("the first leader: %v after the server had started", t.began.Sub(restarted))

	require.NoError(r, r.server.Kill())
	r.lost(t, r.h.LockTTL+soon)
	require.NoError(r, r.server.Restart())
	restarted = time.Now()
	_, t = r.leader(r.leaderBound()+patience, all...)
	r.Logf("a leader again: %v after the server had restarted", t.began.Sub(restarted))

	ctx, cancel := context.WithTimeout(r.ctx, length)
	defer cancel()
	quiet := g.terms()
	wait := r.start(len(proxies)+1, func(i int) error {
		if i < len(proxies) {
			return disturb(ctx, proxies[i])
		}
		for pauseFor(ctx, 100*time.Millisecond, 500*time.Millisecond) { // so that there are many terms
			for _, c := range all {
				c.c.Resign()
			}
		}
		return nil
	})
	pauseFor(ctx, length/4, length/2)
	require.NoError(r, r.server.Kill())
	pauseFor(ctx, 0, 300*time.Millisecond)
	require.NoError(r, r.server.Restart())
	wait()
	r.recovers(r.kv)
	r.Logf("%d terms while there were faults", g.terms()-quiet)

	// Nobody has given up: each of them can still be the last one.
	for len(all) > 0 {
		c, _ := r.leader(r.leaderBound()+patience, all...)
		f.shows(c.name)
		c.ends(soon)
		all = slices.DeleteFunc(slices.Clone(all), func(other *campaign) bool { return other == c })
	}
	f.shows("")
	f.ends()
	r.mustBeFree(r.kv, key)
}

// terms returns how many there have been.
func (h *holders) terms() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

func electionOfCutOff(r *rig) {
	for _, i := range []int{0, 2, 4} { // one that is silent each way, one that resets
		o := outages[i]
		r.sub(o.name, func(r *rig) {
			p, key := r.proxy(), r.key("leader")
			g := holders{pulse: r.pulse}
			cut := r.through(p, nil)
			old := r.campaign(cut, key, "old", r.h.LockTTL, &g)
			first := old.leads(patience)
			retired := r.campaign(cut, r.key("other"), "retired", r.h.LockTTL, nil)
			retired.leads(patience)
			direct := []kvstore{r.kv, r.open(nil)}
			var others []*campaign
			for i := range 4 {
				others = append(others, r.campaign(direct[i%2], key, fmt.Sprint("other-", i), r.h.LockTTL, &g))
			}
			pauseFor(r.ctx, pause, r.h.LockTTL) // at any time between two renewals
			o.begin(p)
			began := time.Now()
			retired.ends(soon) // although the network does not let it give back the lock
			_, second := r.leader(r.leaderBound(), others...)
			r.lost(first, soon)
			require.Greater(r, second.token, first.token)
			r.Logf("another leads %v after the leader was cut off", second.began.Sub(began))

			require.NoError(r, restore(p))
			for _, c := range others {
				c.ends(soon)
			}
			old.leads(r.leaderBound() + patience)
			old.ends(soon)
			r.becomesFree(r.kv, key)
		})
	}
}
