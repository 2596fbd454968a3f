package testutils

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

var atomicChecks = []check{
	{"AtomicPut without previous creates, and refuses a key that exists", atomicCreate},
	{"of N concurrent creates exactly one succeeds, the others get ErrKeyExists", atomicCreateRace},
	{"AtomicPut with previous writes only over that revision", atomicUpdate},
	{"of N concurrent updates of one revision exactly one succeeds, the others get ErrKeyModified", atomicUpdateRace},
	{"AtomicPut returns the pair of this very write", atomicOwnPair},
	{"AtomicPut tells a key that was modified from one that is gone", atomicModifiedOrGone},
	{"a previous pair without revision never creates and never matches", atomicZeroPrevious},
	{"AtomicDelete deletes only that revision", atomicDelete},
	{"AtomicDelete without previous is ErrPreviousNotSpecified", atomicDeleteNil},
	{"of N concurrent deletes of one revision exactly one succeeds", atomicDeleteRace},
	{"increments with AtomicPut by many writers are never lost", atomicCounter},
	{"AtomicPut and AtomicDelete of one revision never both succeed", atomicPutDeleteRace},
	{"of N concurrent deletes of one key exactly one succeeds", atomicPlainDeleteRace},
}

// racers is how many goroutines a race has; they are spread over two stores.
const racers = 16

func atomicCreate(e *env) {
	key := e.key("k")
	ok, p, err := e.kv.AtomicPut(e.ctx, key, []byte("v"), nil, nil)
	require.NoError(e, err)
	require.True(e, ok)
	require.Equal(e, e.get(key), p)
	for _, opts := range []*valkeyrie.WriteOptions{nil, {}} {
		got, err := flat(e.kv.AtomicPut(e.ctx, key, []byte("w"), nil, opts))
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyExists)
		require.Zero(e, got)
		require.Equal(e, p, e.get(key), "a refused create changed the key")
	}
	e.put(e.key("put"), "")
	_, _, err = e.kv.AtomicPut(e.ctx, e.key("put"), []byte("w"), nil, nil)
	e.refused(err, "AtomicPut", e.key("put"), valkeyrie.ErrKeyExists) // an empty value is a value
	require.NoError(e, e.kv.Delete(e.ctx, key))
	ok, p, err = e.kv.AtomicPut(e.ctx, key, []byte("again"), nil, nil)
	require.NoError(e, err, "create after a delete")
	require.True(e, ok)
	require.Equal(e, "again", string(p.Value))
}

// race lets racers run f at once in many rounds, and asserts that one of them
// succeeds in each and that the others fail with one of the given errors.
func (e *env) race(rounds int, f func(s kvstore, round, i int) error, losers ...error) {
	e.Helper()
	stores := []kvstore{e.kv, e.open(nil)}
	for round := range rounds {
		var winners atomic.Int32
		require.NoError(e, together(racers, func(i int) error {
			err := f(stores[i%2], round, i)
			if err == nil {
				winners.Add(1)
				return nil
			}
			for _, loser := range losers {
				if errors.Is(err, loser) {
					return nil
				}
			}
			return err
		}), "round %d", round)
		require.EqualValues(e, 1, winners.Load(), "winners of round %d", round)
	}
}

func atomicCreateRace(e *env) {
	const rounds = 30
	key := func(round int) string {
		if round%2 == 0 {
			return e.key(fmt.Sprint("never/put/", round)) // below directories that all must imply at once
		}
		return e.key(fmt.Sprint("deleted/", round))
	}
	for round := 1; round < rounds; round += 2 {
		e.put(key(round), "old")
		require.NoError(e, e.kv.Delete(e.ctx, key(round)))
	}
	won := make([]*pair, rounds)
	e.race(rounds, func(s kvstore, round, i int) error {
		ok, p, err := s.AtomicPut(e.ctx, key(round), []byte(strconv.Itoa(i)), nil, nil)
		if ok {
			won[round] = p
		}
		return err
	}, valkeyrie.ErrKeyExists)
	for round, p := range won {
		require.Equal(e, p, e.get(key(round)), "what is there is what the winner wrote")
	}
}

