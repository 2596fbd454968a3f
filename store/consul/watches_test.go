package consul

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestAThousandWatchesOnOneStore(t *testing.T) {
	const watches = 1000
	ctx := testserver.Within(t, 2*time.Minute)
	s := open(t, testserver.ConsulServer(t).Endpoints, nil, nil)
	channels := make([]<-chan *valkeyrie.KVPair, watches)
	key := func(i int) string { return fmt.Sprintf("thousand/%d", i) }
	var openers sync.WaitGroup
	for w := range 20 {
		openers.Go(func() {
			for i := w; i < watches; i += 20 {
				ch, err := s.Watch(ctx, key(i), nil)
				if assert.NoError(t, err) {
					channels[i] = ch
				}
			}
		})
	}
	openers.Wait()
	require.False(t, t.Failed())
	for i, ch := range channels {
		require.Nil(t, (<-ch).Value, key(i))
	}
	// All of them see what happens, and calls beside them work.
	for i := range channels {
		require.NoError(t, s.Put(ctx, key(i), []byte(key(i)), nil))
	}
	for i, ch := range channels {
		require.Equal(t, key(i), string((<-ch).Value))
	}
	began := time.Now()
	require.NoError(t, s.Put(ctx, key(0), []byte("again"), nil))
	require.Equal(t, "again", string((<-channels[0]).Value))
	t.Logf("a change was seen %v after the call, beside %d watches", time.Since(began), watches-1)
	require.NoError(t, s.DeleteTree(ctx, "thousand"))
	for _, ch := range channels {
		require.Nil(t, (<-ch).Value)
	}
}

// agent is an HTTP server that answers as a test wants.
func agent(t *testing.T, handle func(w http.ResponseWriter, r *http.Request)) []string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/v1/status/leader") { // which an endpoint is asked to see that it is there
			return
		}
		handle(w, r)
	}))
	t.Cleanup(server.Close)
	return []string{server.URL}
}

func TestTheEndOfAWatchEndsItsRequestAtOnce(t *testing.T) {
	waiting, over := make(chan struct{}, 10), make(chan struct{}, 10)
	endpoints := agent(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Consul-Index", "7")
		if r.URL.Query().Get("index") == "" {
			fmt.Fprint(w, `[{"Key":"d/k","Value":"dg==","ModifyIndex":7}]`)
			return
		}
		waiting <- struct{}{}
		<-r.Context().Done() // when the connection is closed
		over <- struct{}{}
	})
	soon := func(ch <-chan struct{}, what string) {
		t.Helper()
		select {
		case <-ch:
		case <-time.After(2 * time.Second):
			t.Fatal("not within 2 s: " + what)
		}
	}
	s := open(t, endpoints, nil, nil)
	for _, watch := range []func(ctx context.Context) error{
		func(ctx context.Context) error { _, err := s.Watch(ctx, "d/k", nil); return err },
		func(ctx context.Context) error { _, err := s.WatchTree(ctx, "d", nil); return err },
		func(ctx context.Context) error {
			go func() {
				for range s.Events(ctx, "d/k", nil) {
				}
			}()
			return nil
		},
	} {
		ctx, cancel := context.WithCancel(testserver.Within(t, 20*time.Second))
		require.NoError(t, watch(ctx))
		soon(waiting, "the request")
		cancel()
		soon(over, "the end of the request")
	}
}

