package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// mapError maps the error of a request to the sentinel that fits. A write that
// may have reached the server and was not answered may have been applied.
func mapError(ctx context.Context, err error, write bool) error {
	if err == nil {
		return nil
	}
	var status api.StatusError
	if errors.As(err, &status) {
		return statusError(status, err, write)
	}
	var failed *requestError
	sent := !errors.As(err, &failed) || failed.sent
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		err = store.Wrap(cause, err)
	}
	switch {
	case write && sent:
		return store.Wrap(valkeyrie.ErrAmbiguous, err)
	case ctx.Err() != nil, errors.Is(err, valkeyrie.ErrClosed):
		return err
	}
	return store.Wrap(valkeyrie.ErrNotReachable, err)
}

const (
	// noLeader is how Consul's servers say that there was nobody to give a request
	// to, after they waited for a leader in vain. There is no other sign of it than
	// the text (structs.ErrNoLeader).
	noLeader = "No cluster leader"

	// permissionDenied begins the errors of Consul's ACLs. In the answer to a
	// transaction there is no other sign of them than the text
	// (acl.ErrPermissionDenied).
	permissionDenied = "Permission denied"
)

// statusError maps a refusal.
func statusError(status api.StatusError, err error, write bool) error {
	switch {
	case status.Code == http.StatusForbidden, status.Code == http.StatusUnauthorized:
		return store.Wrap(valkeyrie.ErrUnauthorized, err)
	case status.Code == http.StatusRequestEntityTooLarge:
		return store.Wrap(valkeyrie.ErrValueTooLarge, err)
	case status.Code == http.StatusTooManyRequests:
		// Refused before it was looked at: too many requests, or too many
		// connections, of which each watch needs one.
		return fmt.Errorf("%w: %w (limits.http_max_conns_per_client and limits.request_limits are the agent's)", valkeyrie.ErrNotReachable, err)
	case strings.Contains(status.Body, noLeader):
		return store.Wrap(valkeyrie.ErrNotReachable, err)
	case status.Code < http.StatusInternalServerError:
		return err // an option that the server does not know
	case write:
		return store.Wrap(valkeyrie.ErrAmbiguous, err) // it may come from anywhere on the way to the leader's log
	}
	return store.Wrap(valkeyrie.ErrNotReachable, err)
}

// conflict is the error of a transaction of which nothing was applied.
type conflict struct{ errs api.TxnErrors }

// Error joins what each operation says.
func (e *conflict) Error() string {
	var texts []string
	for _, failed := range e.errs {
		texts = append(texts, failed.What)
	}
	return "transaction refused: " + strings.Join(texts, "; ")
}

// failed tells whether an operation was a cause. Consul looks at every operation,
// also after one has failed.
func (e *conflict) failed(op int) bool {
	for _, failed := range e.errs {
		if failed.OpIndex == op {
			return true
		}
	}
	return false
}

// asConflict returns the conflict that an error is, else nil.
func asConflict(err error) *conflict {
	var c *conflict
	errors.As(err, &c)
	return c
}

// conflictError maps the answer of a transaction of which nothing was applied.
func conflictError(errs api.TxnErrors) error {
	c := &conflict{errs: errs}
	for _, failed := range errs {
		if strings.HasPrefix(failed.What, permissionDenied) {
			return fmt.Errorf("%w: %s", valkeyrie.ErrUnauthorized, c.Error()) // which is no condition's
		}
	}
	return c
}
