package dynamodb

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

var tlsOfNobody = &tls.Config{MinVersion: tls.VersionTLS12}

// TestTLS puts a proxy that ends TLS in front of DynamoDB Local, which has none.
func TestTLS(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	target := &url.URL{Scheme: "http", Host: testserver.DynamoDB(t)}
	proxy := httputil.NewSingleHostReverseProxy(target)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	proxy.Transport = transport
	t.Cleanup(transport.CloseIdleConnections)
	certs, err := testserver.NewCerts(t.TempDir())
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(proxy)
	pair, err := tls.LoadX509KeyPair(certs.ServerCert, certs.ServerKey)
	require.NoError(t, err)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	addr := server.Listener.Addr().String()

	for _, endpoint := range []string{addr, "https://" + addr} {
		s := mustNew(t, endpoint, &valkeyrie.Config{TLS: certs.ClientConfig()}, nil)
		require.NoError(t, s.Put(ctx, "tls", []byte("v"), nil))
		require.NoError(t, s.Close())
	}
	stranger := mustNew(t, addr, &valkeyrie.Config{TLS: tlsOfNobody}, nil) // does not know the authority
	require.ErrorIs(t, stranger.Put(ctx, "tls", nil, nil), valkeyrie.ErrNotReachable)
	require.NoError(t, stranger.Close())
	plain := mustNew(t, addr, nil, nil)
	require.Error(t, plain.Put(ctx, "tls", nil, nil))
	require.NoError(t, plain.Close())
}

func TestCredentials(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	addr := testserver.DynamoDB(t)
	nobody, err := New([]string{addr}, nil, &Options{AWS: &aws.Config{Credentials: aws.AnonymousCredentials{}}})
	require.NoError(t, err)
	defer func() { assert.NoError(t, nobody.Close()) }()
	testutils.RequireUnauthorized(t, nobody, "d")

	t.Setenv("AWS_REGION", "eu-west-3")
	t.Setenv("AWS_ACCESS_KEY_ID", "of the environment")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://"+addr)
	t.Setenv("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", "http://"+addr)
	s, err := New(nil, nil, &Options{Create: true})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	require.NoError(t, s.Put(ctx, "environment", nil, nil), "what AWS programs find in the environment")
	states, err := s.Watch(ctx, "environment", nil)
	require.NoError(t, err)
	require.Equal(t, []byte{}, (<-states).Value)
	require.NoError(t, s.Delete(ctx, "environment"))
	require.Nil(t, (<-states).Value)
}

// TestRefusals are answers that DynamoDB Local never gives.
func TestRefusals(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s, p := tapped(t, Options{})
	for code, want := range map[string]error{
		"AccessDeniedException":                  valkeyrie.ErrUnauthorized,
		"UnrecognizedClientException":            valkeyrie.ErrUnauthorized,
		"ExpiredTokenException":                  valkeyrie.ErrUnauthorized,
		"ProvisionedThroughputExceededException": valkeyrie.ErrNotReachable,
	} {
		p.answering(func(exchange) *http.Response { return refusal(http.StatusBadRequest, code) })
		// Time for all tries: a deadline in the middle of one says nothing of it.
		_, err := s.Get(ctx, "k", nil)
		require.ErrorIs(t, err, want, code)
		err = s.Put(ctx, "k", nil, nil)
		require.ErrorIs(t, err, want, code)
		require.NotErrorIs(t, err, valkeyrie.ErrAmbiguous, code)
	}
	p.answering(func(exchange) *http.Response { return refusal(http.StatusBadRequest, "ResourceNotFoundException") })
	require.ErrorContains(t, s.Put(ctx, "k", nil, nil), "Options.Create")
}
