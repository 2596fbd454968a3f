package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

// decode reads the body of a request.
func decode(r *http.Request, into any) error { return json.NewDecoder(r.Body).Decode(into) }

func TestBadConfig(t *testing.T) {
	for _, endpoints := range [][]string{{""}, {"127.0.0.1:8500", " "}, {"unix:///var/run/consul.sock"}} {
		_, err := New(endpoints, nil, nil)
		var bad *valkeyrie.InvalidConfigError
		require.ErrorAs(t, err, &bad, "%q", endpoints)
		assert.Equal(t, "endpoints", bad.Field)
	}
	_, err := valkeyrie.NewStore(StoreName, nil, &valkeyrie.Config{Backend: Options{}})
	var bad *valkeyrie.InvalidConfigError
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "Config.Backend", bad.Field)
	_, err = New(nil, &valkeyrie.Config{Token: "two\nlines"}, nil)
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "Config.Token", bad.Field)
	_, err = New(nil, nil, &Options{WaitTime: -1})
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "Options.WaitTime", bad.Field)
}

// TestAReverseProxyWithAPath also shows what of a key the server sees.
func TestAReverseProxyWithAPath(t *testing.T) {
	seen := make(chan string, 10)
	endpoints := agent(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.URL.EscapedPath()
		fmt.Fprint(w, `{"Results":[{"KV":{"ModifyIndex":7}}]}`)
	})
	s := open(t, []string{endpoints[0] + "/behind/"}, nil, nil)
	ctx := testserver.Within(t, 10*time.Second)
	require.NoError(t, s.Put(ctx, "k", nil, nil))
	assert.Equal(t, "/behind/v1/txn", <-seen)
	_, err := s.Get(ctx, "a%2Fb c/ä", nil)
	require.Error(t, err, "it is not the answer to a read")
	assert.Equal(t, "/behind/v1/kv/a%252Fb%20c/%C3%A4", <-seen)
}

// Not even as an empty directory.
func TestAServerThatIsNotConsulHasNoKeys(t *testing.T) {
	s := open(t, agent(t, http.NotFound), nil, nil)
	ctx := testserver.Within(t, 10*time.Second)
	_, err := s.Get(ctx, "k", nil)
	require.ErrorContains(t, err, "check host, port and path")
	require.NotErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	_, err = s.List(ctx, "d", nil)
	require.ErrorContains(t, err, "check host, port and path")
	require.NotErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	require.ErrorContains(t, s.Put(ctx, "k", nil, nil), "check host, port and path")
}

func TestNewDoesNotWaitForTheServer(t *testing.T) {
	testutils.RequireUnreachable(t, func() valkeyrie.Store { return open(t, []string{"127.0.0.1:1"}, nil, nil) })
}

func TestTheNextEndpointIsUsedWhenOneCannotBeReached(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.ConsulServer(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and answers nothing
	require.NoError(t, err)
	defer silent.Close()
	endpoints := []string{"127.0.0.1:1", silent.Addr().String(), server.Endpoints[0]}
	s := open(t, endpoints, &valkeyrie.Config{ConnectionTimeout: 900 * time.Millisecond}, nil)
	began := time.Now()
	require.NoError(t, s.Put(ctx, "endpoints/k", []byte("v"), nil))
	assert.Less(t, time.Since(began), 5*time.Second)
	began = time.Now()
	require.NoError(t, s.Put(ctx, "endpoints/k", []byte("v"), nil))
	assert.Less(t, time.Since(began), 300*time.Millisecond, "it stays with the one that works")
	require.NoError(t, s.DeleteTree(ctx, "endpoints"))
}

// TestAWriteIsAmbiguousIfAnyEndpointMayHaveGotIt: the first of them did not.
func TestAWriteIsAmbiguousIfAnyEndpointMayHaveGotIt(t *testing.T) {
	var writes atomic.Int32
	endpoints := agent(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		writes.Add(1)
		<-r.Context().Done()
	})
	s := open(t, append([]string{"127.0.0.1:1"}, endpoints...), &valkeyrie.Config{ConnectionTimeout: 400 * time.Millisecond}, nil)
	err := s.Put(testserver.Within(t, 10*time.Second), "k", nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrAmbiguous)
	require.NotErrorIs(t, err, valkeyrie.ErrNotReachable)
	assert.EqualValues(t, 1, writes.Load(), "it is not sent again")
}

