package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// unauthorized are the codes with which AWS refuses credentials or their rights.
var unauthorized = map[string]bool{
	"AccessDeniedException": true, "AccessDenied": true, "UnrecognizedClientException": true,
	"InvalidClientTokenId": true, "MissingAuthenticationTokenException": true, "MissingAuthenticationToken": true,
	"InvalidSignatureException": true, "IncompleteSignature": true, "IncompleteSignatureException": true,
	"ExpiredTokenException": true, "ExpiredToken": true, "OptInRequired": true, "NotAuthorized": true,
}

// mapError maps the client's error to the sentinel that fits. sent: the request
// may have left this process; write: it may have changed something then; ended:
// the context of the call is over.
func mapError(err error, sent, write, ended bool) error {
	var missing *types.ResourceNotFoundException
	switch lost := broken(err, sent); {
	case conditionFailed(err) != nil:
		return err
	case unauthorized[errorCode(err)]:
		return store.Wrap(valkeyrie.ErrUnauthorized, err)
	case throttled(err):
		return store.Wrap(valkeyrie.ErrNotReachable, err) // and not applied
	case errors.As(err, &missing):
		return fmt.Errorf("there is no such table: create it, or set Options.Create: %w", err)
	case lost && sent && write:
		return store.Wrap(valkeyrie.ErrAmbiguous, err)
	case lost && !ended:
		return store.Wrap(valkeyrie.ErrNotReachable, err)
	}
	return err
}

// errorCode is the code of the server's answer, "" where there was none.
func errorCode(err error) string {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		return answer.ErrorCode()
	}
	return ""
}

// conditionFailed returns the server's answer that a condition did not hold.
func conditionFailed(err error) *types.ConditionalCheckFailedException {
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		return failed
	}
	return nil
}

// throttled tells whether the server refused a request because there were too
// many. It did nothing then.
func throttled(err error) bool {
	return retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err).Bool()
}

// broken tells whether a request has no answer, or one that says nothing about
// what the server did.
func broken(err error, sent bool) bool {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.HTTPStatusCode() >= 500 {
		return true
	}
	var sending *smithyhttp.RequestSendError
	return errorCode(err) == "" && (sent || errors.As(err, &sending) || errors.Is(err, context.DeadlineExceeded))
}

const (
	// throttledTries is how often a request is sent that the server throttles.
	throttledTries = 10

	// brokenTries is how often one is sent that changes nothing and got no answer.
	brokenTries = 3

	// silence is how long each of them may wait for it.
	silence = 3 * time.Second
)

// request makes a request within ctx and the life of the store, and maps its
// error. f is called again, after a pause, when the server has refused to do
// anything because it had too much to do, and, unless the request is a write,
// when an answer got lost. The SDK's own retries are off: they would repeat
// writes that may have been applied.
func request[T any](ctx context.Context, d *driver, write bool, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	if write && d.doubtful.Load() {
		if err := d.check(ctx); err != nil {
			var none T
			return none, err
		}
	}
	for try := 1; ; try++ {
		answer, sent, err := attempt(ctx, d, write, f)
		if err == nil {
			return answer, nil
		}
		lost := broken(err, sent)
		if lost {
			d.doubt(ctx)
		}
		again := throttled(err) && try < throttledTries || lost && sent && !write && try < brokenTries
		if !again || store.Sleep(ctx, rand.N(min(25*time.Millisecond<<try, 2*time.Second))) != nil {
			return answer, mapError(err, sent, write, ctx.Err() != nil)
		}
	}
}

// attempt sends a request once, and tells whether it may have left this process.
func attempt[T any](ctx context.Context, d *driver, write bool, f func(context.Context) (T, error)) (T, bool, error) {
	var sent atomic.Bool
	sent.Store(d.transport == nil) // an HTTP client of the user's may not tell
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	if !write {
		limited, cancel := context.WithTimeout(ctx, min(silence, d.timeout))
		defer cancel()
		ctx = limited
	}
	answer, err := f(ctx)
	return answer, sent.Load(), err
}

// read is request for what changes nothing, or may be done twice.
func read[T any](ctx context.Context, d *driver, f func(context.Context) (T, error)) (T, error) {
	return request(ctx, d, false, f)
}

// write is request for what must not be done twice.
func write[T any](ctx context.Context, d *driver, f func(context.Context) (T, error)) (T, error) {
	return request(ctx, d, true, f)
}

// doubt notes that a request got no answer, or found no server. What has silenced a connection, such
// as a firewall that forgot it, has usually silenced all that are idle, and each
// would cost a call its time. Once a second is enough, so that calls with short
// deadlines do not cost the others their connections. And what is between here
// and the server may accept a connection for a server that is gone, where a write
// would be ambiguous: before the next one the table is looked at.
func (d *driver) doubt(ctx context.Context) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return // the caller left
	}
	d.doubtful.Store(true)
	last, now := d.flushed.Load(), time.Now()
	if d.transport != nil && (last == nil || now.Sub(*last) > time.Second) && d.flushed.CompareAndSwap(last, &now) {
		d.transport.CloseIdleConnections()
	}
}
