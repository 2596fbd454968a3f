package etcdv2

import (
	"errors"
	"fmt"
	"net/http"

	client "go.etcd.io/etcd/client/v2"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// plainError takes the client's error out of its list of one error for each
// endpoint, which does not unwrap.
func plainError(err error) error {
	var list *client.ClusterError
	if errors.As(err, &list) && len(list.Errors) == 1 {
		return list.Errors[0]
	}
	return err
}

// code is etcd's code of an error, 0 where it is not etcd's.
func code(err error) int {
	var etcd client.Error
	if errors.As(err, &etcd) {
		return etcd.Code
	}
	return 0
}

// answered tells whether etcd has answered the request, be it with an error.
func answered(err error) bool { return err == nil || code(err) != 0 }

// answer is an error that etcd answered with. Its text leaves out etcd's cause,
// which is the key on the wire.
type answer struct {
	sentinel error // nil: none fits
	etcd     client.Error
	node     *client.Node // of ErrKeyExists: the one that has the value
}

func (e *answer) Error() string {
	text := fmt.Sprintf("etcd error %d: %s [%d]", e.etcd.Code, e.etcd.Message, e.etcd.Index)
	if e.sentinel != nil {
		text = e.sentinel.Error() + ": " + text
	}
	return text
}

// Unwrap returns the sentinel and the client's error.
func (e *answer) Unwrap() []error {
	if e.sentinel == nil {
		return []error{e.etcd}
	}
	return []error{e.sentinel, e.etcd}
}

// sentinels are those that fit etcd's errors. Whether a directory or a value in
// the way is an error depends on the call.
var sentinels = map[int]error{
	client.ErrorCodeKeyNotFound:  valkeyrie.ErrKeyNotFound,
	client.ErrorCodeTestFailed:   valkeyrie.ErrKeyModified,
	client.ErrorCodeNodeExist:    valkeyrie.ErrKeyExists,
	client.ErrorCodeUnauthorized: valkeyrie.ErrUnauthorized,
	client.ErrorCodeNotFile:      valkeyrie.ErrCallNotSupported,
	client.ErrorCodeNotDir:       valkeyrie.ErrCallNotSupported,
}

// mapError maps etcd's answer to the sentinel that fits.
func mapError(err error) error {
	var etcd client.Error
	if !errors.As(err, &etcd) {
		return err
	}
	return &answer{sentinel: sentinels[etcd.Code], etcd: etcd}
}

// as gives etcd's answer another sentinel.
func as(sentinel, err error) *answer {
	a := &answer{sentinel: sentinel}
	errors.As(err, &a.etcd)
	return a
}

// errNoAPI says what to do about a server that knows nothing of the v2 API.
var errNoAPI = errors.New("the server has no v2 API: start it with --enable-v2, or use the backend etcdv3")

// unanswered maps the error of a request that etcd did not answer.
func unanswered(err error, asked request, write bool) error {
	switch {
	case asked.status == http.StatusNotFound:
		return fmt.Errorf("%w: %w: %w", valkeyrie.ErrCallNotSupported, errNoAPI, err)
	case write && asked.sent && (asked.status < http.StatusBadRequest || asked.status >= http.StatusInternalServerError):
		// Its errors 5xx include those of a write that took etcd too long.
		return store.Wrap(valkeyrie.ErrAmbiguous, err)
	}
	return store.Wrap(valkeyrie.ErrNotReachable, err)
}

// errHasChildren: the node of a key is a directory, as there are keys below it.
var errHasChildren = fmt.Errorf("%w: etcd v2 keeps no value where there are keys below", valkeyrie.ErrCallNotSupported)
