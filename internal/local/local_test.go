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

func TestConditions(t *testing.T) {
	e := newEnv(t)
	one := e.put("k", "1", 0)
	_, err := e.Write(e.ctx, store.Write{Key: "k", Create: true})
	require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
	_, err = e.Write(e.ctx, store.Write{Key: "k", IfRevision: one + 1})
	require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
	_, err = e.Write(e.ctx, store.Write{Key: "none", IfRevision: one})
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	require.ErrorIs(t, e.Delete(e.ctx, "k", one+1), valkeyrie.ErrKeyModified)
	require.ErrorIs(t, e.Delete(e.ctx, "none", one), valkeyrie.ErrKeyNotFound)
	require.ErrorIs(t, e.Delete(e.ctx, "none", 0), valkeyrie.ErrKeyNotFound)
	_, err = e.Renew(e.ctx, "k", one+1, time.Hour)
	require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
	_, err = e.Renew(e.ctx, "none", one, time.Hour)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)

	w, err := e.Write(e.ctx, store.Write{Key: "k", Value: []byte{}, IfRevision: one})
	require.NoError(t, err)
	p, err := e.Get(e.ctx, "k", valkeyrie.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, &valkeyrie.KVPair{Key: "k", Value: []byte{}, LastIndex: w.Revision}, p)
	require.NoError(t, e.Delete(e.ctx, "k", w.Revision))
	_, err = e.Write(e.ctx, store.Write{Key: "k", Create: true})
	require.NoError(t, err)
}

func TestRevisionsNeverRepeat(t *testing.T) {
	e := newEnv(t)
	seen := map[uint64]bool{}
	for range 50 {
		for _, key := range []string{"a", "b"} {
			r := e.put(key, "same", 0)
			require.NotZero(t, r)
			require.False(t, seen[r])
			seen[r] = true
		}
		require.NoError(t, e.Delete(e.ctx, "a", 0))
	}
}

func TestOneTransactionForAllThatWait(t *testing.T) {
	e := newEnv(t)
	release := e.f.block()
	defer release()
	const n = 50
	errs := make(chan error, n+1)
	write := func(w store.Write) {
		_, err := e.Write(e.ctx, w)
		errs <- err
	}
	go write(store.Write{Key: "first"})
	<-e.f.arrived
	before := e.f.count()
	for i := range n {
		go write(store.Write{Key: fmt.Sprint("k", i%10), Create: true}) // one in five succeeds
	}
	e.eventually("all wait", func() bool { return e.db.waiting() == n })
	release()
	failed := 0
	for range n + 1 {
		if err := <-errs; err != nil {
			require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
			failed++
		}
	}
	require.Equal(t, n-10, failed, "those whose condition does not hold fail alone")
	require.Equal(t, before+1, e.f.count())
}

// waiting returns how many requests are in the queue.
func (db *DB) waiting() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return len(db.queue)
}

func TestConditionThatFailsCommitsNothing(t *testing.T) {
	e := newEnv(t)
	e.put("k", "", 0)
	e.f.breakNext(false) // would show in a commit
	_, err := e.Write(e.ctx, store.Write{Key: "k", Create: true})
	require.ErrorIs(t, err, valkeyrie.ErrKeyExists)
}

// end is how a call is made to return early, and the error that tells so.
type end struct {
	name  string
	now   func(e *env, cancel context.CancelFunc)
	cause error
}

var ends = []end{
	{"the context ends", func(_ *env, cancel context.CancelFunc) { cancel() }, context.Canceled},
	{"the driver is closed", func(e *env, _ context.CancelFunc) {
		e.closed.Store(true)
		close(e.done) // as Close does, which would wait for the commit
	}, valkeyrie.ErrClosed},
}

func TestWritesThatAreCutOff(t *testing.T) {
	for _, how := range ends {
		t.Run(how.name, func(t *testing.T) {
			e := newEnv(t)
			release := e.f.block()
			defer release()
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			start := func(key string) chan error {
				out := make(chan error, 1)
				go func() {
					_, err := e.Write(ctx, store.Write{Key: key})
					out <- err
				}()
				return out
			}
			first := start("taken")
			<-e.f.arrived
			second := start("waiting")
			e.eventually("the second waits", func() bool { return e.db.waiting() == 1 })
			how.now(e, cancel)

			err := <-first
			require.ErrorIs(t, err, how.cause)
			require.ErrorIs(t, err, valkeyrie.ErrAmbiguous, "it is being committed")
			err = <-second
			require.ErrorIs(t, err, how.cause)
			require.NotErrorIs(t, err, valkeyrie.ErrAmbiguous, "it was withdrawn")

			release()
			other := NewDriver(e.db, "local", func() error { return nil })
			_, err = other.Write(e.ctx, store.Write{Key: "last"})
			require.NoError(t, err)
			found := func(key string) bool {
				_, err := other.Get(e.ctx, key, valkeyrie.ReadOptions{})
				return err == nil
			}
			require.True(t, found("taken"))
			require.False(t, found("waiting"))
			if how.cause == valkeyrie.ErrClosed {
				require.NoError(t, e.db.Close())
			}
		})
	}
}

