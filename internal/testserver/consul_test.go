package testserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// consulDo makes a call of Consul's API that must succeed.
func consulDo(t *testing.T, method, url, token, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("X-Consul-Token", token)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", b)
	return string(b)
}

func consulPut(t *testing.T, endpoint, value string) {
	t.Helper()
	require.Equal(t, "true", consulDo(t, http.MethodPut, "http://"+endpoint+"/v1/kv/k", "", value))
}

func consulGet(t *testing.T, endpoint string) string {
	t.Helper()
	return consulDo(t, http.MethodGet, "http://"+endpoint+"/v1/kv/k?raw&consistent", "", "")
}

func TestConsulKeepsItsDataOverKillAndRestart(t *testing.T) {
	c := StartConsul(t, ConsulOptions{})
	consulPut(t, c.Endpoints[0], "before")
	require.NoError(t, c.Members[0].Kill())
	require.NoError(t, c.Members[0].Restart())
	require.Equal(t, "before", consulGet(t, c.Endpoints[0]))
	consulDo(t, http.MethodPut, "http://"+c.Endpoints[0]+"/v1/session/create", "", "") // it knows its node
}

func TestConsulIsShared(t *testing.T) {
	t.Setenv("VALKEYRIE_TEST_CONSUL", "")
	require.Same(t, ConsulServer(t), ConsulServer(t))
}

func TestConsulInMemory(t *testing.T) {
	c := StartConsul(t, ConsulOptions{Memory: true})
	consulPut(t, c.Endpoints[0], "v")
	require.Equal(t, "v", consulGet(t, c.Endpoints[0]))
}

func TestConsulClusterOutlivesAServer(t *testing.T) {
	c := StartConsul(t, ConsulOptions{Servers: 3})
	require.Len(t, c.Endpoints, 3)
	consulPut(t, c.Endpoints[0], "one")
	require.NoError(t, c.Members[0].Kill())
	url := fmt.Sprintf("http://%s/v1/kv/k?consistent", c.Endpoints[1])
	require.Eventually(t, func() bool { return httpOK(t.Context(), url, nil) == nil }, 30*time.Second, 20*time.Millisecond)
	consulPut(t, c.Endpoints[1], "two")
	require.NoError(t, c.Members[0].Restart())
	require.Equal(t, "two", consulGet(t, c.Endpoints[0]))
}

func TestConsulWithTLS(t *testing.T) {
	c := ConsulTLS(t)
	url := "https://" + c.Endpoints[0] + "/v1/status/leader"
	require.NoError(t, httpOK(t.Context(), url, c.Certs.ClientConfig()))
	require.Error(t, httpOK(t.Context(), url, &tls.Config{MinVersion: tls.VersionTLS12}), "its authority is not known elsewhere")
}

func TestConsulWithACLs(t *testing.T) {
	c := ConsulACL(t)
	url := "http://" + c.Endpoints[0] + "/v1/kv/k"
	consulDo(t, http.MethodPut, url, c.Token, "v")
	require.ErrorContains(t, httpOK(t.Context(), url, nil), "403")
}
