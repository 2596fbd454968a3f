package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/mna/redisc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestATokenIsKeptInTheSlotOfItsLock(t *testing.T) {
	for _, key := range []string{"a", "a/b/c", "{tag}/a", "a{b", "a}b", "a{}b", "a{b}c", "}{", "{{x}}", "{}", "a}b{c}d", "é/{", strings.Repeat("x", 1024)} {
		token := tokenKey(key, true)
		assert.Equal(t, redisc.Slot(key), redisc.Slot(token), "%q in %q", key, token)
		assert.True(t, strings.HasPrefix(token, key+"/.valkeyrie/"), "rights to a prefix cover %q", token)
		assert.True(t, isReserved(token))
	}
}

func TestAddressesThatNodesTell(t *testing.T) {
	for node, want := range map[string]string{
		"10.0.0.2:7001": "10.0.0.2:7001", ":7001": "10.0.0.1:7001", "?:7001": "10.0.0.1:7001", "fd00::2:7001": "[fd00::2]:7001",
	} {
		assert.Equal(t, want, address(node, "10.0.0.1:7000"))
	}
	assert.Equal(t, "[fd00::1]:7001", address(":7001", "[fd00::1]:7000"))
}

// mover moves slots between the nodes of a cluster, as redis-cli --cluster
// reshard does.
type mover struct {
	t     *testing.T
	conns []redis.Conn
	ids   []string
}

func newMover(t *testing.T, r *testserver.RedisServers) *mover {
	t.Helper()
	m := &mover{t: t}
	for _, addr := range r.Endpoints {
		c := raw(t, addr)
		id, err := redis.String(do(t, c, "CLUSTER", "MYID"), nil)
		require.NoError(t, err)
		m.conns, m.ids = append(m.conns, c), append(m.ids, id)
	}
	return m
}

// begin opens the migration of a slot.
func (m *mover) begin(slot, from, to int) {
	do(m.t, m.conns[to], "CLUSTER", "SETSLOT", slot, "IMPORTING", m.ids[from])
	do(m.t, m.conns[from], "CLUSTER", "SETSLOT", slot, "MIGRATING", m.ids[to])
}

// keys moves up to so many keys of a slot, and returns how many it moved.
func (m *mover) keys(r *testserver.RedisServers, slot, from, to, most int) int {
	keys, err := redis.Strings(do(m.t, m.conns[from], "CLUSTER", "GETKEYSINSLOT", slot, most), nil)
	require.NoError(m.t, err)
	if len(keys) == 0 {
		return 0
	}
	host, port, _ := strings.Cut(r.Endpoints[to], ":")
	do(m.t, m.conns[from], "MIGRATE", append([]any{host, port, "", 0, 5000, "KEYS"}, redis.Args{}.AddFlat(keys)...)...)
	return len(keys)
}

// finish ends the migration of a slot and waits until the nodes agree: before
// that, another migration could leave the slot with nobody.
func (m *mover) finish(slot, to int) {
	do(m.t, m.conns[to], "CLUSTER", "SETSLOT", slot, "NODE", m.ids[to])
	for i, c := range m.conns {
		if i != to {
			do(m.t, c, "CLUSTER", "SETSLOT", slot, "NODE", m.ids[to])
		}
	}
	require.Eventually(m.t, func() bool {
		first := m.view(0)
		for i := range m.conns {
			if view := m.view(i); view != first || strings.Contains(view, "[") {
				return false
			}
		}
		return true
	}, 20*time.Second, time.Millisecond)
}

