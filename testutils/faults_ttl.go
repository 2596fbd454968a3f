package testutils

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var ttlFaults = []faultCheck{
	{"a key that is kept alive outlives an outage shorter than its TTL", false, keepAliveOverOutage},
	{"a key with a TTL expires, and not too early, although the server restarted meanwhile", true, ttlOverRestart},
}

// keepAliveOverOutage leaves between a third of the TTL, at which renewals are
// due, and its end the time that a client needs to notice and to connect again.
func keepAliveOverOutage(r *rig) {
	const ttl, away = 8 * time.Second, 2500 * time.Millisecond
	for _, o := range outages {
		r.sub(o.name, func(r *rig) {
			p, key := r.proxy(), r.key("k")
			s := r.through(p, nil)
			require.NoError(r, s.Put(r.ctx, key, []byte("alive"), &valkeyrie.WriteOptions{TTL: ttl, KeepAlive: true}))
			want := r.get(key)
			pauseFor(r.ctx, 0, ttl/3) // at any time between two renewals
			o.begin(p)
			r.stay(r.kv, away, key)
			require.NoError(r, restore(p))
			r.stay(r.kv, ttl+r.h.CrashBound, key)
			require.Equal(r, want, r.get(key), "renewing is not a write")
		})
	}
}

// ttlOverRestart has keys whose writer lives and keys whose writer is gone.
func ttlOverRestart(r *rig) {
	const ttl = 4 * time.Second
	gone := r.open(nil)
	mortals := []*mortal{
		r.putMortal(r.kv, r.key("alive"), ttl),
		r.putMortal(gone, r.key("gone"), ttl),
		r.putMortal(r.kv, r.key("short"), 300*time.Millisecond),
	}
	require.NoError(r, gone.Close())
	permanent := r.key("permanent")
	r.put(permanent, "v")
	require.NoError(r, r.server.Kill())
	pauseFor(r.ctx, 0, 500*time.Millisecond)
	require.NoError(r, r.server.Restart())
	r.recovers(r.kv)
	// A server may count a TTL anew when it starts.
	for _, m := range mortals {
		m.gone = time.Now().Add(ttl + max(time.Second, r.h.CrashBound))
	}
	r.expire([]kvstore{r.kv}, mortals...)
	require.Equal(r, "v", string(r.get(permanent).Value))
}