func atomicUpdate(e *env) {
	key := e.key("k")
	e.put(key, "1")
	first := e.get(key)
	ok, second, err := e.kv.AtomicPut(e.ctx, key, []byte("2"), first, nil)
	require.NoError(e, err)
	require.True(e, ok)
	require.Equal(e, second, e.get(key))

	got, err := flat(e.kv.AtomicPut(e.ctx, key, []byte("3"), first, nil))
	e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
	require.Zero(e, got)
	require.Equal(e, second, e.get(key), "a refused update changed the key")
	// Of previous only LastIndex counts.
	_, third, err := e.kv.AtomicPut(e.ctx, key, []byte("3"), &pair{Key: "other", Value: []byte("other"), LastIndex: second.LastIndex}, nil)
	require.NoError(e, err)
	require.Equal(e, key, third.Key)
	_, _, err = e.kv.AtomicPut(e.ctx, key, []byte("3"), &pair{Key: key, Value: third.Value, LastIndex: second.LastIndex}, nil)
	e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
}

func atomicUpdateRace(e *env) {
	const rounds = 30
	key := e.key("k")
	e.put(key, "start")
	won := make([]*pair, rounds+1) // each round goes on from what the last one's winner wrote
	won[0] = e.get(key)
	e.race(rounds, func(s kvstore, round, i int) error {
		ok, p, err := s.AtomicPut(e.ctx, key, []byte(fmt.Sprint(round, "/", i)), won[round], nil)
		if ok {
			won[round+1] = p
		}
		return err
	}, valkeyrie.ErrKeyModified)
	require.Equal(e, won[rounds], e.get(key))
}

// atomicOwnPair: a pair that AtomicPut reads after its write could be somebody
// else's, so others write all the time.
func atomicOwnPair(e *env) {
	other := e.open(nil)
	key := e.key("k")
	e.put(key, "start")
	var mu sync.Mutex
	mine := make(map[uint64]string)
	require.NoError(e, together(8, func(i int) error {
		s := []kvstore{e.kv, other}[i%2]
		for n := range 25 {
			p, err := s.Get(e.ctx, key, nil)
			if err != nil {
				return err
			}
			value := fmt.Sprint(i, "/", n)
			_, q, err := s.AtomicPut(e.ctx, key, []byte(value), p, nil)
			if errors.Is(err, valkeyrie.ErrKeyModified) {
				continue
			}
			if err != nil {
				return err
			}
			if q.Key != key || string(q.Value) != value || q.LastIndex == p.LastIndex {
				return fmt.Errorf("wrote %q over %d, was told %+v", value, p.LastIndex, q)
			}
			mu.Lock()
			before, taken := mine[q.LastIndex]
			mine[q.LastIndex] = value
			mu.Unlock()
			if taken {
				return fmt.Errorf("%q and %q were told the same revision %d", before, value, q.LastIndex)
			}
		}
		return nil
	}))
	last := e.get(key)
	require.Equal(e, mine[last.LastIndex], string(last.Value), "the revision belongs to the value that was written with it")
}

func atomicModifiedOrGone(e *env) {
	key := e.key("k")
	e.put(key, "v")
	p := e.get(key)
	e.put(key, "v")
	_, _, err := e.kv.AtomicPut(e.ctx, key, []byte("w"), p, nil)
	e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
	_, err = e.kv.AtomicDelete(e.ctx, key, p)
	e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyModified)
	current := e.get(key)
	require.NoError(e, e.kv.Delete(e.ctx, key))
	for _, previous := range []*pair{p, current} {
		got, err := flat(e.kv.AtomicPut(e.ctx, key, []byte("w"), previous, nil))
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyNotFound)
		require.Zero(e, got)
		ok, err := e.kv.AtomicDelete(e.ctx, key, previous)
		e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyNotFound)
		require.False(e, ok)
	}
	e.absent(e.kv, key)
}

// atomicZeroPrevious: the pair that Watch sends for an absent key has revision
// 0, which must not turn an update into a create or into a plain write.
func atomicZeroPrevious(e *env) {
	key, missing := e.key("k"), e.key("missing")
	e.put(key, "v")
	p := e.get(key)
	for _, zero := range []*pair{{}, {Key: key, Value: []byte("v")}} {
		_, _, err := e.kv.AtomicPut(e.ctx, key, []byte("w"), zero, nil)
		e.refused(err, "AtomicPut", key, valkeyrie.ErrKeyModified)
		_, err = e.kv.AtomicDelete(e.ctx, key, zero)
		e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyModified)
		_, _, err = e.kv.AtomicPut(e.ctx, missing, []byte("w"), zero, nil)
		e.refused(err, "AtomicPut", missing, valkeyrie.ErrKeyNotFound)
		_, err = e.kv.AtomicDelete(e.ctx, missing, zero)
		e.refused(err, "AtomicDelete", missing, valkeyrie.ErrKeyNotFound)
	}
	require.Equal(e, p, e.get(key))
	e.absent(e.kv, missing)
}

