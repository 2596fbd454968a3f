package testutils

import (
	"context"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

func watchKeysOnly(e *env) {
	key := e.key("k")
	e.put(key, "v")
	ch := e.watchOn(e.ctx, e.kv, key, &valkeyrie.ReadOptions{KeysOnly: true})
	got := receive(e, ch, "the state at the start")
	require.True(e, got.Value != nil && len(got.Value) == 0, "got %s", show(got))
	require.Equal(e, e.get(key).LastIndex, got.LastIndex)
	e.put(key, "w")
	got = receive(e, ch, "the change")
	require.True(e, got.Value != nil && len(got.Value) == 0, "got %s", show(got))
	last := e.get(key).LastIndex
	require.Equal(e, last, got.LastIndex)
	require.NoError(e, e.kv.Delete(e.ctx, key))
	requireGone(e, key, last, receive(e, ch, "the deletion"))
}

func watchAllowStale(e *env) {
	key := e.key("k")
	e.put(key, "v")
	ch := e.watchOn(e.ctx, e.kv, key, &valkeyrie.ReadOptions{AllowStale: true})
	e.put(key, "w")
	until(e, ch, "the last state", func(p *pair) bool { return string(p.Value) == "w" })
}

// watchKeepAlive also shows that renewing is not a write.
func watchKeepAlive(e *env) {
	key, ttl := e.key("k"), 2*time.Second
	e.put(e.key("other"), "x")
	ch := e.watch(key)
	receive(e, ch, "the state at the start")
	require.NoError(e, e.kv.Put(e.ctx, key, []byte("v"), &valkeyrie.WriteOptions{TTL: ttl, KeepAlive: true}))
	last := e.nextChange(ch, key, "the put")
	select {
	case p := <-ch:
		require.FailNow(e, "a key that is kept alive changed", show(p))
	case <-time.After(2 * ttl):
	}
	requireSamePair(e, last, e.get(key))
	require.NoError(e, e.kv.Delete(e.ctx, key))
	requireGone(e, key, last.LastIndex, receive(e, ch, "the deletion"))
}

func watchPairsBelongToReceiver(e *env) {
	key := e.key("k")
	e.put(key, "value")
	spoiled, clean := e.watch(key), e.watch(key)
	for _, value := range []string{"value", "other"} {
		p := receive(e, spoiled, "a state")
		require.Equal(e, value, string(p.Value))
		p.Key, p.LastIndex = "spoiled", 0
		for i := range p.Value {
			p.Value[i] = '!'
		}
		requireSamePair(e, e.get(key), receive(e, clean, "the same state in another watch"))
		require.Equal(e, value, string(e.get(key).Value))
		if value == "value" {
			e.put(key, "other")
		}
	}
	require.NoError(e, e.kv.Delete(e.ctx, key))
	requireGone(e, key, receive(e, clean, "the deletion").LastIndex, receive(e, spoiled, "the deletion"))
}

func watchInvalidKey(e *env) {
	for _, key := range []string{"", "/", "a/../b", "a/.valkeyrie/b", "a\x00b", "\xff"} {
		ch, err := e.kv.Watch(e.ctx, key, nil)
		require.ErrorIs(e, err, valkeyrie.ErrInvalidKey, "%q", key)
		require.Nil(e, ch)
	}
}

// watchMissesNothing opens watches while a writer is at work, so that changes
// fall between the first state and what follows it.
func watchMissesNothing(e *env) {
	key, other := e.key("k"), e.open(nil)
	stop := e.hammer(other, key)
	var watches []<-chan *pair
	for i := range 50 {
		kv := e.kv
		if i%2 == 1 {
			kv = other
		}
		watches = append(watches, e.watchOn(e.ctx, kv, key, nil))
	}
	stop()
	e.lastStateArrives(watches, key)
}

// lastStateArrives checks that the last thing every watch sends is what Get returns.
func (e *env) lastStateArrives(watches []<-chan *pair, key string) {
	e.Helper()
	want := e.get(key)
	for _, ch := range watches {
		got := until(e, ch, "the last state "+show(want), func(p *pair) bool { return p.LastIndex == want.LastIndex })
		requireSamePair(e, want, got)
	}
	quiet(e, merge(e, watches), "sent after the last state")
}

// merge copies what some channels send into one, until the check ends.
func merge[T any](e *env, chans []<-chan T) <-chan T {
	ctx, _ := e.cancellable()
	all := make(chan T)
	for _, ch := range chans {
		go func() {
			for v := range ch {
				select {
				case all <- v:
				case <-ctx.Done():
				}
			}
		}()
	}
	return all
}

// watchNeverGoesBack has one writer count upwards and several watches read along.
func watchNeverGoesBack(e *env) {
	key, other := e.key("k"), e.open(nil)
	watches := []<-chan *pair{e.watch(key), e.watchOn(e.ctx, other, key, nil)}
	stop := e.hammer(other, key)
	last := make([]int, len(watches))
	end := time.Now().Add(time.Second)
	for i := 0; i < 100 || time.Now().Before(end); i++ {
		w := i % len(watches)
		p := receive(e, watches[w], "a state")
		if p.Value == nil {
			continue
		}
		n, err := strconv.Atoi(string(p.Value))
		require.NoError(e, err)
		require.GreaterOrEqual(e, n, last[w], "a state went back")
		last[w] = n
		if i == 50 {
			watches, last = append(watches, e.watch(key)), append(last, n)
		}
	}
	stop()
}

func watchSlowReader(e *env) {
	key := e.key("k")
	ch := e.watch(key)
	wait := e.start(1, func(int) error {
		for i := range 500 {
			if err := e.kv.Put(e.ctx, key, []byte(strconv.Itoa(i)), nil); err != nil {
				return err
			}
		}
		return nil
	})
	last := -1
	until(e, ch, "the last state", func(p *pair) bool {
		if p.Value == nil {
			return false
		}
		n, err := strconv.Atoi(string(p.Value))
		require.NoError(e, err)
		require.Greater(e, n, last, "a state went back or came twice")
		last = n
		time.Sleep(5 * time.Millisecond) // the reader is slower than the writer
		return n == 499
	})
	wait()
}

// stored is how many states a watch may keep for a reader who is away. The
// contract bounds them by the number of keys; this leaves room for buffers and
// is far from the number of writes.
const stored = 100

func watchAbsentReader(e *env) {
	key := e.key("k")
	ch := e.watch(key)
	e.flood(e.kv, 5000, key)
	e.put(key, "last")
	states := 0
	until(e, ch, "the last state", func(p *pair) bool {
		states++
		return string(p.Value) == "last"
	})
	require.LessOrEqual(e, states, stored, "states were kept for a reader who was away instead of merged")
}

func watchCancelWithReader(e *env) {
	key := e.key("k")
	ctx, cancel := e.cancellable()
	ch := e.watchOn(ctx, e.kv, key, nil)
	receive(e, ch, "the state at the start")
	cancel()
	closes(e, ch, soon, "the channel of a cancelled watch")
}

func watchCancelWithoutReader(e *env) {
	key := e.key("k")
	ctx, cancel := e.cancellable()
	watches := make([]<-chan *pair, 10)
	for i := range watches {
		watches[i] = e.watchOn(ctx, e.kv, key, nil)
	}
	e.flood(e.kv, 100, key)
	cancel()
	time.Sleep(time.Second) // it must end without anyone taking what it has to send
	for _, ch := range watches {
		require.NoError(e, unread(ch), "the channel of a cancelled watch that nobody read, a second later")
	}
}

func watchDeadline(e *env) {
	ctx, cancel := context.WithTimeout(e.ctx, 2*time.Second)
	defer cancel()
	ch := e.watchOn(ctx, e.kv, e.key("k"), nil)
	receive(e, ch, "the state at the start")
	closes(e, ch, 2*time.Second+soon, "the channel of a watch whose deadline is over")
	require.Error(e, ctx.Err(), "the channel was closed before the deadline")
}

func watchEndsWithStore(e *env) {
	other := e.open(nil)
	read := e.watchOn(e.ctx, other, e.key("k"), nil)
	receive(e, read, "the state at the start")
	unread := e.watchOn(e.ctx, other, e.key("k"), nil)
	require.NoError(e, other.Close())
	closes(e, read, soon, "the channel of a watch of a closed store")
	closes(e, unread, soon, "the channel of a watch of a closed store that nobody read")
}

func watchManyOnOneKey(e *env) {
	key, other := e.key("k"), e.open(nil)
	e.put(key, "v")
	var watches []<-chan *pair
	for i := range 200 {
		kv := e.kv
		if i%2 == 1 {
			kv = other
		}
		watches = append(watches, e.watchOn(e.ctx, kv, key, nil))
	}
	e.flood(other, 20, key)
	e.put(key, "last")
	e.lastStateArrives(watches, key)
}

func watchEndsAlone(e *env) {
	key := e.key("k")
	ctx, cancel := e.cancellable()
	ending := e.watchOn(ctx, e.kv, key, nil)
	staying := e.watch(key)
	receive(e, staying, "the state at the start")
	cancel()
	closes(e, ending, soon, "the cancelled watch")
	e.put(key, "after")
	e.nextChange(staying, key, "a change after another watch ended")
}

// watchChurn is for servers whose watches cannot be taken back: they must not
// pile up, nor may one that ends take a later one along.
func watchChurn(e *env) {
	key := e.key("k")
	e.put(key, "v")
	stop := e.hammer(e.open(nil), e.key("k"))
	e.start(8, func(int) error {
		for range 25 {
			ctx, cancel := context.WithCancel(e.ctx)
			ch, err := e.kv.Watch(ctx, key, nil)
			if err != nil {
				cancel()
				return err
			}
			<-ch
			cancel()
		}
		return nil
	})()
	stop()
	e.put(key, "last")
	e.lastStateArrives([]<-chan *pair{e.watch(key)}, key)
}
