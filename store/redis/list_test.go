package redis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestGlob(t *testing.T) {
	c := raw(t, testserver.Redis(t).Endpoints[0])
	for _, dir := range []string{"a*/", "a?/", "a[b]/", "a[^b-c]/", `a\/`, `\*/`, "é/", "]/", "{x}/", "a^/"} {
		key := "glob-" + dir + "k"
		do(t, c, "SET", key, "v")
		do(t, c, "SET", "glob-ab/"+"k", "v")
		found := map[string]bool{}
		for cursor := "0"; ; {
			page, err := redis.Values(do(t, c, "SCAN", cursor, "MATCH", glob("glob-"+dir), "COUNT", 1000), nil)
			require.NoError(t, err)
			keys, err := redis.Strings(page[1], nil)
			require.NoError(t, err)
			for _, k := range keys {
				found[k] = true
			}
			if cursor = string(page[0].([]byte)); cursor == "0" {
				break
			}
		}
		assert.Equal(t, map[string]bool{key: true}, found, "%q", dir)
	}
}

func TestDirectoriesWithGlobCharacters(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, testserver.Redis(t).Endpoints, nil, nil)
	dirs := []string{"g/*", "g/?", "g/[a]", "g/a", "g/b", `g/\`, "g/**", "g/[", "g/]"}
	for _, dir := range dirs {
		require.NoError(t, s.Put(ctx, dir+"/k", []byte(dir), nil))
	}
	for _, dir := range dirs {
		pairs, err := s.List(ctx, dir, nil)
		require.NoError(t, err)
		require.Len(t, pairs, 1, dir)
		assert.Equal(t, dir, string(pairs[0].Value))
		states, err := s.WatchTree(ctx, dir, nil)
		require.NoError(t, err)
		require.Len(t, <-states, 1)
		require.NoError(t, s.Put(ctx, dir+"/k2", nil, nil))
		require.Len(t, <-states, 2, "told of what is in %q", dir)
	}
	for i, dir := range dirs {
		require.NoError(t, s.DeleteTree(ctx, dir))
		left, err := s.List(ctx, "g", nil)
		if i == len(dirs)-1 {
			require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
			break
		}
		require.NoError(t, err)
		require.Len(t, left, 2*(len(dirs)-1-i), "deleting %q deletes nothing else", dir)
	}
}

func TestListsBesideManyOtherKeys(t *testing.T) {
	ctx := testserver.Within(t, 2*time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	c := raw(t, server.Endpoints[0])
	s := open(t, server.Endpoints, nil, nil)
	const others = 100_000
	do(t, c, "EVAL", "for i = 1, ARGV[1] do redis.call('SET', 'others/' .. i, 'v') end", 0, others)
	want := 0
	for _, n := range []int{0, 1, 10, 5000} {
		for ; want < n; want++ {
			require.NoError(t, s.Put(ctx, fmt.Sprintf("ours/%d/k", want), []byte("v"), nil))
		}
		if n == 0 {
			_, err := s.List(ctx, "ours", nil)
			require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
			continue
		}
		for _, opts := range []*valkeyrie.ReadOptions{nil, {KeysOnly: true}} {
			pairs, err := s.List(ctx, "ours", opts)
			require.NoError(t, err)
			require.Len(t, pairs, n)
		}
	}
	require.NoError(t, s.DeleteTree(ctx, "ours"))
	n, err := redis.Int(do(t, c, "DBSIZE"), nil)
	require.NoError(t, err)
	assert.Equal(t, others, n)
}

// TestAWalkYieldsEachKeyOnceWhileTheTableShrinks: that is when SCAN returns keys
// more than once.
func TestAWalkYieldsEachKeyOnceWhileTheTableShrinks(t *testing.T) {
	ctx := testserver.Within(t, 2*time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	c := raw(t, server.Endpoints[0])
	s := open(t, server.Endpoints, nil, nil)
	const stay, go_ = 3000, 200_000
	do(t, c, "EVAL", "for i = 1, ARGV[1] do redis.call('SET', 'stay/' .. i, 'v') end", 0, stay)
	do(t, c, "EVAL", "for i = 1, ARGV[1] do redis.call('SET', 'go/' .. i, 'v') end", 0, go_)
	found, gone := map[string]int{}, 0
	for p, err := range s.Walk(ctx, "stay", nil) {
		require.NoError(t, err)
		found[p.Key]++
		if len(found)%20 == 0 && gone < go_ {
			do(t, c, "EVAL", "for i = ARGV[1] + 1, ARGV[1] + 2000 do redis.call('DEL', 'go/' .. i) end", 0, gone)
			gone += 2000
		}
	}
	assert.Len(t, found, stay)
	for key, times := range found {
		require.Equal(t, 1, times, key)
	}
}

// TestAWalkMissesNothingWhenTheServerRestarts: the cursor of a SCAN means nothing to
// the next process.
func TestAWalkMissesNothingWhenTheServerRestarts(t *testing.T) {
	ctx := testserver.Within(t, 2*time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{Durable: true})
	s := open(t, server.Endpoints, nil, nil)
	const n = 20_000
	do(t, raw(t, server.Endpoints[0]), "EVAL", "for i = 1, ARGV[1] do redis.call('SET', 'walk/' .. i, 'v') end", 0, n)
	found := map[string]int{}
	for p, err := range s.Walk(ctx, "walk", nil) {
		require.NoError(t, err)
		if found[p.Key]++; len(found) == n/2 {
			require.NoError(t, server.Members[0].Restart())
		}
	}
	assert.Len(t, found, n)
	for key, times := range found {
		require.Equal(t, 1, times, key)
	}
}

func TestAWalkOfLargeValuesHoldsFewOfThem(t *testing.T) {
	ctx := testserver.Within(t, 2*time.Minute)
	server := testserver.StartRedis(t, testserver.RedisOptions{})
	c := raw(t, server.Endpoints[0])
	s := open(t, server.Endpoints, nil, nil)
	const n = 3000
	do(t, c, "EVAL", "local v = string.rep('x', 65536) for i = 1, ARGV[1] do redis.call('SET', 'large/' .. i, v) end", 0, n)
	read := func() int64 {
		stats, err := redis.String(do(t, c, "INFO", "stats"), nil)
		require.NoError(t, err)
		_, hits, _ := strings.Cut(stats, "keyspace_hits:")
		var h int64
		_, err = fmt.Sscan(hits, &h)
		require.NoError(t, err)
		return h
	}
	before, got := read(), int64(0)
	for _, err := range s.Walk(ctx, "large", nil) {
		require.NoError(t, err)
		got++
		if got%500 == 0 {
			assert.LessOrEqual(t, read()-before-got, int64(inFlight*firstKeys), "read ahead of who takes them")
		}
	}
	assert.EqualValues(t, n, got)
}
