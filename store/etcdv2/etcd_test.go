package etcdv2

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	client "go.etcd.io/etcd/client/v2"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/faultproxy"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestOtherToolsReadAndWriteTheSame(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.EtcdV2(t)
	s, keys := open(t, server.Endpoints, &valkeyrie.Config{Prefix: "tools"}, nil), raw(t, server.Endpoints...)
	require.NoError(t, s.Put(ctx, "a/b", []byte("text"), nil))
	r, err := keys.Get(ctx, "/tools/a/b", nil)
	require.NoError(t, err)
	assert.Equal(t, "text", r.Node.Value)
	p, err := s.Get(ctx, "a/b", nil)
	require.NoError(t, err)
	assert.Equal(t, r.Node.ModifiedIndex, p.LastIndex)

	tree, err := s.WatchTree(ctx, "", nil)
	require.NoError(t, err)
	assert.Len(t, <-tree, 1)
	for _, path := range []string{"/tools/a/c", "/tools/_hidden", "/tools/a/_b/c"} {
		_, err = keys.Set(ctx, path, path, nil)
		require.NoError(t, err)
	}
	_, err = keys.Set(ctx, "/tools/empty", "", &client.SetOptions{Dir: true})
	require.NoError(t, err)
	require.NoError(t, s.Put(ctx, "z", nil, nil))
	want := []string{"a/b", "a/c", "z"}
	for pairs := range tree {
		if got := keysOf(pairs); len(got) >= len(want) {
			require.Equal(t, want, got, "what etcd hides is not listed")
			break
		}
	}
	pairs, err := s.List(ctx, "", nil)
	require.NoError(t, err)
	require.Equal(t, want, keysOf(pairs))
	assert.Equal(t, "/tools/a/c", string(pairs[1].Value))

	_, err = keys.Delete(ctx, "/tools/a", &client.DeleteOptions{Dir: true, Recursive: true})
	require.NoError(t, err)
	for pairs := range tree {
		if len(pairs) == 1 {
			break // one event for the directory
		}
	}
}

func keysOf(pairs []*valkeyrie.KVPair) []string {
	keys := []string{}
	for _, p := range pairs {
		keys = append(keys, p.Key)
	}
	return keys
}

