package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/kvtools/valkeyrie"
)

// transport is the http.RoundTripper of the client: it sends requests to one of
// several endpoints, tells whether one that failed had been sent, and gives up
// servers that say nothing.
type transport struct {
	base      *http.Transport
	endpoints []*endpoint
	header    http.Header // of every request; the credentials are in it
	timeout   time.Duration
	ctx       context.Context // ends with Close
	current   atomic.Int32    // the endpoint in use
}

// endpoint is an address of Consul's HTTP API.
type endpoint struct {
	url *url.URL

	// proven: it answered the last request. What is between here and the server
	// may accept a connection for a server that is gone, and a write on it would
	// be ambiguous: before a write, a server that is not proven is asked something.
	proven atomic.Bool
}

const (
	// maxIdle is how many connections are kept for later: each watch needs one,
	// and they may all be answered at once.
	maxIdle = 4096

	// maxIdleTime is how long: what is between here and the server may forget
	// a silent connection.
	maxIdleTime = time.Minute

	// suspicious is how long a call that ended at its deadline must have waited
	// for the endpoint to be held responsible.
	suspicious = 500 * time.Millisecond

	// answerTime is how late a server may answer a blocking query whose time is
	// over before its connection counts as dead.
	answerTime = 3 * time.Second
)

// errSilent: the server took a connection or a request, and said nothing.
var errSilent = errors.New("the server does not answer")

func newTransport(ctx context.Context, urls []*url.URL, settings valkeyrie.Config) *transport {
	share := settings.ConnectionTimeout / time.Duration(len(urls))
	base := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: share}).DialContext,
		TLSHandshakeTimeout: share,
		MaxIdleConns:        maxIdle,
		MaxIdleConnsPerHost: maxIdle,
		IdleConnTimeout:     maxIdleTime,
		DisableCompression:  true, // which costs more than it saves on the way to an agent
		Protocols:           new(http.Protocols),
	}
	base.Protocols.SetHTTP1(true) // one connection of HTTP/2 has too few streams for many watches
	if settings.TLS != nil {
		base.TLSClientConfig = settings.TLS.Clone()
		base.TLSClientConfig.NextProtos = nil
	}
	t := &transport{base: base, timeout: settings.ConnectionTimeout, ctx: ctx}
	for _, u := range urls {
		t.endpoints = append(t.endpoints, &endpoint{url: u})
	}
	return t
}

// requestError is the error of a request that was not answered, or not to its end.
type requestError struct {
	sent bool // it may have reached the server
	err  error
}

func (e *requestError) Error() string { return e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

// RoundTrip implements http.RoundTripper. The request's address and headers are
// not used: the transport has its own. A refusal is an api.StatusError, so that
// 200, "not found" (404) and a failed transaction (409) are the only answers.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.send(req, 0)
}

