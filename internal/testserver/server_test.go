package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// httpCheck returns a check that wants 200 from the URL.
func httpCheck(url string) func(context.Context) error {
	return func(ctx context.Context) error { return httpOK(ctx, url, nil) }
}

// get reads a URL on a connection of its own.
func get(url string, timeout time.Duration) (string, error) {
	client := http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// startSmall starts a small server for the test.
func startSmall(t *testing.T) *Server {
	t.Helper()
	s, err := newSmall(current, "")
	require.NoError(t, err)
	own(t, s)
	return s
}

func TestKillAndRestartKeepAddressAndData(t *testing.T) {
	s := startSmall(t)
	for _, want := range []string{"start 1", "start 2", "start 3"} {
		body, err := get("http://"+s.Addr(), 20*time.Second)
		require.NoError(t, err)
		require.Equal(t, want, body)
		require.NoError(t, s.Kill())
		require.NoError(t, s.Kill(), "killing it twice does nothing")
		_, err = get("http://"+s.Addr(), 20*time.Second)
		require.Error(t, err)
		require.NoError(t, s.Restart())
	}
	require.NoError(t, s.Restart(), "of a server that runs")
}

func TestStopSilencesAndResumeLetsGoOn(t *testing.T) {
	s := startSmall(t)
	require.NoError(t, s.Stop())
	_, err := get("http://"+s.Addr(), 100*time.Millisecond)
	require.True(t, os.IsTimeout(err), "want a timeout, got %v", err)
	require.NoError(t, s.Resume())
	_, err = get("http://"+s.Addr(), 20*time.Second)
	require.NoError(t, err)

	require.NoError(t, s.Stop())
	require.NoError(t, s.Kill(), "a stopped server can be killed")
	require.Error(t, s.Resume(), "there is nothing to resume")
	require.Error(t, s.Stop())
}

func TestAFailedStartShowsTheOutput(t *testing.T) {
	s, err := newSmall(current, "fail")
	require.NoError(t, err)
	err = launch(s)
	require.ErrorContains(t, err, "ended before it answered")
	require.ErrorContains(t, err, "this server is not in the mood")
	require.Error(t, s.Restart(), "it was closed")
	require.NoDirExists(t, s.cmd.dir)
}

func TestSharedIsStartedOnce(t *testing.T) {
	starts := 0
	for range 3 {
		require.Equal(t, 1, share(t, t.Name(), func() (int, error) {
			starts++
			return starts, nil
		}))
	}
	fails := func() (int, error) { return 0, errors.New("no luck") }
	for range 2 {
		r := record(func(tb testing.TB) { share(tb, t.Name()+" failing", fails) })
		require.Contains(t, r.failure, "no luck")
	}
}

// recorder is a testing.TB that remembers how the test ended.
type recorder struct {
	testing.TB
	failure, skip string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
func (r *recorder) Skipf(format string, args ...any) {
	r.skip = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// record runs a test with a recorder.
func record(test func(testing.TB)) *recorder {
	r := new(recorder)
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(r)
	}()
	<-done
	return r
}

func TestAMissingProgramSkipsOrFails(t *testing.T) {
	look := func(tb testing.TB) { find(tb, "etcdv3", "no-such-program") }
	t.Setenv("VALKEYRIE_SERVERS", t.TempDir())

	t.Setenv("VALKEYRIE_TEST_REQUIRE", "redis, consul")
	r := record(look)
	require.Empty(t, r.failure)
	require.Contains(t, r.skip, "no server for etcdv3")
	if !testing.Short() {
		require.Contains(t, r.skip, "run script/servers install")
	}

	for _, names := range []string{"all", "etcdv3", "redis,etcdv3"} {
		t.Setenv("VALKEYRIE_TEST_REQUIRE", names)
		r = record(look)
		require.Empty(t, r.skip)
		require.Contains(t, r.failure, "etcdv3 is required")
	}
}

func TestTheEnvironmentNamesARunningServer(t *testing.T) {
	t.Setenv("VALKEYRIE_TEST_ETCDV3", "10.0.0.1:2379,10.0.0.2:2379")
	e := EtcdV3(t)
	require.Equal(t, []string{"10.0.0.1:2379", "10.0.0.2:2379"}, e.Endpoints)
	require.Empty(t, e.Members)
}
