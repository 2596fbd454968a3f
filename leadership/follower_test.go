package leadership

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// following is a follower in another goroutine.
type following struct {
	names chan string
	err   error // how it ended; read after names is closed
	stop  context.CancelFunc
}

func follow(t *testing.T, kv valkeyrie.Store) *following {
	ctx, stop := context.WithCancel(t.Context())
	f := &following{names: make(chan string, 100), stop: stop}
	go func() {
		defer close(f.names)
		for name, err := range NewFollower(kv, election, nil).Leaders(ctx) {
			if f.err = err; err != nil {
				return
			}
			f.names <- name
		}
	}()
	return f
}

// is checks what comes next.
func (f *following) is(t *testing.T, want string) {
	t.Helper()
	select {
	case name, open := <-f.names:
		require.True(t, open, "the follower ended: %v", f.err)
		require.Equal(t, want, name)
	case <-time.After(2 * longestPause):
		require.FailNow(t, "the follower does not see "+want)
	}
}

// ends stops it.
func (f *following) ends(t *testing.T) {
	t.Helper()
	f.stop()
	synctest.Wait()
	_, open := <-f.names
	require.False(t, open)
	require.NoError(t, f.err)
}

func TestAFollowerSeesEachLeaderAndNone(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		f := follow(t, kv)
		f.is(t, "")
		a := campaign(t, candidate(t, kv, "a"))
		f.is(t, "a")
		late := follow(t, kv)
		late.is(t, "a")
		a.ends(t)
		f.is(t, "")
		late.is(t, "")
		late.ends(t)
		b := campaign(t, candidate(t, kv, "b"))
		f.is(t, "b")
		name, err := NewFollower(kv, election, nil).Leader(t.Context())
		require.NoError(t, err)
		require.Equal(t, "b", name)

		// A leader of the same name is no change, whatever happens to the key.
		for range 3 {
			require.NoError(t, kv.Put(t.Context(), election, []byte("b"), nil))
			synctest.Wait()
		}
		require.Empty(t, f.names)
		b.ends(t)
		require.NoError(t, kv.Delete(t.Context(), election))
		f.is(t, "")
		name, err = NewFollower(kv, election, nil).Leader(t.Context())
		require.NoError(t, err)
		require.Empty(t, name)
		f.ends(t)
	})
}

func TestAFollowerDoesNotHangWhenItsWatchFailed(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		kv.events = []error{valkeyrie.ErrNotReachable, errOther, errOther}
		f := follow(t, kv)
		f.is(t, "") // it has tried until it worked
		a := campaign(t, candidate(t, kv, "a"))
		f.is(t, "a")

		// The leader changes while there is no watch.
		kv.breakWatches(errOther, nil)
		a.ends(t)
		b := campaign(t, candidate(t, kv, "b"))
		f.is(t, "b")

		// Nobody leads any more, and again there was no watch to tell.
		kv.breakWatches(errOther, nil)
		b.ends(t)
		f.is(t, "")

		kv.breakWatches(errOther, nil)
		time.Sleep(10 * longestPause)
		require.Empty(t, f.names, "nothing has changed")
		f.ends(t)
	})
}

func TestAFollowerEndsWithAnErrorThatNoRetryCanMend(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		f := follow(t, kv)
		f.is(t, "")
		kv.breakWatches(&valkeyrie.OpError{Err: valkeyrie.ErrUnauthorized}, nil)
		_, open := <-f.names
		require.False(t, open)
		require.ErrorIs(t, f.err, valkeyrie.ErrUnauthorized)

		f = follow(t, kv)
		f.is(t, "")
		require.NoError(t, kv.Close())
		_, open = <-f.names
		require.False(t, open)
		require.ErrorIs(t, f.err, valkeyrie.ErrClosed)
	})
}

func TestAFollowerCanBeStoppedWhileTheStoreIsAway(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		for range 20 {
			kv.events = append(kv.events, errOther)
		}
		f := follow(t, kv)
		time.Sleep(time.Second)
		f.ends(t)
	})
}

func TestNoStaleLeaderIsShown(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		a := campaign(t, candidate(t, kv, "a"))
		a.leads(t, time.Second)
		follower := NewFollower(kv, election, nil)
		kv.breakWatches(errOther, &valkeyrie.OpError{Err: valkeyrie.ErrNotReachable})
		name, err := follower.Leader(t.Context())
		require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
		require.Empty(t, name, "who led before the store went away is no answer")
		kv.breakWatches(errOther, nil)
		a.ends(t)
		name, err = follower.Leader(t.Context())
		require.NoError(t, err)
		require.Empty(t, name)
	})
}

func TestALoopOverLeadersCanBreakOff(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		for name, err := range NewFollower(kv, election, nil).Leaders(t.Context()) {
			require.NoError(t, err)
			require.Empty(t, name)
			break
		}
		synctest.Wait()
	})
}