func TestClosedDriver(t *testing.T) {
	e := newEnv(t)
	other := NewDriver(e.db, "local", func() error { return nil })
	require.NoError(t, other.Close())
	require.NoError(t, other.Close())
	_, err := other.Get(e.ctx, "k", valkeyrie.ReadOptions{})
	require.ErrorIs(t, err, valkeyrie.ErrClosed)
	_, err = other.Write(e.ctx, store.Write{Key: "k"})
	require.ErrorIs(t, err, valkeyrie.ErrClosed)
	require.ErrorIs(t, other.Watch(e.ctx, store.WatchRequest{Key: "k"}, &recorder{}), valkeyrie.ErrClosed)
	for _, err := range other.Walk(e.ctx, "", valkeyrie.ReadOptions{}) {
		require.ErrorIs(t, err, valkeyrie.ErrClosed)
	}
	e.put("k", "", 0) // the other one goes on
}

func TestFailedCommit(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprint("applied: ", applied), func(t *testing.T) {
			e := newEnv(t)
			l, err := e.TryLock(e.ctx, store.LockRequest{Key: "lock", TTL: 100 * time.Millisecond, Owner: "me"})
			require.NoError(t, err)
			watched := make(chan error, 1)
			sink := &recorder{}
			go func() { watched <- e.Watch(e.ctx, store.WatchRequest{Tree: true}, sink) }()
			e.eventually("the watch has begun", func() bool { return sink.synced() })

			cause := e.f.breakNext(applied)
			_, err = e.Write(e.ctx, store.Write{Key: "k", TTL: 200 * time.Millisecond})
			require.ErrorIs(t, err, cause)
			require.ErrorIs(t, err, valkeyrie.ErrAmbiguous)
			require.Equal(t, applied, e.exists("k"))
			require.Error(t, <-watched, "it has to look again")

			for range 10 {
				require.NoError(t, l.Renew(e.ctx), "holds are as they were")
				e.put("other", "", time.Minute)
			}
			e.eventually("expiry works again", func() bool {
				_, found, err := e.f.Storage.Get("k", false)
				require.NoError(t, err)
				return !found
			})
		})
	}
}

func TestDeleteTree(t *testing.T) {
	e := newEnv(t)
	for _, key := range []string{"d", "d/a", "d/b/c", "da", "d0"} {
		e.put(key, "", 0)
	}
	require.ErrorIs(t, e.DeleteTree(e.ctx, "none/"), valkeyrie.ErrKeyNotFound)
	require.ErrorIs(t, e.DeleteTree(e.ctx, "da/"), valkeyrie.ErrKeyNotFound)
	before := e.f.count()
	require.NoError(t, e.DeleteTree(e.ctx, "d/"))
	require.Equal(t, before+1, e.f.count())
	require.Equal(t, []string{"d", "d0", "da"}, e.keys(""))
}

func TestWalk(t *testing.T) {
	e := newEnv(t)
	const n = 3*pageKeys + 7
	var want []string
	for i := range n {
		key := fmt.Sprintf("d/%05d", i)
		want = append(want, key)
		e.put(key, "v", 0)
	}
	require.Equal(t, want, e.keys("d/"))
	require.Empty(t, e.keys("d/00001/"))

	// What exists from start to end is in it, whatever happens meanwhile.
	var got []string
	for p, err := range e.Walk(e.ctx, "d/", valkeyrie.ReadOptions{}) {
		require.NoError(t, err)
		if len(got)%100 == 0 {
			e.put(p.Key+"/new", "", 0)
			require.NoError(t, e.Delete(e.ctx, p.Key, 0))
		}
		if len(p.Value) > 0 {
			got = append(got, p.Key)
		}
	}
	require.Equal(t, want, got)

	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	var last error
	for _, err := range e.Walk(ctx, "d/", valkeyrie.ReadOptions{}) {
		cancel()
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
}

func TestWalkHoldsFewBytes(t *testing.T) {
	e := newEnv(t)
	for i := range 4 {
		e.put(fmt.Sprint("d/", i), string(make([]byte, pageBytes)), 0)
	}
	page, more, err := e.page("d/", "d/", false, nil)
	require.NoError(t, err)
	require.True(t, more)
	require.Len(t, page, 1)
	require.Len(t, e.keys("d/"), 4)
}