// TestKeysThatAnAgentRefusesInAURL: by default it takes only what it can print.
func TestKeysThatAnAgentRefusesInAURL(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, testserver.ConsulServer(t).Endpoints, nil, nil)
	for i, odd := range []string{"\u00a0", "\u200b", "a\u2028b", "\ue000"} {
		dir := fmt.Sprintf("unprintable/%d%s", i, odd)
		key := dir + "/k"
		require.NoError(t, s.Put(ctx, dir+"x/k", nil, nil)) // begins the same
		one, err := s.Watch(ctx, key, nil)
		require.NoError(t, err)
		tree, err := s.WatchTree(ctx, dir, nil)
		require.NoError(t, err)
		assert.Nil(t, (<-one).Value)
		assert.Empty(t, <-tree)
		require.NoError(t, s.Put(ctx, key, []byte("v"), nil))
		assert.Equal(t, "v", string((<-one).Value))
		assert.Equal(t, key, (<-tree)[0].Key)
		p, err := s.Get(ctx, key, nil)
		require.NoError(t, err)
		assert.Equal(t, "v", string(p.Value))
		require.NoError(t, s.DeleteTree(ctx, dir))
		assert.Nil(t, (<-one).Value)
		l, err := s.NewLock(ctx, key, nil)
		require.NoError(t, err)
		_, err = l.Lock(ctx)
		require.NoError(t, err)
		waiter, err := s.NewLock(ctx, key, nil)
		require.NoError(t, err)
		time.AfterFunc(50*time.Millisecond, func() { _ = l.Unlock(ctx) })
		_, err = waiter.Lock(ctx)
		require.NoError(t, err)
		require.NoError(t, waiter.Unlock(ctx))
	}
	require.NoError(t, s.DeleteTree(ctx, "unprintable"))
}

func TestDatacenterAndNamespaceOfARealServer(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ConsulServer(t).Endpoints
	s := open(t, endpoints, nil, &Options{Datacenter: "dc1"})
	require.NoError(t, s.Put(ctx, "dc/k", []byte("v"), &valkeyrie.WriteOptions{TTL: time.Minute}))
	p, err := s.Get(ctx, "dc/k", nil)
	require.NoError(t, err)
	assert.Equal(t, "v", string(p.Value))
	require.NoError(t, s.DeleteTree(ctx, "dc"))

	_, err = open(t, endpoints, nil, &Options{Datacenter: "nowhere"}).Get(ctx, "dc/k", nil)
	require.ErrorContains(t, err, "No path to datacenter")
	_, err = open(t, endpoints, nil, &Options{Namespace: "team"}).Get(ctx, "dc/k", nil)
	require.ErrorContains(t, err, "Enterprise")
}

// TestASnapshotThatIsRestored has a real server go back to what it was.
func TestASnapshotThatIsRestored(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartConsul(t, testserver.ConsulOptions{}).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, nil, nil)
	require.NoError(t, s.Put(ctx, "d/k", []byte("old"), nil))
	saved, _, err := c.Snapshot().Save(nil)
	require.NoError(t, err)
	defer saved.Close()
	one, err := s.Watch(ctx, "d/k", nil)
	require.NoError(t, err)
	tree, err := s.WatchTree(ctx, "d", nil)
	require.NoError(t, err)
	require.NoError(t, s.Put(ctx, "d/k", []byte("new"), nil))
	require.NoError(t, s.Put(ctx, "d/later", []byte("new"), nil))
	for p := range one {
		if string(p.Value) == "new" {
			break
		}
	}
	for pairs := range tree {
		if len(pairs) == 2 {
			break
		}
	}
	require.NoError(t, c.Snapshot().Restore(nil, saved))
	for p := range one {
		if string(p.Value) == "old" {
			break
		}
	}
	for pairs := range tree {
		if len(pairs) == 1 && string(pairs[0].Value) == "old" {
			break
		}
	}
	require.NoError(t, ctx.Err(), "the watches show what was restored")
	require.NoError(t, s.Put(ctx, "d/k", []byte("newest"), nil))
	assert.Equal(t, "newest", string((<-one).Value))
}

