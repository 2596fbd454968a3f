package redis

import (
	"context"
	"errors"
	"strings"

	"github.com/gomodule/redigo/redis"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// noReply is the error of a command that was not answered.
type noReply struct {
	sent bool // it may have reached the server
	err  error
}

func (e *noReply) Error() string { return e.err.Error() }
func (e *noReply) Unwrap() error { return e.err }

// readError maps the error of a command that changes nothing.
func readError(err error) error { return mapError(err, false) }

// writeError maps the error of a command that writes.
func writeError(err error) error { return mapError(err, true) }

// mapError maps an error to the sentinel that fits.
func mapError(err error, write bool) error {
	var lost *noReply
	var answer redis.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &lost) && lost.sent && write:
		return store.Wrap(valkeyrie.ErrAmbiguous, err)
	case errors.As(err, &answer):
		mapped := answerError(answer, err)
		if mapped == err && lost != nil { // why there is no connection
			mapped = store.Wrap(valkeyrie.ErrNotReachable, err)
		}
		return mapped
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, valkeyrie.ErrClosed):
		return err
	case lost != nil:
		return store.Wrap(valkeyrie.ErrNotReachable, err)
	}
	return err
}

// answerError maps what a server answered; the command was not applied.
func answerError(answer redis.Error, err error) error {
	switch code(answer) {
	case "NOAUTH", "WRONGPASS", "NOPERM":
		return store.Wrap(valkeyrie.ErrUnauthorized, err)
	case "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "MOVED", "ASK":
		return store.Wrap(valkeyrie.ErrNotReachable, err)
	case "WRONGTYPE":
		return store.Wrap(valkeyrie.ErrCorrupt, err)
	case "ERR":
		// What Redis before version 6 says to AUTH.
		if strings.Contains(string(answer), "invalid password") || strings.Contains(string(answer), "AUTH") {
			return store.Wrap(valkeyrie.ErrUnauthorized, err)
		}
	}
	return err
}

// code is the first word of an error that a server answered.
func code(err redis.Error) string {
	c, _, _ := strings.Cut(string(err), " ")
	return c
}

// isCode tells whether an error is the server's answer to the command, beginning
// with that word.
func isCode(err error, is string) bool {
	var answer redis.Error
	return isAnswer(err) && errors.As(err, &answer) && code(answer) == is
}

// isAnswer tells whether an error is the server's answer to the command. One that
// is why there is no connection is none.
func isAnswer(err error) bool {
	var lost *noReply
	return saysServer(err) && !errors.As(err, &lost)
}

// saysServer tells whether an error comes from a server.
func saysServer(err error) bool {
	var answer redis.Error
	return errors.As(err, &answer)
}

// missing tells whether the error of a read or delete of one key says that there
// is nothing that is ours.
func missing(err error) bool {
	return errors.Is(err, valkeyrie.ErrKeyNotFound) || isCode(err, "WRONGTYPE")
}

// redirects tells whether a node of a cluster says that a key is to be asked for
// elsewhere, or again.
func redirects(err error) bool {
	return isCode(err, "MOVED") || isCode(err, "ASK") || isCode(err, "TRYAGAIN")
}
