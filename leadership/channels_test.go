package leadership

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// told receives from elected.
func told(t *testing.T, elected <-chan bool, within time.Duration) bool {
	t.Helper()
	select {
	case e, open := <-elected:
		require.True(t, open, "closed")
		return e
	case <-time.After(within):
		require.FailNow(t, "nothing received within "+within.String())
	}
	panic("not reached")
}

// over checks that both channels are closed, and returns the last error.
func over(t *testing.T, elected <-chan bool, errs <-chan error) (last error) {
	t.Helper()
	synctest.Wait()
	_, open := <-elected
	require.False(t, open)
	for err := range errs {
		last = err
	}
	return last
}

func TestChannels(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		ctx, stop := context.WithCancel(t.Context())
		kv.lock = []error{errOther, valkeyrie.ErrNotReachable}
		c := candidate(t, kv, "a")
		elected, errs := c.RunForElection(ctx)
		require.True(t, told(t, elected, time.Second), "errors do not end the campaign")
		require.ErrorIs(t, <-errs, valkeyrie.ErrNotReachable, "nobody received the first one")
		term, leads := c.Term()
		require.True(t, leads)
		require.NotZero(t, term.Token)

		require.NoError(t, kv.Delete(ctx, election)) // a loss
		require.False(t, told(t, elected, time.Second))
		require.True(t, told(t, elected, time.Second))

		b := campaign(t, candidate(t, kv, "b"))
		c.Resign()
		time.Sleep(5 * ttl)
		require.Empty(t, b.terms, "nobody else leads before the leader was told that it leads no more")
		require.False(t, told(t, elected, time.Second))
		b.leads(t, time.Second)
		stop() // while it does not lead
		require.NoError(t, over(t, elected, errs))
		b.ends(t)
		free(t, kv)
	})
}

func TestChannelsAreClosedWhenTheContextIsDone(t *testing.T) {
	for name, receive := range map[string]bool{"leading": true, "elected, and nobody receives": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, kv *failing) {
				ctx, stop := context.WithCancel(t.Context())
				elected, errs := candidate(t, kv, "a").RunForElection(ctx)
				if receive {
					require.True(t, told(t, elected, time.Second))
				}
				synctest.Wait()
				stop()
				require.NoError(t, over(t, elected, errs))
				free(t, kv)
			})
		})
	}
}

func TestChannelsOfATermThatEndsBeforeAnybodyHeardOfIt(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		ctx, stop := context.WithCancel(t.Context())
		elected, errs := candidate(t, kv, "a").RunForElection(ctx)
		for range 3 {
			synctest.Wait()
			require.NoError(t, kv.Delete(ctx, election))
		}
		require.True(t, told(t, elected, time.Second), "false without true before it says nothing")
		stop()
		require.NoError(t, over(t, elected, errs))
	})
}

func TestChannelsEndWithAnErrorThatNoRetryCanMend(t *testing.T) {
	inBubble(t, func(t *testing.T, kv *failing) {
		elected, errs := candidate(t, kv, "a").RunForElection(t.Context())
		require.True(t, told(t, elected, time.Second))
		require.NoError(t, kv.Close())
		require.False(t, told(t, elected, time.Second))
		require.ErrorIs(t, over(t, elected, errs), valkeyrie.ErrClosed)
	})
}