// TestAnIndexThatWentBack is a server that was restored: what it had is gone, and
// its indexes begin again.
func TestAnIndexThatWentBack(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	answers := []struct{ index, body string }{
		{"100", `[{"Key":"d/a","Value":"MQ==","ModifyIndex":100},{"Key":"d/b","Value":"MQ==","ModifyIndex":90}]`},
		{"40", `[{"Key":"d/a","Value":"Mg==","ModifyIndex":40}]`},
		{"40", `[{"Key":"d/a","Value":"Mg==","ModifyIndex":40}]`},
		{"0", `[{"Key":"d/a","Value":"Mw==","ModifyIndex":41}]`}, // which no server should say
	}
	endpoints := agent(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n := len(asked)
		asked = append(asked, r.URL.Query().Get("index"))
		mu.Unlock()
		if n >= len(answers) {
			<-r.Context().Done()
			return
		}
		w.Header().Set("X-Consul-Index", answers[n].index)
		fmt.Fprint(w, answers[n].body)
	})
	ctx := testserver.Within(t, 20*time.Second)
	s := open(t, endpoints, nil, nil)
	ch, err := s.WatchTree(ctx, "d", nil)
	require.NoError(t, err)
	for pairs := range ch {
		if len(pairs) == 1 && string(pairs[0].Value) == "3" {
			break
		}
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(asked) > len(answers)
	}, 5*time.Second, 5*time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	// 40 is less than 100, so the next query must not wait; an index of 0 would
	// not wait either, and ask without end, so that it counts as 1.
	assert.Equal(t, []string{"", "100", "", "40", ""}, asked[:5])
}

func TestTokenNamespaceAndDatacenterAreSentAlong(t *testing.T) {
	var mu sync.Mutex
	var paths []string
	endpoints := agent(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		paths = append(paths, strings.Split(r.URL.Path, "/")[2])
		q := r.URL.Query()
		assert.Equal(t, "a secret", r.Header.Get("X-Consul-Token"), r.URL)
		assert.Equal(t, []string{"team"}, q["ns"], r.URL)
		assert.Equal(t, []string{"part"}, q["partition"], r.URL)
		assert.Equal(t, []string{"dc9"}, q["dc"], r.URL)
		user, password, ok := r.BasicAuth()
		assert.True(t, ok)
		assert.Equal(t, "user:password", user+":"+password)
		w.Header().Set("X-Consul-Index", "1")
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/session/create"):
			var body struct{ Node, TTL string }
			assert.NoError(t, decode(r, &body))
			assert.Equal(t, "far", body.Node)
			assert.Equal(t, "2s", body.TTL) // with the time for which it is shared
			fmt.Fprint(w, `{"ID":"00000000-0000-4000-8000-000000000001"}`)
		case r.URL.Path == "/v1/txn":
			var ops []struct {
				KV struct{ Namespace, Partition string }
			}
			assert.NoError(t, decode(r, &ops))
			for _, op := range ops {
				assert.Equal(t, "team", op.KV.Namespace)
				assert.Equal(t, "part", op.KV.Partition)
			}
			fmt.Fprint(w, `{"Results":[{"KV":{"ModifyIndex":5}}]}`)
		case strings.HasPrefix(r.URL.Path, "/v1/kv/") && r.URL.Query().Has("keys"):
			fmt.Fprint(w, `["d/k"]`)
		default:
			fmt.Fprint(w, `[{"Key":"d/k","Value":null,"ModifyIndex":5}]`)
		}
	})
	ctx := testserver.Within(t, 20*time.Second)
	cfg := &valkeyrie.Config{Token: "a secret", Username: "user", Password: "password",
		Backend: &Options{Namespace: "team", Partition: "part", Datacenter: "dc9", SessionNode: "far", MinSessionTTL: time.Second}}
	s, err := valkeyrie.NewStore(StoreName, endpoints, cfg)
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.Put(ctx, "d/k", nil, nil))
	require.NoError(t, s.Put(ctx, "d/k", nil, &valkeyrie.WriteOptions{TTL: time.Second}))
	_, err = s.Get(ctx, "d/k", nil)
	require.NoError(t, err)
	_, err = s.List(ctx, "d", nil)
	require.NoError(t, err)
	_, err = s.Watch(ctx, "d/k", nil)
	require.NoError(t, err)
	require.NoError(t, s.DeleteTree(ctx, "d"))
	mu.Lock()
	defer mu.Unlock()
	for _, what := range []string{"kv", "txn", "session"} {
		assert.Contains(t, paths, what)
	}
}
