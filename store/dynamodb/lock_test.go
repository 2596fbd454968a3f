package dynamodb

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

// TestTokensGrowWhateverHappensToTheKey begins with the token of a client whose
// clock is an hour ahead, which the time alone does not exceed.
func TestTokensGrowWhateverHappensToTheKey(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, nil, nil)
	const key = "tokens/dir/lock"
	token := uint64(time.Now().Add(time.Hour).UnixMicro())
	rawItem(t, "valkeyrie", tombstone(key, token).encode())
	acquire := func(after string) {
		t.Helper()
		l, err := s.NewLock(ctx, key, nil)
		require.NoError(t, err)
		_, err = l.TryLock(ctx)
		require.NoError(t, err, after)
		require.Greater(t, l.Token(), token, after)
		token = l.Token()
		require.NoError(t, l.Unlock(ctx))
	}
	acquire("a release")
	require.NoError(t, s.Put(ctx, key, nil, nil))
	require.NoError(t, s.Delete(ctx, key))
	acquire("Put and Delete")
	_, p, err := s.AtomicPut(ctx, key, nil, nil, nil)
	require.NoError(t, err)
	_, p, err = s.AtomicPut(ctx, key, []byte("v"), p, &valkeyrie.WriteOptions{TTL: time.Hour})
	require.NoError(t, err)
	_, err = s.AtomicDelete(ctx, key, p)
	require.NoError(t, err)
	acquire("AtomicPut and AtomicDelete")
	require.NoError(t, s.Put(ctx, key, nil, nil))
	require.NoError(t, s.DeleteTree(ctx, "tokens/dir"))
	acquire("DeleteTree")
	require.NoError(t, s.Put(ctx, key, nil, &valkeyrie.WriteOptions{TTL: time.Millisecond}))
	require.Eventually(t, func() bool {
		there, err := s.Exists(ctx, key, nil)
		return err == nil && !there
	}, 10*time.Second, 5*time.Millisecond)
	acquire("expiry")
	held, err := s.NewLock(ctx, key, nil)
	require.NoError(t, err)
	_, err = held.TryLock(ctx)
	require.NoError(t, err)
	require.Greater(t, held.Token(), token)
	token = held.Token()
	require.NoError(t, s.Delete(ctx, key))
	acquire("a deletion while it was held")

	// All that is left counts as absent.
	_, err = s.List(ctx, "tokens", nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	require.ErrorIs(t, s.Delete(ctx, key), valkeyrie.ErrKeyNotFound)
	require.ErrorIs(t, s.DeleteTree(ctx, "tokens"), valkeyrie.ErrKeyNotFound)
	_, err = s.AtomicDelete(ctx, key, p)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
}

// foreignHold writes the hold of a client whose clock is off by so much.
func foreignHold(t *testing.T, key string, off, lease time.Duration) {
	t.Helper()
	rawItem(t, "valkeyrie", item{
		key: key, revision: 7, expires: expiry(time.Now().Add(off), lease), token: 7, owner: "somebody", lease: lease,
	}.encode())
}

func TestTakeOverDoesNotDependOnClocks(t *testing.T) {
	const lease = 1500 * time.Millisecond
	s := open(t, nil, nil)
	for name, off := range map[string]time.Duration{
		"behind by more than the lease": -lease - 5*time.Second,
		"ahead by an hour":              time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := testserver.Within(t, time.Minute)
			key := "skew/" + name
			foreignHold(t, key, off, lease)
			l, err := s.NewLock(ctx, key, nil)
			require.NoError(t, err)
			type acquired struct {
				at  time.Time
				err error
			}
			got := make(chan acquired, 1)
			go func() {
				_, err := l.Lock(ctx)
				got <- acquired{time.Now(), err}
			}()
			var renewed time.Time
			for range 10 { // for two leases it is renewed
				renewed = time.Now()
				foreignHold(t, key, off, lease)
				select {
				case a := <-got:
					require.FailNow(t, "taken although it was renewed", "%v", a.err)
				case <-time.After(lease / 5):
				}
			}
			a := <-got
			require.NoError(t, a.err)
			assert.GreaterOrEqual(t, a.at.Sub(renewed), lease, "taken before the holder had to count it as lost")
			assert.Less(t, a.at.Sub(renewed), lease+2*time.Second)
			assert.Greater(t, l.Token(), uint64(7))
			require.NoError(t, l.Unlock(ctx))
		})
	}
}

func TestTryLockAllowsForClocksThatDiffer(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, nil, nil)
	l, err := s.NewLock(ctx, "skew/try", nil)
	require.NoError(t, err)
	foreignHold(t, "skew/try", -maxSkew, time.Second)
	_, err = l.TryLock(ctx)
	require.ErrorIs(t, err, valkeyrie.ErrLockHeld)
	foreignHold(t, "skew/try", -time.Minute-maxSkew, time.Minute+time.Second)
	_, err = l.TryLock(ctx)
	require.ErrorIs(t, err, valkeyrie.ErrLockHeld)
	foreignHold(t, "skew/try", -maxSkew-2*time.Second, time.Second)
	_, err = l.TryLock(ctx)
	require.NoError(t, err, "its holder is gone")
	require.NoError(t, l.Unlock(ctx))
}

func TestHandOverWithAStream(t *testing.T) {
	ctx := testserver.Within(t, 2*time.Minute)
	stores := []valkeyrie.Store{open(t, nil, nil), open(t, nil, nil)}
	var took []time.Duration
	for range 15 {
		first, err := stores[0].NewLock(ctx, "handover", nil)
		require.NoError(t, err)
		second, err := stores[1].NewLock(ctx, "handover", nil)
		require.NoError(t, err)
		_, err = first.Lock(ctx)
		require.NoError(t, err)
		waiting, got := context.WithCancel(ctx)
		go func() {
			defer got()
			_, _ = second.Lock(ctx)
		}()
		time.Sleep(100 * time.Millisecond) // it is usually in line by then
		begun := time.Now()
		require.NoError(t, first.Unlock(ctx))
		<-waiting.Done()
		took = append(took, time.Since(begun))
		require.NotZero(t, second.Token())
		require.NoError(t, second.Unlock(ctx))
		stores[0], stores[1] = stores[1], stores[0]
	}
	slices.Sort(took)
	t.Logf("from Unlock to the next hold: %v", took)
	assert.LessOrEqual(t, took[len(took)/2], 300*time.Millisecond)
}
