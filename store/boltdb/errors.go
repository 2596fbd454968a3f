package boltdb

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	berrors "go.etcd.io/bbolt/errors"

	"github.com/kvtools/valkeyrie"
)

// clientError maps bbolt's errors to ours. It keeps them in the chain.
func clientError(err error) error {
	for _, m := range []struct{ theirs, ours error }{
		{berrors.ErrDatabaseNotOpen, valkeyrie.ErrClosed},
		{berrors.ErrTxClosed, valkeyrie.ErrClosed},
		{berrors.ErrValueTooLarge, valkeyrie.ErrValueTooLarge},
		{berrors.ErrKeyTooLarge, valkeyrie.ErrInvalidKey},
		{berrors.ErrKeyRequired, valkeyrie.ErrInvalidKey},
		{berrors.ErrIncompatibleValue, valkeyrie.ErrCorrupt}, // a nested bucket
	} {
		if err != nil && errors.Is(err, m.theirs) {
			return fmt.Errorf("%w: %w", m.ours, err)
		}
	}
	return err
}

// badPath makes the error of an endpoint that cannot be right.
func badPath(reason string, err error) error {
	return &valkeyrie.InvalidConfigError{Backend: StoreName, Field: "endpoints", Reason: reason, Err: err}
}

// openError makes the error of a file that could not be opened.
func openError(path string, err error) error {
	var pathError *fs.PathError
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return inUse(path, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return badPath("the directory of the file must exist; create it first", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return badPath("this process must be allowed to read and write the file and, to create it, its directory", err)
	case errors.As(err, &pathError):
		return badPath("the file cannot be opened", err)
	default:
		return badPath(fmt.Sprintf("%q is not a BoltDB file, or is damaged; give the path of another file or of one that is to be created", path), err)
	}
}

// inUse makes the error of a file that somebody else has.
func inUse(path string, err error) error {
	return &valkeyrie.OpError{Op: "New", Backend: StoreName, Key: path, Err: fmt.Errorf(
		"%w: another process has the file open, and a file serves one process at a time; stop it, give this process a file of its own, or use a backend with a server: %w",
		valkeyrie.ErrNotReachable, err)}
}
