// Package unittest is somebody's own package, which shares out jobs, with unit
// tests that need no server: see jobs_test.go.
package unittest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kvtools/valkeyrie"
)

// Jobs says which instance of a service does which job. It takes a
// valkeyrie.Store, so that a test can give it one that lives in memory.
type Jobs struct{ kv valkeyrie.Store }

// New returns the jobs that are kept in the store.
func New(kv valkeyrie.Store) *Jobs { return &Jobs{kv: kv} }

// ErrTaken is what Claim returns when somebody else does the job.
var ErrTaken = errors.New("somebody else does it")

func key(name string) string { return "jobs/" + name }

// Claim takes a job for some time. Only one owner gets it.
func (j *Jobs) Claim(ctx context.Context, name, owner string, ttl time.Duration) error {
	_, _, err := j.kv.AtomicPut(ctx, key(name), []byte(owner), nil, &valkeyrie.WriteOptions{TTL: ttl})
	if errors.Is(err, valkeyrie.ErrKeyExists) {
		return fmt.Errorf("%s: %w", name, ErrTaken)
	}
	return err
}

// Owner returns who does a job, "" if nobody does.
func (j *Jobs) Owner(ctx context.Context, name string) (string, error) {
	pair, err := j.kv.Get(ctx, key(name), nil)
	if errors.Is(err, valkeyrie.ErrKeyNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return string(pair.Value), nil
}

// Wait returns when nobody does a job any more.
func (j *Jobs) Wait(ctx context.Context, name string) error {
	for event, err := range j.kv.Events(ctx, key(name), nil) {
		if err != nil {
			return err
		}
		if event.Type != valkeyrie.Put { // there is none, or it has gone
			if owner, err := j.Owner(ctx, name); err != nil || owner == "" {
				return err
			}
		}
	}
	return ctx.Err()
}
