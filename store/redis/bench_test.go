package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/testutils"
)

func BenchmarkStore(b *testing.B) {
	h := harness(testserver.Redis(b).Endpoints, nil)
	h.Baseline = func(b testing.TB) testutils.Native { return native(testserver.Redis(b).Endpoints[0]) }
	testutils.Benchmark(b, h)
}

// BenchmarkGet64KB shows what one shared connection costs where values are large.
func BenchmarkGet64KB(b *testing.B) {
	ctx := context.Background()
	s := open(b, testserver.Redis(b).Endpoints, nil, nil)
	if err := s.Put(ctx, "bench-64KB", make([]byte, 64<<10), nil); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(ctx, "bench-64KB", nil); err != nil {
			b.Fatal(err)
		}
	}
}

var errNative = errors.New("the server answered otherwise than expected")

// native is redigo with a pool, as its documentation shows: a connection for each
// call that is under way.
func native(addr string) testutils.Native {
	pool := &redis.Pool{MaxIdle: 256, Dial: func() (redis.Conn, error) { return redis.Dial("tcp", addr) }}
	call := func(want any, cmd string, args ...any) error {
		c := pool.Get()
		defer c.Close()
		reply, err := c.Do(cmd, args...)
		if err == nil && want != nil && reply != want {
			err = errNative
		}
		return err
	}
	update := redis.NewScript(1, `if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end redis.call('SET', KEYS[1], ARGV[2]) return 1`)
	return testutils.Native{
		Get: func(_ context.Context, key string) error {
			c := pool.Get()
			defer c.Close()
			_, err := redis.Bytes(c.Do("GET", "native/"+key))
			return err
		},
		Put: func(_ context.Context, key string, value []byte) error {
			return call("OK", "SET", "native/"+key, value)
		},
		PutTTL: func(_ context.Context, key string, value []byte, ttl time.Duration) error {
			return call("OK", "SET", "native/"+key, value, "PX", ttl.Milliseconds())
		},
		CreateUpdate: func(_ context.Context, key string, value []byte) error {
			if err := call("OK", "SET", "native/"+key, value, "NX"); err != nil {
				return err
			}
			c := pool.Get()
			defer c.Close()
			n, err := redis.Int(update.Do(c, "native/"+key, value, value))
			if err == nil && n != 1 {
				err = errNative
			}
			return err
		},
		List:       func(_ context.Context, dir string) (int, error) { return listNative(pool, "native/"+dir+"/*") },
		DeleteTree: func(_ context.Context, dir string) error { return deleteNative(pool, "native/"+dir+"/*") },
		NewLock: func(key string) (lock, unlock func(ctx context.Context) error) {
			return lockNative(pool, "native/"+key)
		},
		Close: func() { _ = pool.Close() },
	}
}

// scanNative calls f for the keys of each page of a SCAN.
func scanNative(c redis.Conn, pattern string, f func(keys []any) error) error {
	for cursor := "0"; ; {
		page, err := redis.Values(c.Do("SCAN", cursor, "MATCH", pattern, "COUNT", 2000))
		if err != nil {
			return err
		}
		keys, err := redis.Values(page[1], nil)
		if err == nil && len(keys) > 0 {
			err = f(keys)
		}
		if err != nil {
			return err
		}
		if cursor, err = redis.String(page[0], nil); err != nil || cursor == "0" {
			return err
		}
	}
}

// listNative reads the values of a page in one pipeline.
func listNative(pool *redis.Pool, pattern string) (int, error) {
	c := pool.Get()
	defer c.Close()
	found := make(map[string][]byte)
	err := scanNative(c, pattern, func(keys []any) error {
		for _, key := range keys {
			if err := c.Send("GET", key); err != nil {
				return err
			}
		}
		if err := c.Flush(); err != nil {
			return err
		}
		for _, key := range keys {
			value, err := redis.Bytes(c.Receive())
			if err != nil {
				return err
			}
			found[string(key.([]byte))] = value
		}
		return nil
	})
	return len(found), err
}

func deleteNative(pool *redis.Pool, pattern string) error {
	c := pool.Get()
	defer c.Close()
	return scanNative(c, pattern, func(keys []any) error {
		_, err := c.Do("DEL", keys...)
		return err
	})
}

// lockNative is the lock of Redis' documentation: SET NX with a random value,
// tried again every 10 ms, released by a script.
func lockNative(pool *redis.Pool, key string) (lock, unlock func(ctx context.Context) error) {
	release := redis.NewScript(1, `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end`)
	mine := rand.Text()
	lock = func(ctx context.Context) error {
		c := pool.Get()
		defer c.Close()
		for {
			reply, err := c.Do("SET", key, mine, "NX", "PX", 20_000)
			if err != nil || reply != nil {
				return err
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("%w", ctx.Err())
			}
		}
	}
	unlock = func(context.Context) error {
		c := pool.Get()
		defer c.Close()
		_, err := release.Do(c, key, mine)
		return err
	}
	return lock, unlock
}
