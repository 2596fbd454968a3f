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

const racers = 16

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
			if err := increment(e, stores[i%2], key, writers*increments); err != nil {
				return err
			}
		}
		return nil
	}))
	require.Equal(e, strconv.Itoa(writers*increments), string(e.get(key).Value))
}

func increment(e *env, s kvstore, key string, writes int) error {
	for range writes {
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
	return errors.New("AtomicPut refused more often than others wrote")
}
