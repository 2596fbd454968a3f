package valkeyrie

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The sentinels that errors of a Store or Locker unwrap to; test for them with
// errors.Is. A context that ended shows as context.Canceled or
// context.DeadlineExceeded in the same way.
var (
	// ErrKeyNotFound: the key, or anything below the directory, is not there.
	ErrKeyNotFound = errors.New("key not found")

	// ErrKeyModified: the key is there, with another revision than the previous
	// pair that was given.
	ErrKeyModified = errors.New("key has been modified: its revision is not that of the previous pair")

	// ErrKeyExists: AtomicPut without a previous pair found the key there.
	ErrKeyExists = errors.New("key exists already")

	// ErrPreviousNotSpecified: AtomicDelete was called with a nil previous pair.
	ErrPreviousNotSpecified = errors.New("previous pair not specified: give the pair that was read, or use Delete")

	// ErrInvalidKey: the key breaks the rules for keys; nothing was sent.
	ErrInvalidKey = errors.New("invalid key")

	// ErrInvalidOption: an option of the call has a value that cannot be meant,
	// such as a negative TTL; nothing was sent.
	ErrInvalidOption = errors.New("invalid option")

	// ErrValueTooLarge: the value is larger than the server takes; nothing was written.
	ErrValueTooLarge = errors.New("value too large")

	// ErrCallNotSupported: the server cannot do this; see docs/compatibility.md.
	ErrCallNotSupported = errors.New("call not supported by this backend")

	// ErrLockHeld: TryLock found the lock held, by whomever.
	ErrLockHeld = errors.New("lock is held")

	// ErrLockNotHeld: Unlock of a lock that is not held, or not any more.
	ErrLockNotHeld = errors.New("lock is not held")

	// ErrNotReachable: the server could not be reached; a write was not applied.
	ErrNotReachable = errors.New("store not reachable")

	// ErrUnauthorized: the server refused the credentials, or their rights do
	// not cover the call.
	ErrUnauthorized = errors.New("not authorized")

	// ErrAmbiguous: the write may or may not have been applied, as the
	// connection or the context ended after it was sent. Read what is there
	// before you write again.
	ErrAmbiguous = errors.New("outcome unknown: the write may or may not have been applied")

	// ErrCorrupt: what is stored under the key cannot be read as a value of
	// this library. It is left as it is until a Put or Delete of that key. A watch
	// that runs waits for that, and logs why.
	ErrCorrupt = errors.New("stored data is corrupt, or was not written by this library")

	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store is closed")
)

// OpError is the error of every call of a Store or a Locker.
type OpError struct {
	Op      string // the method, for example "AtomicPut"
	Backend string // the backend's name, for example "etcdv3"
	Key     string // the key or directory of the call, as the caller gave it
	Err     error  // unwraps to a sentinel and to the client's error
}

// Error returns the backend, the method, the key and the cause in one line.
func (e *OpError) Error() string {
	s := e.Backend + ": " + e.Op
	if e.Key != "" || e.Op != "Close" { // which has no key
		s += " " + quoted(e.Key)
	}
	return s + ": " + e.Err.Error()
}

// quoted quotes a key, of one that is too long to be one only the beginning.
func quoted(key string) string {
	const longest, shown = 1024, 64
	if len(key) > longest {
		return strconv.Quote(key[:shown]) + "…"
	}
	return strconv.Quote(key)
}

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// UnknownBackendError is what NewStore returns for a name that is not registered.
type UnknownBackendError struct {
	Name       string
	Registered []string // what was registered at the time, sorted
}

// own lists the backends of this module, to name the right import.
var own = []string{"boltdb", "consul", "dynamodb", "etcdv2", "etcdv3", "memory", "redis", "zookeeper"}

// Error says which import is missing, or which names there are.
func (e *UnknownBackendError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "valkeyrie: unknown backend %q", e.Name)
	if slices.Contains(own, e.Name) {
		fmt.Fprintf(&b, ": add the import _ \"github.com/kvtools/valkeyrie/store/%s\"", e.Name)
	} else {
		fmt.Fprintf(&b, ": the library has %s; a backend of your own must be imported and call valkeyrie.Register",
			strings.Join(own, ", "))
	}
	if len(e.Registered) == 0 {
		b.WriteString(" (no backend is imported)")
	} else {
		fmt.Fprintf(&b, " (imported: %s)", strings.Join(e.Registered, ", "))
	}
	return b.String()
}

// InvalidConfigError is what a Constructor returns for arguments that cannot be right.
type InvalidConfigError struct {
	Backend string // the backend's name
	Field   string // what is wrong: "endpoints", or a field such as "Config.Prefix"
	Reason  string // what is wrong with it and what to do
	Err     error  // the cause, where there is one
}

// Error names the backend, the field and what to do.
func (e *InvalidConfigError) Error() string {
	s := "valkeyrie: " + e.Backend + ": " + e.Field + ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause, or nil.
func (e *InvalidConfigError) Unwrap() error { return e.Err }
