package testutils

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

func eventsOfRoot(e *env) {
	prefix := e.key("app")
	e.put(prefix+"beside", "not below the prefix")
	e.put(prefix+"/a", "v")
	inside := e.open(&valkeyrie.Config{Prefix: prefix})
	ch := e.eventsOn(e.ctx, inside, "", &valkeyrie.WatchOptions{Tree: true})
	require.Equal(e, "a", e.next(ch, valkeyrie.Put, "the key that exists").Key)
	e.next(ch, valkeyrie.Synced, "Synced")
	e.put(prefix+"beside", "changed")
	e.put(prefix+"/b/c", "v")
	require.Equal(e, "b/c", e.next(ch, valkeyrie.Put, "a put by a store without the prefix").Key)
	require.NoError(e, e.kv.Delete(e.ctx, prefix+"/a"))
	require.Equal(e, "a", e.next(ch, valkeyrie.Delete, "the deletion").Key)
}

func eventsKeysOnly(e *env) {
	dir := e.key("d")
	e.put(dir+"/a", "v")
	ch := e.eventsOn(e.ctx, e.kv, dir, &valkeyrie.WatchOptions{Tree: true, KeysOnly: true})
	p := e.next(ch, valkeyrie.Put, "the key that exists")
	require.True(e, p.Value == nil, "KeysOnly leaves the values out, got %s", show(p))
	require.Equal(e, e.get(dir+"/a").LastIndex, p.LastIndex)
	e.next(ch, valkeyrie.Synced, "Synced")
	e.put(dir+"/a", "w")
	p = e.next(ch, valkeyrie.Put, "the put")
	require.True(e, p.Value == nil, "KeysOnly leaves the values out, got %s", show(p))
	require.Equal(e, e.get(dir+"/a").LastIndex, p.LastIndex)
	require.NoError(e, e.kv.Delete(e.ctx, dir+"/a"))
	requireGone(e, dir+"/a", p.LastIndex, e.next(ch, valkeyrie.Delete, "the deletion"))
}

func eventsSeeIdenticalValue(e *env) {
	key := e.key("k")
	e.put(key, "same")
	ch := e.eventsOf(key)
	last := e.nextPut(ch, key, "the key that exists").LastIndex
	e.next(ch, valkeyrie.Synced, "Synced")
	for range 3 {
		e.put(key, "same")
		got := e.nextPut(ch, key, "an identical value written again").LastIndex
		require.True(e, got != last, "the revision of an identical value must differ")
		last = got
	}
}

func eventsEmptyValue(e *env) {
	key := e.key("k")
	e.put(key, "")
	ch := e.eventsOf(key)
	p := e.next(ch, valkeyrie.Put, "the key that exists")
	require.True(e, p.Value != nil && len(p.Value) == 0, "got %s", show(p))
	e.next(ch, valkeyrie.Synced, "Synced")
	e.put(key, "full")
	e.nextPut(ch, key, "a put")
	require.NoError(e, e.kv.Put(e.ctx, key, nil, nil))
	p = e.next(ch, valkeyrie.Put, "a put of the empty value")
	require.True(e, p.Value != nil && len(p.Value) == 0, "got %s", show(p))
}

// eventsRangeTwice ranges over one sequence several times, at the same time and
// again after a range has ended.
func eventsRangeTwice(e *env) {
	key := e.key("k")
	e.put(key, "v")
	events := e.kv.Events(e.ctx, key, nil)
	wait := e.start(4, func(int) error {
		for range 2 {
			steps := []valkeyrie.EventType{valkeyrie.Put, valkeyrie.Synced}
			for ev, err := range events {
				if err != nil {
					return err
				}
				if ev.Type != steps[0] {
					return &unexpected{ev.Type, steps[0]}
				}
				if steps = steps[1:]; len(steps) == 0 {
					break
				}
			}
		}
		return nil
	})
	wait()
}

// unexpected is an event that came in place of another.
type unexpected struct{ got, want valkeyrie.EventType }

func (u *unexpected) Error() string {
	return "a range over Events yielded " + u.got.String() + ", want " + u.want.String()
}

func eventsBelongToReceiver(e *env) {
	key := e.key("k")
	e.put(key, "value")
	spoiled, clean := e.eventsOf(key), e.eventsOf(key)
	spoil := func(p *pair) {
		p.Key, p.LastIndex = "spoiled", 0
		for i := range p.Value {
			p.Value[i] = '!'
		}
	}
	spoil(e.nextPut(spoiled, key, "the key that exists"))
	e.nextPut(clean, key, "the same in another range")
	e.next(spoiled, valkeyrie.Synced, "Synced")
	e.next(clean, valkeyrie.Synced, "Synced")
	last := e.get(key)
	require.Equal(e, "value", string(last.Value))
	require.NoError(e, e.kv.Delete(e.ctx, key))
	requireGone(e, key, last.LastIndex, e.next(spoiled, valkeyrie.Delete, "the deletion"))
	requireGone(e, key, last.LastIndex, e.next(clean, valkeyrie.Delete, "the deletion"))
}

