package zookeeper

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// errSessionLost: the session ended, and with it watches and ephemeral nodes.
var errSessionLost = fmt.Errorf("%w: the ZooKeeper session has ended", valkeyrie.ErrNotReachable)

// errUnsent: the connection broke before the whole request was sent.
var errUnsent = errors.New("the request was not sent")

// errMoved: a node was deleted and made again between the read and the write of
// a conditional write; see edit.swap.
var errMoved = errors.New("the key was deleted and created again while it was being written")

// readError maps the error of a request that changes nothing.
func readError(err error) error { return mapError(err, false) }

// writeError maps the error of a request that writes and has left this process.
func writeError(err error) error { return mapError(err, true) }

// mapError maps the client's error to the sentinel that fits.
func mapError(err error, write bool) error {
	switch {
	case err == nil:
		return nil
	case isOneOf(err, valkeyrie.ErrNotReachable, valkeyrie.ErrUnauthorized, valkeyrie.ErrClosed, valkeyrie.ErrAmbiguous):
		return err // mapped already
	case isOneOf(err, zk.ErrNoAuth, zk.ErrAuthFailed, zk.ErrInvalidACL):
		return store.Wrap(valkeyrie.ErrUnauthorized, err)
	case errors.Is(err, zk.ErrShortBuffer):
		return store.Wrap(valkeyrie.ErrValueTooLarge, err)
	case isOneOf(err, zk.ErrInvalidPath, zk.ErrBadArguments):
		return store.Wrap(valkeyrie.ErrInvalidKey, err)
	case isOneOf(err, errUnsent, zk.ErrNoServer, zk.ErrSessionExpired, zk.ErrSessionMoved): // never sent, or refused
		return store.Wrap(valkeyrie.ErrNotReachable, err)
	case answered(err):
		return err
	case write:
		return store.Wrap(valkeyrie.ErrAmbiguous, err)
	}
	return store.Wrap(valkeyrie.ErrNotReachable, err)
}

// answered tells whether an error is the server's answer to a request, or says
// that it was not sent: it was not applied then. All others say that the connection broke before it came.
func answered(err error) bool {
	return strings.HasPrefix(err.Error(), "unknown error: ") || // a code that the client has no name for
		isOneOf(err, zk.ErrNoNode, zk.ErrNodeExists, zk.ErrBadVersion, zk.ErrNotEmpty,
			zk.ErrNoChildrenForEphemerals, zk.ErrNoAuth, zk.ErrAuthFailed, zk.ErrInvalidACL,
			zk.ErrBadArguments, zk.ErrInvalidPath, zk.ErrSessionExpired, zk.ErrSessionMoved, zk.ErrNoServer, zk.ErrShortBuffer, errUnsent)
}

// disconnected tells whether an error is that of a connection or a session, after
// which a retry may succeed.
func disconnected(err error) bool {
	var broken *net.OpError
	return errors.As(err, &broken) || isOneOf(err, zk.ErrConnectionClosed, zk.ErrClosing, zk.ErrSessionExpired,
		zk.ErrSessionMoved, zk.ErrNoServer, valkeyrie.ErrNotReachable, valkeyrie.ErrAmbiguous)
}

func isOneOf(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// failedAt returns the index of the operation for which a Multi failed, -1 when
// none did or the answer does not say.
func failedAt(results []zk.MultiResponse) int {
	for i, r := range results {
		if r.Error != nil {
			return i
		}
	}
	return -1
}

// remove deletes a node if it is there, whatever its version.
func remove(conn *zk.Conn, path string) error {
	if err := conn.Delete(path, -1); !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	return nil
}
