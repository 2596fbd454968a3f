package testutils

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/memory"
)

// Tests with faults are no proof either if they cannot fail. These give what
// they judge by what must not pass.

// scriptedLocker has a token and nothing else.
type scriptedLocker struct {
	valkeyrie.Locker
	token uint64
}

func (l *scriptedLocker) Token() uint64 { return l.token }

func TestHolders(t *testing.T) {
	open, closed := make(chan struct{}), make(chan struct{})
	close(closed)
	hold := func(token uint64) valkeyrie.Locker { return &scriptedLocker{token: token} }

	t.Run("one after another", func(t *testing.T) {
		var h holders
		for token := range uint64(3) {
			l := hold(token + 1)
			require.NoError(t, h.enter(l, open))
			h.leave(l)
		}
		require.Equal(t, 3, h.count)
	})
	t.Run("after a loss", func(t *testing.T) {
		var h holders
		first := make(chan struct{})
		require.NoError(t, h.enter(hold(1), first))
		close(first)
		require.NoError(t, h.enter(hold(2), open))
	})
	t.Run("two at a time", func(t *testing.T) {
		var h holders
		require.NoError(t, h.enter(hold(1), open))
		require.ErrorContains(t, h.enter(hold(2), open), "two holders")
	})
	t.Run("a token again", func(t *testing.T) {
		var h holders
		l := hold(7)
		require.NoError(t, h.enter(l, open))
		h.leave(l)
		require.ErrorContains(t, h.enter(hold(7), open), "token 7")
	})
	t.Run("lost before it was used", func(t *testing.T) {
		var h holders
		require.NoError(t, h.enter(hold(2), open))
		require.NoError(t, h.enter(hold(1), closed))
	})
}

func TestPulse(t *testing.T) {
	p := startPulse()
	defer p.end()
	begun := time.Now()
	require.Zero(t, p.missed(time.Now().Add(time.Hour)))
	require.Zero(t, (*pulse)(nil).missed(begun))

	p.mu.Lock()
	p.gaps = append(p.gaps, gap{time.Now().Add(time.Minute), time.Second})
	p.mu.Unlock()
	require.GreaterOrEqual(t, p.missed(time.Now().Add(30*time.Second)), time.Second)

	// A hold is excused that is lost soon after, and not one that stays.
	h := holders{pulse: p}
	soonLost, kept := make(chan struct{}), make(chan struct{})
	require.NoError(t, h.enter(&scriptedLocker{token: 1}, soonLost))
	time.AfterFunc(100*time.Millisecond, func() { close(soonLost) })
	require.NoError(t, h.enter(&scriptedLocker{token: 2}, kept))
	require.ErrorContains(t, h.enter(&scriptedLocker{token: 3}, make(chan struct{})), "two holders")
}

func TestChecker(t *testing.T) {
	var c checker
	require.NoError(t, c.write(1))
	require.NoError(t, c.write(1))
	require.NoError(t, c.write(3))
	require.ErrorIs(t, c.write(2), errFenced)
	require.NoError(t, c.write(3))
}

func TestScribeKnowsTheOrder(t *testing.T) {
	kv, err := memory.New([]string{t.Name()}, nil, nil)
	require.NoError(t, err)
	defer kv.Close()
	s, ctx := newScribe(kv), t.Context()
	require.NoError(t, s.put(ctx, "k"))    // 1
	require.NoError(t, s.put(ctx, "k"))    // 2
	require.NoError(t, s.delete(ctx, "k")) // 3
	require.NoError(t, s.put(ctx, "x"))    // 4
	require.NoError(t, s.put(ctx, "k"))    // 5
	require.NoError(t, s.delete(ctx, "k")) // 6
	for _, good := range [][]int{{}, {0}, {1, 2, 0, 5, 0}, {0, 1, 2, 5, 0}, {2, 5}, {1, 0, 5}, {0, 5}, {1, 1, 0, 0}} {
		require.NoError(t, s.inOrder("k", good), good)
	}
	for _, bad := range [][]int{{2, 1}, {1, 0, 2}, {5, 0, 5}, {5, 2}, {4}, {-1}, {2, 0, 1}, {5, 0, 0, 1}} {
		require.Error(t, s.inOrder("k", bad), bad)
	}
}