// send is RoundTrip of a request that the server may hold back for some time.
// What cannot have reached a server is sent to the next endpoint.
func (t *transport) send(req *http.Request, wait time.Duration) (*http.Response, error) {
	var failed *requestError
	for range t.endpoints {
		resp, err := t.sendTo(t.current.Load(), req, wait)
		var this *requestError
		if !errors.As(err, &this) {
			return resp, err
		}
		if failed != nil {
			this.err = errors.Join(failed.err, this.err)
		}
		if failed = this; failed.sent || req.Context().Err() != nil || t.ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// sendTo sends a request to one endpoint.
func (t *transport) sendTo(at int32, req *http.Request, wait time.Duration) (*http.Response, error) {
	e, begun := t.endpoints[at], time.Now()
	write := req.Method != http.MethodGet
	if write && !e.proven.Load() {
		if err := t.prove(at, req.Context()); err != nil {
			return nil, &requestError{err: err}
		}
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	closed := context.AfterFunc(t.ctx, func() { cancel(valkeyrie.ErrClosed) })
	silence := time.AfterFunc(t.patience(wait), func() { cancel(fmt.Errorf("%w: %s", errSilent, e.url.Host)) })
	end := func() {
		silence.Stop()
		closed()
		cancel(nil)
	}
	var sent atomic.Bool
	traced := ctx
	if write { // of a read it does not matter
		traced = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			// net/http repeats a write on another connection only if it wrote
			// nothing on the one before, and writes nothing before the headers.
			GetConn:      func(string) { sent.Store(false) },
			WroteHeaders: func() { sent.Store(true) },
		})
	}
	resp, err := t.base.RoundTrip(t.addressed(traced, req, e.url))
	if err != nil {
		err = because(ctx, err)
		if t.blames(req.Context(), err, wait, begun) {
			t.leave(at)
		}
		end()
		return nil, &requestError{sent: sent.Load(), err: err}
	}
	e.proven.Store(true)
	resp.Body = &answer{ReadCloser: resp.Body, ctx: ctx, silence: silence, timeout: t.timeout, end: end}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNotFound, http.StatusConflict:
		silence.Stop()
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return nil, api.StatusError{Code: resp.StatusCode, Body: strings.TrimSpace(string(text))}
}

// patience is how long the server may take to begin its answer.
func (t *transport) patience(wait time.Duration) time.Duration {
	if wait == 0 {
		return t.timeout
	}
	// The server adds up to a sixteenth, so that not all ask again at once.
	return wait + wait/16 + min(t.timeout, answerTime)
}

// addressed is a request as it is sent to an endpoint.
func (t *transport) addressed(ctx context.Context, req *http.Request, to *url.URL) *http.Request {
	out := req.WithContext(ctx)
	out.Header, out.Host = t.header, to.Host
	u := *req.URL
	u.Scheme, u.Host = to.Scheme, to.Host
	if to.Path != "" { // a reverse proxy's
		u.Path, u.RawPath = to.Path+req.URL.Path, to.EscapedPath()+req.URL.EscapedPath()
	}
	out.URL = &u
	if req.GetBody != nil {
		out.Body, _ = req.GetBody() // of bytes, which does not fail
	}
	return out
}

// prove asks an endpoint something that every agent answers, whatever its state.
func (t *transport) prove(at int32, ctx context.Context) error {
	req := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/v1/status/leader"}}
	resp, err := t.sendTo(at, req.WithContext(ctx), 0)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.Body.Close()
	}
	var status api.StatusError
	switch {
	case !errors.As(err, &status):
		return err
	case status.Code == http.StatusBadRequest: // which no agent answers to this
		return foreign(status.Body)
	}
	return nil
}

// foreign is what an endpoint gets that answers as no agent does: it must not
// pass for one that has no such key.
func foreign(answer string) error {
	return fmt.Errorf("the endpoint does not speak Consul's HTTP API (it answered %q): check host, port and path", answer)
}

// blames tells whether an error is the endpoint's, and not its caller's.
func (t *transport) blames(caller context.Context, err error, wait time.Duration, begun time.Time) bool {
	switch {
	case t.ctx.Err() != nil:
		return false
	case caller.Err() == nil:
		return true
	}
	return wait == 0 && errors.Is(err, context.DeadlineExceeded) && time.Since(begun) > suspicious
}

// leave leaves an endpoint for the one after it. Its other connections are
// probably no better.
func (t *transport) leave(at int32) {
	t.endpoints[at].proven.Store(false)
	t.current.CompareAndSwap(at, (at+1)%int32(len(t.endpoints)))
	t.base.CloseIdleConnections()
}

// because returns why a request failed: the end of its context, if it has ended.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, context.DeadlineExceeded) { // the dialer's; nobody else may take it for his own
		return fmt.Errorf("%w: %v", errSilent, err)
	}
	return err
}

// answer is the body of an answer. It goes on as long as something comes.
type answer struct {
	io.ReadCloser
	ctx     context.Context
	silence *time.Timer
	timeout time.Duration
	end     func()
}

func (a *answer) Read(p []byte) (int, error) {
	a.silence.Reset(a.timeout)
	defer a.silence.Stop() // the reader may take its time
	n, err := a.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // as io.Reader says
		err = &requestError{sent: true, err: because(a.ctx, err)}
	}
	return n, err
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.end()
	return err
}
