package testutils

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// refusedWithin is how long all calls together may take that a server refuses, or
// that find no server.
const refusedWithin = time.Minute

// RequireUnauthorized checks that every call on the directory and what is below it
// fails with valkeyrie.ErrUnauthorized: the server does not let the store in, or
// not there. It changes nothing there.
func RequireUnauthorized(t testing.TB, s valkeyrie.Store, dir string) {
	t.Helper()
	for op, err := range refusedCalls(t, s, dir) {
		assert.ErrorIs(t, err, valkeyrie.ErrUnauthorized, "%s below %s", op, dir)
	}
}

// RequireUnreachable checks what the contract says of a store whose servers are
// not there, none of them: open, which makes it, does not wait for them, and then
// every call fails with valkeyrie.ErrNotReachable, as nothing was sent.
func RequireUnreachable(t testing.TB, open func() valkeyrie.Store) {
	t.Helper()
	began := time.Now()
	s := open()
	require.Less(t, time.Since(began), time.Second, "it waited for the server")
	for op, err := range refusedCalls(t, s, "nowhere") {
		assert.ErrorIs(t, err, valkeyrie.ErrNotReachable, op)
		assert.NotErrorIs(t, err, valkeyrie.ErrAmbiguous, op)
	}
}

// refusedCalls makes all calls at once, each in each of its forms, and returns
// their errors.
func refusedCalls(t testing.TB, s valkeyrie.Store, dir string) map[string]error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), refusedWithin)
	defer cancel()
	lockers := make([]valkeyrie.Locker, 2)
	for i := range lockers {
		var err error
		lockers[i], err = s.NewLock(ctx, dir+"/lock", nil)
		require.NoError(t, err, "NewLock asks nobody")
	}
	calls := serverCalls(s, dir, &pair{Key: dir + "/k", LastIndex: 5}, lockers[0], lockers[1])
	for how, opts := range map[string]*valkeyrie.WriteOptions{
		" with TTL":       {TTL: time.Minute},
		" with KeepAlive": {TTL: time.Minute, KeepAlive: true},
	} {
		calls = append(calls, timedCall{"Put" + how, true, func(ctx context.Context) error {
			return s.Put(ctx, dir+"/k", nil, opts)
		}}, timedCall{"AtomicPut" + how, true, func(ctx context.Context) error {
			_, _, err := s.AtomicPut(ctx, dir+"/k", nil, &pair{Key: dir + "/k", LastIndex: 5}, opts)
			return err
		}})
	}
	type result struct {
		op  string
		err error
	}
	results := make(chan result, len(calls))
	for _, c := range calls {
		go func() { results <- result{c.op, c.run(ctx)} }()
	}
	errs := make(map[string]error)
	for range calls {
		r := <-results
		require.NotContains(t, errs, r.op)
		errs[r.op] = r.err
	}
	return errs
}