func TestRecorder(t *testing.T) {
	r := newRecorder("a watch")
	a, b := &pair{Key: "a", Value: []byte("1"), LastIndex: 1}, &pair{Key: "b", Value: []byte("2"), LastIndex: 2}
	r.noteAll([]*pair{a, b})
	require.True(t, r.is([]*pair{a, b}))
	require.False(t, r.is([]*pair{a}), "a key too many")
	r.noteAll([]*pair{b})
	require.True(t, r.is([]*pair{b}))
	require.False(t, r.is([]*pair{a, b}), "a key too few")
	require.False(t, r.is([]*pair{{Key: "b", Value: []byte("2"), LastIndex: 3}}), "another revision")
	require.False(t, r.is([]*pair{{Key: "b", Value: []byte("3"), LastIndex: 2}}), "another value")
	require.Equal(t, []int{1, 0}, r.states["a"])
	r.end(nil)
	_, err := r.judge(newScribe(nil))
	require.ErrorContains(t, err, "closed")
	require.ErrorContains(t, err, "never written")
}

func TestErrorsOfCallsThatCannotSucceed(t *testing.T) {
	op := func(errs ...error) error { return &valkeyrie.OpError{Op: "Get", Err: errors.Join(errs...)} }
	read, write := timedCall{op: "Get"}, timedCall{op: "Put", write: true}
	for _, good := range []error{
		op(valkeyrie.ErrNotReachable), op(context.DeadlineExceeded), op(valkeyrie.ErrNotReachable, context.DeadlineExceeded),
	} {
		require.NoError(t, failedRightly(read, good, false))
	}
	require.NoError(t, failedRightly(write, op(valkeyrie.ErrAmbiguous, context.DeadlineExceeded), false))
	for _, bad := range []error{
		nil, errors.New("connection refused"), op(errors.New("connection refused")), valkeyrie.ErrNotReachable,
		op(valkeyrie.ErrAmbiguous), op(valkeyrie.ErrAmbiguous, context.DeadlineExceeded),
	} {
		require.Error(t, failedRightly(read, bad, false), "%v", bad)
	}
	require.Error(t, failedRightly(write, op(valkeyrie.ErrAmbiguous), false))
	require.NoError(t, failedRightly(write, op(valkeyrie.ErrAmbiguous), true))
	require.Error(t, failedRightly(read, op(valkeyrie.ErrAmbiguous), true))
	require.ErrorIs(t, failedRightly(write, op(valkeyrie.ErrAmbiguous, valkeyrie.ErrNotReachable), false), errBoth)
}

// liar says now and then that a write was not applied that was.
type liar struct {
	kvstore
	err error
	n   int
}

func (s *liar) Put(ctx context.Context, key string, value []byte, opts *valkeyrie.WriteOptions) error {
	err := s.kvstore.Put(ctx, key, value, opts)
	if s.n++; s.n%5 == 0 && err == nil {
		return &valkeyrie.OpError{Op: "Put", Key: key, Err: s.err}
	}
	return err
}

func (s *liar) Delete(ctx context.Context, key string) error {
	err := s.kvstore.Delete(ctx, key)
	if s.n++; s.n%5 == 0 && err == nil {
		return &valkeyrie.OpError{Op: "Delete", Key: key, Err: s.err}
	}
	return err
}

// TestHistoriesOfLiars: what is refused and yet applied is found by the strict
// reading of a history, for deletions, too, whose value nobody can read.
func TestHistoriesOfLiars(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		good bool
	}{
		"not reachable":                {valkeyrie.ErrNotReachable, false},
		"the context's error":          {context.DeadlineExceeded, false},
		"ambiguous":                    {valkeyrie.ErrAmbiguous, true},
		"ambiguous and out of time":    {fmt.Errorf("%w: %w", valkeyrie.ErrAmbiguous, context.DeadlineExceeded), true},
		"ambiguous as well as refused": {fmt.Errorf("%w: %w", valkeyrie.ErrAmbiguous, valkeyrie.ErrNotReachable), true},
	} {
		t.Run(name, func(t *testing.T) {
			kv, err := memory.New([]string{t.Name()}, nil, nil)
			require.NoError(t, err)
			defer kv.Close()
			h := newHistory("liars")
			h.run(t.Context(), load{stores: []kvstore{&liar{kvstore: kv, err: c.err}}, clients: 1, calls: 200, timeout: time.Second})
			good := true
			for _, k := range h.keys {
				strict := &keyHistory{ops: definiteOf(k.ops)}
				good = good && k.errorsAreTrue() == nil && explained(strict)
			}
			require.Equal(t, c.good, good)
		})
	}
}

func explained(k *keyHistory) bool {
	return porcupine.CheckOperationsTimeout(keyModel, k.operations(), explainWithin) == porcupine.Ok
}

func TestSyncBufferKeepsTheEnd(t *testing.T) {
	var b syncBuffer
	for i := range 1000 {
		fmt.Fprintln(&b, i)
	}
	require.Contains(t, b.String(), "\n999\n")
	require.LessOrEqual(t, len(b.lines), 200)
	require.False(t, slices.Contains(b.lines, "1\n"))
}