// A directory that a deleted key left behind cannot be removed safely: etcd would
// as well remove a value that somebody has put in its place.
func TestAKeyWhereADirectoryWasLeft(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.EtcdV2(t)
	s, keys := open(t, server.Endpoints, &valkeyrie.Config{Prefix: "left"}, nil), raw(t, server.Endpoints...)
	require.NoError(t, s.Put(ctx, "d/k", nil, nil))
	one, err := s.Watch(ctx, "d", nil)
	require.NoError(t, err)
	require.Nil(t, (<-one).Value)
	tree, err := s.WatchTree(ctx, "d", nil)
	require.NoError(t, err)
	require.Len(t, <-tree, 1)
	require.NoError(t, s.Delete(ctx, "d/k"))
	require.Empty(t, <-tree)

	require.NoError(t, s.Put(ctx, "d", []byte("1"), nil))
	_, err = keys.Get(ctx, "/left/d/.valkeyrie", nil)
	require.NoError(t, err)
	require.Equal(t, "1", string((<-one).Value))
	_, _, err = s.AtomicPut(ctx, "d", nil, nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
	p, err := s.Get(ctx, "d", nil)
	require.NoError(t, err)
	_, q, err := s.AtomicPut(ctx, "d", []byte("2"), p, nil)
	require.NoError(t, err)
	require.Equal(t, "2", string((<-one).Value))
	_, _, err = s.AtomicPut(ctx, "d", nil, p, nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
	_, err = s.AtomicDelete(ctx, "d", p)
	require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
	pairs, err := s.List(ctx, "", nil)
	require.NoError(t, err)
	require.Equal(t, []*valkeyrie.KVPair{q}, pairs)

	// Here etcd takes what it refuses below an ordinary value.
	require.NoError(t, s.Put(ctx, "d/x", nil, nil))
	require.NoError(t, s.Put(ctx, "d/y/z", nil, nil))
	require.NoError(t, s.DeleteTree(ctx, "d"))
	pairs, err = s.List(ctx, "", nil)
	require.NoError(t, err)
	require.Equal(t, []*valkeyrie.KVPair{q}, pairs, "DeleteTree keeps the directory's own key")
	require.ErrorIs(t, s.DeleteTree(ctx, "d"), valkeyrie.ErrKeyNotFound)
	_, err = s.AtomicDelete(ctx, "d", q)
	require.NoError(t, err)
	require.Nil(t, (<-one).Value)
	require.ErrorIs(t, s.Delete(ctx, "d"), valkeyrie.ErrKeyNotFound)

	l, err := s.NewLock(ctx, "d", nil)
	require.NoError(t, err)
	_, err = l.Lock(ctx)
	require.NoError(t, err)
	require.NoError(t, l.Unlock(ctx))
	require.NoError(t, s.Put(ctx, "d/k", nil, &valkeyrie.WriteOptions{}))
	_, err = l.TryLock(ctx)
	require.ErrorIs(t, err, valkeyrie.ErrCallNotSupported)
}

func TestARenewalIsNoWrite(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.EtcdV2(t)
	s, keys := open(t, server.Endpoints, nil, nil), raw(t, server.Endpoints...)
	_, p, err := s.AtomicPut(ctx, "renewed", []byte("\xff"), nil, &valkeyrie.WriteOptions{TTL: 300 * time.Millisecond, KeepAlive: true})
	require.NoError(t, err)
	index := func() uint64 {
		r, err := keys.Get(ctx, "/renewed", nil)
		require.NoError(t, err)
		return r.Node.ModifiedIndex
	}
	first := index()
	require.Eventually(t, func() bool { return index() > first }, 10*time.Second, 10*time.Millisecond, "a renewal")
	got, err := s.Get(ctx, "renewed", nil)
	require.NoError(t, err)
	require.Equal(t, p, got)
	_, _, err = s.AtomicPut(ctx, "renewed", nil, &valkeyrie.KVPair{LastIndex: p.LastIndex + 1}, nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
	_, q, err := s.AtomicPut(ctx, "renewed", []byte("v"), p, nil)
	require.NoError(t, err, "with the pair of before the renewals")
	_, err = s.AtomicDelete(ctx, "renewed", q)
	require.NoError(t, err)
}

// counter forwards connections to a server and counts them; while away it ends
// them at once.
type counter struct {
	net.Listener
	server string
	away   atomic.Bool
	came   atomic.Int64
}

func (c *counter) run() {
	for {
		conn, err := c.Accept()
		if err != nil {
			return
		}
		c.came.Add(1)
		if c.away.Load() {
			_ = conn.Close()
			continue
		}
		to, err := net.Dial("tcp", c.server)
		if err != nil {
			_ = conn.Close()
			continue
		}
		go func() { _, _ = io.Copy(to, conn); _ = to.Close() }()
		go func() { _, _ = io.Copy(conn, to); _ = conn.Close() }()
	}
}

func TestNothingSpinsWhileTheServerIsAway(t *testing.T) {
	t.Parallel()
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartEtcdV2(t, testserver.EtcdOptions{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	c := &counter{Listener: ln, server: server.Endpoints[0]}
	go c.run()
	s := open(t, []string{ln.Addr().String()}, nil, nil)
	require.NoError(t, s.Put(ctx, "alive", nil, &valkeyrie.WriteOptions{TTL: 10 * time.Second, KeepAlive: true}))
	require.NoError(t, s.Put(ctx, "mortal", nil, &valkeyrie.WriteOptions{TTL: time.Second}))
	_, err = s.Watch(ctx, "alive", nil)
	require.NoError(t, err)
	_, err = s.WatchTree(ctx, "d", nil)
	require.NoError(t, err)
	l, err := s.NewLock(ctx, "lock", &valkeyrie.LockOptions{TTL: 10 * time.Second})
	require.NoError(t, err)
	_, err = l.Lock(ctx)
	require.NoError(t, err)
	waiter, err := s.NewLock(ctx, "lock", nil)
	require.NoError(t, err)
	waiting, leave := context.WithCancel(ctx)
	left := make(chan error, 1)
	go func() {
		_, err := waiter.Lock(waiting)
		left <- err
	}()

	c.away.Store(true)
	require.NoError(t, server.Members[0].Kill())
	before := c.came.Load()
	const seconds = 5
	time.Sleep(seconds * time.Second) // nothing to wait for: what must not happen is counted
	attempts := c.came.Load() - before
	t.Logf("%d attempts in %d s", attempts, seconds)
	require.Positive(t, attempts, "it tries to come back")
	require.Less(t, attempts, int64(40*seconds), "four watches, a key that expires, one that is renewed, a hold")
	leave()
	require.Error(t, <-left)
}

// reads asks a server how many reads it has made. It makes one for each request
// of another kind too, a write or a watch's, to see whether users are enabled.
func reads(t *testing.T, endpoint string) int {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := c.Get("http://" + endpoint + "/v2/stats/store")
	require.NoError(t, err)
	defer resp.Body.Close()
	var stats struct{ GetsSuccess, GetsFail int }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&stats))
	require.Positive(t, stats.GetsSuccess)
	return stats.GetsSuccess + stats.GetsFail
}

func TestAChangeCostsAWatchNoRead(t *testing.T) {
	t.Parallel()
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartEtcdV2(t, testserver.EtcdOptions{}).Endpoints
	s := open(t, endpoints, nil, nil)
	for i := range 50 {
		require.NoError(t, s.Put(ctx, fmt.Sprint("d/", i), nil, nil))
	}
	tree, err := s.WatchTree(ctx, "d", nil)
	require.NoError(t, err)
	require.Len(t, <-tree, 50)
	const changes = 100
	before := reads(t, endpoints[0])
	for i := range changes {
		value := fmt.Sprint("value ", i)
		require.NoError(t, s.Put(ctx, "d/7", []byte(value), nil))
		for pairs := range tree {
			if slices.ContainsFunc(pairs, func(p *valkeyrie.KVPair) bool { return string(p.Value) == value }) {
				break
			}
		}
	}
	require.Less(t, reads(t, endpoints[0])-before, 2*changes+changes/2, "one for each write, one for each request of the watch")
}

func TestASlowAnswerIsNotASilentOne(t *testing.T) {
	t.Parallel()
	ctx := testserver.Within(t, time.Minute)
	proxy, err := faultproxy.New(testserver.EtcdV2(t).Endpoints[0])
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	const timeout = 3 * time.Second // room for a busy machine to begin its answer
	s := open(t, []string{proxy.Addr()}, &valkeyrie.Config{Prefix: "slow", ConnectionTimeout: timeout}, nil)
	for i := range 8 {
		require.NoError(t, s.Put(ctx, fmt.Sprint("d/", i), bytes.Repeat([]byte("x"), 512<<10), nil))
	}
	proxy.Limit(faultproxy.ToClient, 1<<20)
	began := time.Now()
	pairs, err := s.List(ctx, "d", nil)
	require.NoError(t, err)
	require.Len(t, pairs, 8)
	require.Greater(t, time.Since(began), timeout, "it must be slow for this to say anything")

	silence := time.AfterFunc(timeout/2, func() { proxy.Blackhole(faultproxy.ToClient) })
	defer silence.Stop()
	_, err = s.List(ctx, "d", nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	require.ErrorIs(t, err, errSilent)
}