func eventsBreak(e *env) {
	key := e.key("k")
	e.put(key, "v")
	done := make(chan error, 1)
	go func() {
		for _, err := range e.kv.Events(e.ctx, key, nil) {
			done <- err
			break
		}
		close(done)
	}()
	require.NoError(e, receive(e, done, "the first event"))
	closes(e, done, soon, "the loop that breaks off")
	e.put(key, "w") // nobody is there to see it, and nothing minds
}

// eventsBreakAtTheEnd breaks off when the store or the context has just ended: a
// loop that was broken off must not be called again, not even with the error
// that ended the watch. The runtime turns that into a panic.
func eventsBreakAtTheEnd(e *env) {
	key := e.key("k")
	e.put(key, "v")
	for _, step := range []valkeyrie.EventType{valkeyrie.Put, valkeyrie.Synced, valkeyrie.Delete} {
		for _, closing := range []bool{true, false} {
			other := e.open(nil)
			ctx, cancel := e.cancellable()
			require.NotPanics(e, func() {
				for ev, err := range other.Events(ctx, key, nil) {
					require.NoError(e, err)
					if ev.Type == valkeyrie.Synced && step == valkeyrie.Delete {
						require.NoError(e, e.kv.Delete(e.ctx, key))
					}
					if ev.Type != step {
						continue
					}
					if closing {
						require.NoError(e, other.Close())
					} else {
						cancel()
					}
					break
				}
			}, "break after %s, closing the store: %v", step, closing)
			e.put(key, "v")
		}
	}
}

func eventsContext(e *env) {
	for name, end := range map[string]func(ctx context.Context) (context.Context, context.CancelFunc){
		"cancelled": context.WithCancel,
		"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 2*time.Second)
		},
	} {
		ctx, cancel := end(e.ctx)
		ch := e.eventsOn(ctx, e.kv, e.key("k"), nil)
		e.next(ch, valkeyrie.Synced, "Synced")
		if name == "cancelled" {
			cancel()
		}
		select {
		case y, open := <-ch:
			require.False(e, open, "%s: the loop ends without an error, got %s", name, y)
		case <-time.After(2*time.Second + soon):
			require.FailNow(e, name+": the loop did not end")
		}
		require.Error(e, ctx.Err(), "%s: the loop ended before its context", name)
		cancel()
	}
}

func eventsEndWithStore(e *env) {
	other := e.open(nil)
	ch := e.eventsOn(e.ctx, other, e.key("k"), nil)
	e.next(ch, valkeyrie.Synced, "Synced")
	require.NoError(e, other.Close())
	y := receive(e, ch, "the error that ends it")
	e.refused(y.err, "Events", e.key("k"), valkeyrie.ErrClosed)
	closes(e, ch, soon, "the loop after its error")
}

func eventsInvalidKey(e *env) {
	for _, c := range []struct {
		key  string
		tree bool
	}{{"", false}, {"a/../b", false}, {".valkeyrie/a", false}, {"a/./b", true}, {"a/.valkeyrie", true}, {"\xff", true}} {
		ch := e.eventsOn(e.ctx, e.kv, c.key, &valkeyrie.WatchOptions{Tree: c.tree})
		e.refused(receive(e, ch, "the error").err, "Events", c.key, valkeyrie.ErrInvalidKey)
		closes(e, ch, soon, "the loop after its error")
	}
}

func eventsHideOwnKeys(e *env) {
	dir := e.key("d")
	ch := e.eventsOfTree(dir)
	e.next(ch, valkeyrie.Synced, "Synced")
	opts := &valkeyrie.LockOptions{Value: []byte("holder")}
	first, second := e.locker(e.kv, dir+"/lock", opts), e.locker(e.open(nil), dir+"/lock", opts)
	e.mustLock(first)
	wait := e.start(1, func(int) error {
		_, err := second.Lock(e.ctx)
		return err
	})
	time.Sleep(pause) // the waiter has to be in line, which nothing shows
	require.NoError(e, first.Unlock(e.ctx))
	wait()
	require.NoError(e, second.Unlock(e.ctx))
	e.put(dir+"/zz", "last")
	until(e, ch, "the last event", func(y yielded) bool {
		require.NoError(e, y.err)
		require.Contains(e, []string{dir + "/lock", dir + "/zz"}, y.Pair.Key, "a key that nobody put")
		return y.Pair.Key == dir+"/zz"
	})
}