// TestWhatTheEnvironmentSays: it stands in for what is not given, as with all of
// Consul's tools.
func TestWhatTheEnvironmentSays(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]string{}
	endpoints := agent(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.Method] = fmt.Sprintf("%s %v %v", r.Header.Get("X-Consul-Token"), r.URL.Query()["ns"], r.URL.Query()["partition"])
		if r.Method == http.MethodPut {
			fmt.Fprint(w, `{"Results":[{"KV":{"ModifyIndex":7}}]}`)
			return
		}
		fmt.Fprint(w, `[{"Key":"k","Value":"dg==","ModifyIndex":7}]`)
	})
	expect := func(want string, cfg *valkeyrie.Config, opts *Options) {
		t.Helper()
		s, ctx := open(t, endpoints, cfg, opts), testserver.Within(t, 10*time.Second)
		_, err := s.Get(ctx, "k", nil)
		require.NoError(t, err)
		require.NoError(t, s.Put(ctx, "k", nil, nil))
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, map[string]string{http.MethodGet: want, http.MethodPut: want}, seen)
	}
	expect(" [] []", nil, nil)
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1") // endpoints are always given by the caller
	t.Setenv("CONSUL_HTTP_TOKEN", "env")
	t.Setenv("CONSUL_NAMESPACE", "ns")
	t.Setenv("CONSUL_PARTITION", "part")
	expect("env [ns] [part]", nil, nil)
	expect("mine [my] [own]", &valkeyrie.Config{Token: "mine"}, &Options{Namespace: "my", Partition: "own"})
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("of the file\n"), 0o600))
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", file)
	expect("of the file [ns] [part]", nil, nil)
	expect("mine [ns] [part]", &valkeyrie.Config{Token: "mine"}, nil)
	expect("env [ns] [part]", &valkeyrie.Config{Token: "env"}, nil) // the same as in the environment, and still given

	t.Setenv("CONSUL_HTTP_TOKEN_FILE", file+"-that-is-not-there")
	_, err := New(endpoints, nil, nil)
	var bad *valkeyrie.InvalidConfigError
	require.ErrorAs(t, err, &bad)
	assert.Equal(t, "environment", bad.Field)
}

// TestAWriteAfterARestartIsNotAmbiguous: connections that lay idle meanwhile are
// not taken for living ones.
func TestAWriteAfterARestartIsNotAmbiguous(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartConsul(t, testserver.ConsulOptions{}).Members[0]
	s := open(t, server.Addrs, nil, nil)
	done := make(chan error, 20)
	for i := range cap(done) { // as many connections
		go func() { done <- s.Put(ctx, fmt.Sprint("k", i), nil, nil) }()
	}
	for range cap(done) {
		require.NoError(t, <-done)
	}
	require.NoError(t, server.Restart())
	for i := range cap(done) {
		require.NoError(t, s.Put(ctx, fmt.Sprint("k", i), nil, nil))
	}
}

func TestAnAgentThatRefusesMoreConnections(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := testserver.StartConsul(t, testserver.ConsulOptions{Config: map[string]any{
		"limits": map[string]any{"http_max_conns_per_client": 5},
	}})
	s := open(t, server.Endpoints, nil, nil)
	var err error
	for i := 0; err == nil && i < 10; i++ {
		_, err = s.Watch(ctx, fmt.Sprint("k", i), nil)
	}
	// The agent closes the connection right behind its refusal, so that net/http
	// does not always get to read that.
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
}

func TestARefusalOfMoreConnectionsNamesTheAgentsLimit(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "Your IP is issuing too many concurrent connections", http.StatusTooManyRequests)
	}))
	defer server.Close()
	_, err := open(t, []string{server.URL}, nil, nil).Get(testserver.Within(t, time.Minute), "k", nil)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	assert.Contains(t, err.Error(), "http_max_conns_per_client")
}

// TestAProxyThatClosesEachConnection: an HTTP/1.0 proxy, for example.
func TestAProxyThatClosesEachConnection(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, `[{"Key":"k","Value":"dg==","ModifyIndex":7}]`)
	}))
	defer server.Close()
	s := open(t, []string{server.URL}, nil, nil)
	for range 3 {
		_, err := s.Get(ctx, "k", nil)
		require.NoError(t, err)
	}
}

// TestASilentServer has one that answers nothing, and one that stops in the
// middle of an answer.
func TestASilentServer(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	var begin atomic.Bool
	endpoints := agent(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the end of the connection is noticed here
		if begin.Load() {
			fmt.Fprint(w, `[{"Key":"k",`)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	})
	s := open(t, endpoints, &valkeyrie.Config{ConnectionTimeout: 200 * time.Millisecond}, nil)
	for _, b := range []bool{false, true} {
		begin.Store(b)
		began := time.Now()
		_, err := s.Get(ctx, "k", nil)
		require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
		require.NotErrorIs(t, err, context.DeadlineExceeded, "the caller's context has not ended")
		_, err = s.List(ctx, "k", nil)
		require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
		err = s.Put(ctx, "k", nil, nil)
		require.ErrorIs(t, err, valkeyrie.ErrAmbiguous)
		require.NotErrorIs(t, err, valkeyrie.ErrNotReachable)
		assert.Less(t, time.Since(began), 3*time.Second)
	}
}
