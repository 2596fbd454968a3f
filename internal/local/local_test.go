package local

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that must happen soon.
const patience = 20 * time.Second

// faulty is a storage that a test can stop and break.
type faulty struct {
	Storage

	mu      sync.Mutex
	gate    chan struct{} // when not nil, an Update waits until it is closed, after it has run
	arrived chan struct{} // gets a token from each Update that waits
	broken  error         // what the next commit returns
	applied bool          // whether that commit is applied all the same
	updates int
}

func newFaulty() *faulty {
	return &faulty{Storage: NewMemory(), arrived: make(chan struct{}, 100)}
}

// block stops every Update before its commit until the function that it returns
// is called.
func (f *faulty) block() (release func()) {
	gate := make(chan struct{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gate = gate
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.gate = nil
		close(gate)
	})
}

// breakNext makes the next commit fail.
func (f *faulty) breakNext(applied bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = fmt.Errorf("%w: %w", valkeyrie.ErrAmbiguous, errors.New("disk on fire"))
	f.applied = applied
	return f.broken
}

func (f *faulty) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.updates
}

func (f *faulty) Update(fn func(Tx) error) error {
	f.mu.Lock()
	gate, broken, applied := f.gate, f.broken, f.applied
	f.broken = nil
	f.updates++
	f.mu.Unlock()
	err := f.Storage.Update(func(tx Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if gate != nil {
			f.arrived <- struct{}{}
			<-gate
		}
		if broken != nil && !applied {
			return broken
		}
		return nil
	})
	if err == nil {
		err = broken
	}
	return err
}

// env is a database with one driver.
type env struct {
	*testing.T
	*Driver
	ctx context.Context
	f   *faulty
}

func newEnv(t *testing.T) *env {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	f := newFaulty()
	db, err := Open(f, nil)
	require.NoError(t, err)
	d := NewDriver(db, "local", db.Close)
	t.Cleanup(func() { _ = d.Close() }) // some tests close it themselves
	return &env{T: t, Driver: d, ctx: ctx, f: f}
}

func (e *env) put(key, value string, ttl time.Duration) uint64 {
	e.Helper()
	w, err := e.Write(e.ctx, store.Write{Key: key, Value: []byte(value), TTL: ttl})
	require.NoError(e, err)
	return w.Revision
}

func (e *env) exists(key string) bool {
	e.Helper()
	_, err := e.Get(e.ctx, key, valkeyrie.ReadOptions{})
	if err != nil {
		require.ErrorIs(e, err, valkeyrie.ErrKeyNotFound)
	}
	return err == nil
}

// eventually polls until ok is true.
func (e *env) eventually(what string, ok func() bool) {
	e.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			require.FailNow(e, "did not happen: "+what)
		}
	}
}

// keys walks a directory.
func (e *env) keys(dir string) []string {
	e.Helper()
	keys := []string{}
	for p, err := range e.Walk(e.ctx, dir, valkeyrie.ReadOptions{KeysOnly: true}) {
		require.NoError(e, err)
		keys = append(keys, p.Key)
	}
	return keys
}
