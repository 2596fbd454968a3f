package etcdv3

import (
	"context"
	"errors"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// readError maps the error of a request that changes nothing.
func readError(err error) error { return mapError(err, false) }

// mapError maps the client's error to the sentinel that fits. maybeApplied: the
// request was a write and has left this process.
func mapError(err error, maybeApplied bool) error {
	if err == nil {
		return nil
	}
	code := codes.Unknown
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		code = etcd.Code()
	} else if s, ok := status.FromError(err); ok {
		code = s.Code()
	}
	switch {
	case errors.Is(err, rpctypes.ErrRequestTooLarge), code == codes.ResourceExhausted && !errors.Is(err, rpctypes.ErrNoSpace):
		return store.Wrap(valkeyrie.ErrValueTooLarge, err)
	case code == codes.Unauthenticated, code == codes.PermissionDenied,
		errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrUserNotFound):
		return store.Wrap(valkeyrie.ErrUnauthorized, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		code == codes.Unavailable, code == codes.Canceled, code == codes.DeadlineExceeded, code == codes.Internal:
		if maybeApplied {
			return store.Wrap(valkeyrie.ErrAmbiguous, err)
		}
		if code == codes.Unavailable {
			return store.Wrap(valkeyrie.ErrNotReachable, err)
		}
	}
	return err
}

// sending is the key of a context value, an *atomic.Bool that noteSent sets.
type sending struct{}

// noteSent is an interceptor that notes whether a request has left this process.
// gRPC reports the peer of every request that was put on a connection.
func noteSent(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	// A server that is away shows at once and not when the context ends; what
	// was not sent yet may be tried again, which the client does for reads.
	opts = append(opts, grpc.WaitForReady(false))
	sent, _ := ctx.Value(sending{}).(*atomic.Bool)
	if sent == nil {
		return invoker(ctx, method, req, reply, cc, opts...)
	}
	var to peer.Peer
	err := invoker(ctx, method, req, reply, cc, append(opts, grpc.Peer(&to))...)
	if to.Addr != nil {
		sent.Store(true)
	}
	return err
}

// write runs a request that writes, once, and maps its error.
func write[T any](ctx context.Context, request func(context.Context) (T, error)) (T, error) {
	var sent atomic.Bool
	answer, err := request(context.WithValue(ctx, sending{}, &sent))
	return answer, mapError(err, sent.Load())
}