func atomicDelete(e *env) {
	key := e.key("k")
	e.put(key, "1")
	first := e.get(key)
	e.put(key, "2")
	second := e.get(key)
	ok, err := e.kv.AtomicDelete(e.ctx, key, first)
	e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyModified)
	require.False(e, ok)
	require.Equal(e, second, e.get(key))
	ok, err = e.kv.AtomicDelete(e.ctx, key, &pair{LastIndex: second.LastIndex})
	require.NoError(e, err, "of previous only LastIndex counts")
	require.True(e, ok)
	e.absent(e.kv, key)
	ok, err = e.kv.AtomicDelete(e.ctx, key, second)
	e.refused(err, "AtomicDelete", key, valkeyrie.ErrKeyNotFound)
	require.False(e, ok)
}

func atomicDeleteNil(e *env) {
	key := e.key("k")
	e.put(key, "v")
	for _, k := range []string{key, e.key("missing")} {
		ok, err := e.kv.AtomicDelete(e.ctx, k, nil)
		e.refused(err, "AtomicDelete", k, valkeyrie.ErrPreviousNotSpecified)
		require.False(e, ok)
	}
	require.Equal(e, "v", string(e.get(key).Value))
}

func atomicDeleteRace(e *env) {
	const rounds = 20
	pairs := make([]*pair, rounds)
	for i := range pairs {
		key := e.key(fmt.Sprint("d/", i, "/k"))
		e.put(key, "v")
		pairs[i] = e.get(key)
	}
	e.race(rounds, func(s kvstore, round, _ int) error {
		ok, err := s.AtomicDelete(e.ctx, pairs[round].Key, pairs[round])
		if ok != (err == nil) {
			return fmt.Errorf("AtomicDelete answered %v, %w", ok, err)
		}
		return err
	}, valkeyrie.ErrKeyNotFound)
	require.Empty(e, e.list(e.kv, e.dir))
}

func atomicPlainDeleteRace(e *env) {
	const rounds = 20
	key := func(round int) string { return e.key(fmt.Sprint("d/", round)) }
	for i := range rounds {
		e.put(key(i), "v")
	}
	e.race(rounds, func(s kvstore, round, _ int) error {
		return s.Delete(e.ctx, key(round))
	}, valkeyrie.ErrKeyNotFound)
	require.Empty(e, e.list(e.kv, e.dir))
}

func atomicPutDeleteRace(e *env) {
	const rounds = 20
	pairs := make([]*pair, rounds)
	for i := range pairs {
		key := e.key(fmt.Sprint("d/", i))
		e.put(key, "v")
		pairs[i] = e.get(key)
	}
	e.race(rounds, func(s kvstore, round, i int) error {
		var err error
		if i%4 < 2 {
			_, err = s.AtomicDelete(e.ctx, pairs[round].Key, pairs[round])
		} else {
			_, _, err = s.AtomicPut(e.ctx, pairs[round].Key, []byte("w"), pairs[round], nil)
		}
		return err
	}, valkeyrie.ErrKeyNotFound, valkeyrie.ErrKeyModified)
}

func atomicCounter(e *env) {
	const writers, increments = 8, 20
	stores := []kvstore{e.kv, e.open(nil)}
	key := e.key("counter")
	require.NoError(e, together(writers, func(i int) error {
		for range increments {
			if err := increment(e, stores[i%2], key); err != nil {
				return err
			}
		}
		return nil
	}))
	require.Equal(e, strconv.Itoa(writers*increments), string(e.get(key).Value))
}

// increment adds one to a decimal number, which it creates where it is missing.
func increment(e *env, s kvstore, key string) error {
	for {
		n := 0
		p, err := s.Get(e.ctx, key, nil)
		if errors.Is(err, valkeyrie.ErrKeyNotFound) {
			p, err = nil, nil
		}
		if err != nil {
			return err
		}
		if p != nil {
			if n, err = strconv.Atoi(string(p.Value)); err != nil {
				return err
			}
		}
		_, _, err = s.AtomicPut(e.ctx, key, []byte(strconv.Itoa(n+1)), p, nil)
		if err == nil || !errors.Is(err, valkeyrie.ErrKeyModified) && !errors.Is(err, valkeyrie.ErrKeyExists) {
			return err
		}
	}
}
