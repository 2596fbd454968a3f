package testserver

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// call makes a call through etcd's JSON gateway.
func call(t *testing.T, endpoint, method string, body map[string]string) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b, err := json.Marshal(body)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+endpoint+"/v3/kv/"+method, strings.NewReader(string(b)))
	require.NoError(t, err)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var out map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&out))
	return out
}

// putKey writes the key "k".
func putKey(t *testing.T, endpoint, value string) {
	t.Helper()
	enc := base64.StdEncoding.EncodeToString
	call(t, endpoint, "put", map[string]string{"key": enc([]byte("k")), "value": enc([]byte(value))})
}

// getKey reads the key "k".
func getKey(t *testing.T, endpoint string) string {
	t.Helper()
	out := call(t, endpoint, "range", map[string]string{"key": base64.StdEncoding.EncodeToString([]byte("k"))})
	kvs, _ := out["kvs"].([]any)
	require.Len(t, kvs, 1)
	v, err := base64.StdEncoding.DecodeString(kvs[0].(map[string]any)["value"].(string))
	require.NoError(t, err)
	return string(v)
}

func TestEtcdKeepsItsDataOverKillAndRestart(t *testing.T) {
	e := StartEtcdV3(t, EtcdOptions{})
	putKey(t, e.Endpoints[0], "before")
	require.NoError(t, e.Members[0].Kill())
	require.NoError(t, e.Members[0].Restart())
	require.Equal(t, "before", getKey(t, e.Endpoints[0]))
}

func TestEtcdIsShared(t *testing.T) {
	t.Setenv("VALKEYRIE_TEST_ETCDV3", "")
	require.Same(t, EtcdV3(t), EtcdV3(t))
}

func TestEtcdClusterOutlivesAMember(t *testing.T) {
	e := StartEtcdV3(t, EtcdOptions{Members: 3})
	require.Len(t, e.Endpoints, 3)
	putKey(t, e.Endpoints[0], "one")
	require.NoError(t, e.Members[0].Kill())
	require.Eventually(t, func() bool { // if that was the leader, until there is another
		return httpCheck("http://"+e.Endpoints[1]+"/health")(t.Context()) == nil
	}, 30*time.Second, 20*time.Millisecond)
	putKey(t, e.Endpoints[1], "two")
	require.NoError(t, e.Members[0].Restart())
	require.Equal(t, "two", getKey(t, e.Endpoints[0]))
}

func TestEtcdWithTLS(t *testing.T) {
	e := EtcdV3TLS(t)
	url := "https://" + e.Endpoints[0] + "/health"
	require.NoError(t, httpOK(t.Context(), url, e.Certs.ClientConfig()))
	require.Error(t, httpOK(t.Context(), url, &tls.Config{MinVersion: tls.VersionTLS12}), "its authority is not known elsewhere")
}

func TestEtcdWithMutualTLS(t *testing.T) {
	e := EtcdV3MutualTLS(t)
	url := "https://" + e.Endpoints[0] + "/health"
	require.NoError(t, httpOK(t.Context(), url, e.Certs.MutualConfig()))
	require.Error(t, httpOK(t.Context(), url, e.Certs.ClientConfig()), "it wants a certificate")
}
