package testutils

import (
	"context"
	"time"
)

// Native is a backend's own client, used as its documentation shows: what a
// service would write that does not use this library. Benchmark measures the
// store against it. A nil func means that there is no baseline for that load.
// Calls are concurrent, except Close. Keys are what Benchmark gives; where the
// store shares the server, they must not be kept where the store keeps its own
// (another bucket, table or prefix).
type Native struct {
	// Get reads a key that is there.
	Get func(ctx context.Context, key string) error

	// Put writes a key.
	Put func(ctx context.Context, key string, value []byte) error

	// PutTTL writes a key that expires.
	PutTTL func(ctx context.Context, key string, value []byte, ttl time.Duration) error

	// CreateUpdate creates a key that is not there, and then writes it on the
	// condition that it is still as it was created.
	CreateUpdate func(ctx context.Context, key string, value []byte) error

	// List reads all keys and values below a directory, and returns how many.
	List func(ctx context.Context, directory string) (int, error)

	// DeleteTree removes all keys below a directory.
	DeleteTree func(ctx context.Context, directory string) error

	// NewLock returns the client's own lock on a key; each call is another
	// contender. lock waits.
	NewLock func(key string) (lock, unlock func(ctx context.Context) error)

	// Fill puts keys with a value of 100 bytes before a load begins, in the
	// quickest way there is; it is not measured. Default: Put for each.
	Fill func(ctx context.Context, keys []string) error

	// Close frees what the client has.
	Close func()
}
