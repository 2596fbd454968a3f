package boltdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/local"
)

// files are those that are open in this process. Two paths mean the same file if
// the operating system says so, whatever links there are.
var files = local.Shared[fs.FileInfo, *file]{Same: os.SameFile}

// pathOf returns the only endpoint.
func pathOf(endpoints []string) (string, error) {
	switch {
	case len(endpoints) == 0:
		return "", badPath("a path is required; give the path of the file, which is created if it is not there", nil)
	case len(endpoints) > 1:
		return "", badPath(fmt.Sprintf("there are %d; give one path", len(endpoints)), nil)
	case endpoints[0] == "":
		return "", badPath("the path is empty; give the path of the file", nil)
	}
	return endpoints[0], nil
}

// openBucket returns the database in one bucket of a file.
func openBucket(path string, o Options, settings valkeyrie.Config) (*local.DB, func() error, error) {
	info, err := ensure(path, o.FileMode)
	if err != nil {
		return nil, nil, err
	}
	deadline := time.Now().Add(settings.ConnectionTimeout)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	f, releaseFile, err := files.Acquire(ctx, info, func() (*file, error) {
		return openFile(path, o.FileMode, time.Until(deadline))
	}, (*file).close)
	if errors.Is(err, context.DeadlineExceeded) {
		err = inUse(path, err) // somebody in this process waits for it, too
	}
	if err != nil {
		return nil, nil, err
	}
	db, releaseBucket, err := f.buckets.Acquire(context.Background(), o.Bucket, func() (*local.DB, error) {
		return f.open(o.Bucket, settings.Logger)
	}, (*local.DB).Close)
	if err != nil {
		_ = releaseFile() // the first error says more
		return nil, nil, openError(path, err)
	}
	return db, func() error { return errors.Join(releaseBucket(), releaseFile()) }, nil
}

// ensure creates an empty file if there is none, so that files has something to
// compare.
func ensure(path string, mode fs.FileMode) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, mode); err == nil {
			info, err = f.Stat()
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		return nil, openError(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, badPath(fmt.Sprintf("%q is a directory or a device; give the path of a file", path), nil)
	}
	return info, nil
}

// openFile opens a file that nobody in this process has open.
func openFile(path string, mode fs.FileMode, timeout time.Duration) (f *file, err error) {
	defer func() {
		// What bbolt had opened until then stays open, and so the file locked,
		// until the process ends.
		if r := recover(); r != nil {
			f, err = nil, openError(path, damaged(r))
		}
	}()
	db, err := bbolt.Open(path, mode, &bbolt.Options{
		Timeout:        max(timeout, time.Nanosecond), // 0 would wait for ever
		FreelistType:   bbolt.FreelistMapType,         // stays fast in large files
		NoFreelistSync: true,                          // see file.close
		NoStatistics:   true,                          // they cost readers a lock
	})
	if err != nil {
		return nil, openError(path, err)
	}
	f = &file{db: db}
	f.buckets.Same = func(a, b string) bool { return a == b }
	return f, nil
}

// open opens the database in a bucket. That reads all its pages, so that damage
// shows here and not in a call.
func (f *file) open(name string, logger *slog.Logger) (db *local.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, damaged(r)
		}
	}()
	b, err := newBucket(f, name)
	if err != nil {
		return nil, err
	}
	if db, err = local.Open(b, logger); err != nil {
		_ = b.Close() // the first error says more
	}
	return db, err
}

// damaged makes an error of a panic: bbolt trusts the pages of a file whose
// first one looks right.
func damaged(panicked any) error { return fmt.Errorf("%w: %v", berrors.ErrInvalid, panicked) }
