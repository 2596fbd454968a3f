package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/gomodule/redigo/redis"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"

	valkeyrieredis "github.com/kvtools/valkeyrie/store/redis"
)

// open opens all clients, as their documentation shows: one client for the whole
// process, with its defaults.
func open(addr string) ([]client, func(), error) {
	kv, err := valkeyrieredis.New([]string{addr}, nil, nil)
	if err != nil {
		return nil, nil, err
	}
	pool := &redis.Pool{MaxIdle: 256, Dial: func() (redis.Conn, error) { return redis.Dial("tcp", addr) }}
	ru, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
	if err != nil {
		return nil, nil, err
	}
	gr := goredis.NewClient(&goredis.Options{Addr: addr})
	stop := func() {
		_ = kv.Close()
		_ = pool.Close()
		ru.Close()
		_ = gr.Close()
	}
	do := func(cmd string, args ...any) error {
		c := pool.Get()
		defer c.Close()
		_, err := c.Do(cmd, args...)
		return err
	}
	return []client{
		{
			name: "valkeyrie",
			get:  func(ctx context.Context, key string) error { _, err := kv.Get(ctx, key, nil); return err },
			put:  func(ctx context.Context, key string) error { return kv.Put(ctx, key, value, nil) },
			list: func(ctx context.Context, dir string) (int, error) {
				pairs, err := kv.List(ctx, dir, nil)
				return len(pairs), err
			},
		},
		{
			name: "redigo",
			get:  func(_ context.Context, key string) error { return do("GET", key) },
			put:  func(_ context.Context, key string) error { return do("SET", key, value) },
			list: func(_ context.Context, dir string) (int, error) { return scan(pool, dir) },
		},
		{
			name: "rueidis",
			get: func(ctx context.Context, key string) error {
				_, err := ru.Do(ctx, ru.B().Get().Key(key).Build()).AsBytes()
				return err
			},
			put: func(ctx context.Context, key string) error {
				return ru.Do(ctx, ru.B().Set().Key(key).Value(rueidis.BinaryString(value)).Build()).Error()
			},
		},
		{
			name: "go-redis",
			get:  func(ctx context.Context, key string) error { return gr.Get(ctx, key).Err() },
			put:  func(ctx context.Context, key string) error { return gr.Set(ctx, key, value, 0).Err() },
		},
	}, stop, nil
}

// scan is what a service would write for a list: SCAN, and the values of each
// page in one pipeline.
func scan(pool *redis.Pool, dir string) (int, error) {
	c := pool.Get()
	defer c.Close()
	found := make(map[string][]byte)
	for cursor := "0"; ; {
		page, err := redis.Values(c.Do("SCAN", cursor, "MATCH", dir+"/*", "COUNT", 2000))
		if err != nil {
			return 0, err
		}
		keys, err := redis.Strings(page[1], nil)
		if err != nil {
			return 0, err
		}
		for _, key := range keys {
			if err := c.Send("GET", key); err != nil {
				return 0, err
			}
		}
		if err := c.Flush(); err != nil {
			return 0, err
		}
		for _, key := range keys {
			if found[key], err = redis.Bytes(c.Receive()); err != nil {
				return 0, err
			}
		}
		if cursor, err = redis.String(page[0], nil); err != nil || cursor == "0" {
			return len(found), err
		}
	}
}

// compareLists compares lists of 10,000 keys, alone and with many others beside.
func compareLists(ctx context.Context, out *tabwriter.Writer, clients []client, rounds int) error {
	put := clients[0].put
	for i := range 10_000 {
		if err := put(ctx, fmt.Sprintf("redisbench/list/%02d/%05d", i%16, i)); err != nil {
			return err
		}
	}
	for _, others := range []int{0, 100_000, 1_000_000} {
		if err := fill(ctx, put, others); err != nil {
			return err
		}
		took, err := turns(clients, rounds, func(c client) (float64, error) {
			if c.list == nil {
				return 0, nil
			}
			began := time.Now()
			n, err := c.list(ctx, "redisbench/list")
			if err == nil && n != 10_000 {
				err = fmt.Errorf("listed %d keys", n)
			}
			return time.Since(began).Seconds(), err
		})
		if err != nil {
			return err
		}
		report(out, fmt.Sprintf("List of 10,000 with %d others", others), clients, took)
	}
	return nil
}

// fill puts so many other keys.
func fill(ctx context.Context, put func(ctx context.Context, key string) error, others int) error {
	const writers = 64
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			for i := w; i < others; i += writers {
				if err := put(ctx, fmt.Sprintf("redisbench/others/%07d", i)); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var failed error
	for range writers {
		failed = errors.Join(failed, <-errs)
	}
	return failed
}