// view is what a node knows of all nodes: epochs and slots.
func (m *mover) view(node int) string {
	nodes, err := redis.String(do(m.t, m.conns[node], "CLUSTER", "NODES"), nil)
	require.NoError(m.t, err)
	var lines []string
	for line := range strings.Lines(nodes) {
		f := strings.Fields(line)
		lines = append(lines, f[0]+" "+strings.Join(f[6:], " "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// owner tells which node has a slot.
func (m *mover) owner(slot int) int {
	ranges, err := redis.Values(do(m.t, m.conns[0], "CLUSTER", "SLOTS"), nil)
	require.NoError(m.t, err)
	for _, r := range ranges {
		parts := r.([]any)
		if parts[0].(int64) <= int64(slot) && int64(slot) <= parts[1].(int64) {
			return slices.Index(m.ids, string(parts[2].([]any)[2].([]byte)))
		}
	}
	m.t.Fatal("nobody has the slot")
	return 0
}

func TestSlotsMoveWhileTheStoreIsUsed(t *testing.T) {
	t.Parallel()
	r := testserver.StartRedisCluster(t, 3)
	ctx := testserver.Within(t, 3*time.Minute)
	s := open(t, r.Endpoints[:1], nil, &Options{Cluster: true, ResyncInterval: time.Hour})
	const keys = 60
	key := func(i int) string { return fmt.Sprintf("moved/%d", i) }
	for i := range keys {
		require.NoError(t, s.Put(ctx, key(i), []byte("0"), nil))
	}
	states, err := s.WatchTree(ctx, "moved", nil)
	require.NoError(t, err)
	require.Len(t, <-states, keys)
	one, err := s.Watch(ctx, key(0), nil)
	require.NoError(t, err)
	seen := latest(one)
	seenAll := make(chan map[string]string, 1)
	seenAll <- nil
	go func() {
		for pairs := range states {
			all := make(map[string]string)
			for _, p := range pairs {
				all[p.Key] = string(p.Value)
			}
			<-seenAll
			seenAll <- all
		}
	}()
	l, err := s.NewLock(ctx, key(1)+"/lock", nil)
	require.NoError(t, err)
	tokens := uint64(0)

	stop := make(chan struct{})
	var using sync.WaitGroup
	use := func(f func(i int) error) {
		using.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(i); !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	last := make([]string, keys) // each written by one goroutine
	use(func(i int) error {
		value := fmt.Sprint(i)
		err := s.Put(ctx, key(i%keys), []byte(value), nil)
		last[i%keys] = value
		return err
	})
	use(func(i int) error { _, err := s.Get(ctx, key(i%keys), nil); return err })
	use(func(int) error {
		pairs, err := s.List(ctx, "moved", nil)
		if err == nil && len(pairs) < keys {
			err = fmt.Errorf("a list has %d of %d keys", len(pairs), keys)
		}
		return err
	})
	use(func(int) error {
		if _, err := l.Lock(ctx); err != nil {
			return err
		}
		if l.Token() <= tokens {
			return fmt.Errorf("token %d after %d", l.Token(), tokens)
		}
		tokens = l.Token()
		return l.Unlock(ctx)
	})
	use(func(i int) error {
		k := fmt.Sprintf("moved-not/%d", i%keys)
		_, p, err := s.AtomicPut(ctx, k, []byte("a"), nil, nil)
		if err == nil {
			_, p, err = s.AtomicPut(ctx, k, []byte("b"), p, nil)
		}
		if err == nil {
			_, err = s.AtomicDelete(ctx, k, p)
		}
		return err
	})

	m := newMover(t, r)
	for round := range 2 {
		for i := range keys {
			for _, k := range []string{key(i), key(1) + "/lock", fmt.Sprintf("moved-not/%d", i)} {
				slot := redisc.Slot(k)
				from := m.owner(slot)
				to := (from + 1 + round) % 3
				m.begin(slot, from, to)
				for m.keys(r, slot, from, to, 1) > 0 { // one by one: the slot is on both nodes for a while
				}
				m.finish(slot, to)
			}
		}
	}
	close(stop)
	using.Wait()
	for i := range keys {
		p, err := s.Get(ctx, key(i), nil)
		require.NoError(t, err)
		assert.Equal(t, last[i], string(p.Value))
	}
	require.Eventually(t, func() bool { return seen() == last[0] }, 20*time.Second, 10*time.Millisecond, "the watch of one key")
	require.Eventually(t, func() bool {
		all := <-seenAll
		seenAll <- all
		for i := range keys {
			if all[key(i)] != last[i] {
				return false
			}
		}
		return true
	}, 20*time.Second, 10*time.Millisecond, "the watch of the tree")
}

func TestAClusterThatCannotHelp(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	stranger := open(t, testserver.RedisCluster(t).Endpoints, &valkeyrie.Config{Username: "nobody", Password: "x"}, &Options{Cluster: true})
	_, err := stranger.Get(ctx, "k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrUnauthorized)
	_, err = stranger.List(ctx, "d", nil)
	require.ErrorIs(t, err, valkeyrie.ErrUnauthorized)

	none := open(t, testserver.Redis(t).Endpoints, nil, &Options{Cluster: true})
	err = none.Put(ctx, "k", nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	require.ErrorContains(t, err, "cluster support disabled")
	require.ErrorContains(t, err, testserver.Redis(t).Endpoints[0], "it says whom it asked")
}

func TestAPrimaryOfAClusterThatIsAwayIsTold(t *testing.T) {
	t.Parallel()
	r := testserver.StartRedisCluster(t, 3)
	ctx := testserver.Within(t, 2*time.Minute)
	s := open(t, r.Endpoints, nil, &Options{Cluster: true})
	for i := range 30 {
		require.NoError(t, s.Put(ctx, fmt.Sprintf("k/%d", i), nil, nil))
	}
	require.NoError(t, r.Members[1].Kill())
	refused := 0
	for i := range 30 {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		switch err := s.Put(call, fmt.Sprintf("k/%d", i), nil, nil); {
		case errors.Is(err, valkeyrie.ErrNotReachable):
			refused++
		case err != nil: // sent before the store had seen that the server is gone
			assert.ErrorIs(t, err, valkeyrie.ErrAmbiguous)
		}
		cancel()
	}
	assert.NotZero(t, refused)
	_, err := s.List(ctx, "k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable, "no list that lacks keys")
	require.NoError(t, r.Members[1].Restart())
	require.Eventually(t, func() bool { // without data: this cluster has no replicas and keeps nothing
		return s.Put(ctx, "k/1", nil, nil) == nil && s.Put(ctx, "k/2", nil, nil) == nil && s.Put(ctx, "k/3", nil, nil) == nil
	}, 30*time.Second, 20*time.Millisecond)
}
