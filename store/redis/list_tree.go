package redis

import (
	"context"
	"strings"

	"github.com/gomodule/redigo/redis"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// passesMost bounds how often a walk goes over a cluster whose slots move.
const passesMost = 3

// passes calls f for all servers. In a cluster a key can move from a server that
// was not visited yet to one that was. Of two passes one finds every key that
// moved once; so there are more until one went by in which nothing moved.
func (d *driver) passes(ctx context.Context, f func(all []*server) error) error {
	if d.ctx.Err() != nil {
		return valkeyrie.ErrClosed
	}
	for pass := 1; ; pass++ {
		all, spread, err := d.servers.primaries(ctx)
		if err != nil {
			return readError(err)
		}
		if err := f(all); err != nil {
			return err
		}
		if pass == passesMost {
			return nil
		}
		settled, err := d.servers.settled(ctx, spread)
		if err != nil || settled {
			return readError(err)
		}
	}
}

// DeleteTree implements store.Driver. It leaves out what belongs to a lock whose
// key is the directory's own name, which is not below the directory.
func (d *driver) DeleteTree(ctx context.Context, dir string) error {
	deleted := int64(0)
	err := d.passes(ctx, func(all []*server) error {
		for _, s := range all {
			n, err := d.deleteTree(ctx, s, dir)
			deleted += n
			if err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case deleted == 0:
		return valkeyrie.ErrKeyNotFound
	}
	return nil
}

// deleteTree deletes what one server has below dir.
func (d *driver) deleteTree(ctx context.Context, s *server, dir string) (deleted int64, err error) {
	scan := scanner{s: s, ctx: ctx, dir: dir, own: true}
	for more := true; more; {
		if err = scan.start(); err != nil {
			return deleted, err
		}
		var keys []any
		if keys, more, err = scan.next(); err != nil {
			return deleted, err
		}
		if keys, err = d.onlyStrings(ctx, s, keys); err != nil {
			return deleted, err
		}
		var users, own []any
		for _, k := range keys {
			switch key := keyOf(k); {
			case strings.HasPrefix(key, dir+store.Reserved+"/"):
			case isReserved(key):
				own = append(own, k)
			default:
				users = append(users, k)
			}
		}
		n, err := d.deleteKeys(ctx, s, users)
		deleted += n
		if err == nil {
			_, err = d.deleteKeys(ctx, s, own)
		}
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// deleteKeys deletes keys of one server and returns how many there were.
func (d *driver) deleteKeys(ctx context.Context, s *server, keys []any) (deleted int64, err error) {
	for len(keys) > 0 {
		n := min(len(keys), requestKeys)
		some, batch := keys[:n], []command(nil)
		keys = keys[n:]
		if d.servers.together() {
			batch = []command{{"DEL", some}}
		} else {
			for _, k := range some {
				batch = append(batch, command{"DEL", []any{k}})
			}
		}
		c, err := s.bulk.do(ctx, newBatch(false, batch))
		if err != nil {
			return deleted, writeError(err)
		}
		for i, reply := range c.replies {
			switch reply := reply.(type) {
			case int64:
				deleted += reply
			case redis.Error:
				if redirects(reply) { // its slot moved while we were there
					err = d.Delete(ctx, keyOf(some[i]), 0)
				} else {
					err = writeError(reply)
				}
				if err == nil {
					deleted++
				} else if !missing(err) {
					return deleted, err
				}
			}
		}
		c.free()
	}
	return deleted, nil
}

// onlyStrings leaves out keys of other types. SCAN can do that by itself only from
// Redis 6 on.
func (d *driver) onlyStrings(ctx context.Context, s *server, keys []any) ([]any, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	var batch []command
	for _, k := range keys {
		batch = append(batch, command{"TYPE", []any{k}})
	}
	c, err := s.bulk.do(ctx, newBatch(true, batch))
	if err != nil {
		return nil, readError(err)
	}
	kept := keys[:0]
	for i, k := range keys {
		kind := c.replies[i]
		if answer, failed := kind.(redis.Error); failed {
			if !redirects(answer) {
				return nil, readError(answer)
			}
			if kind, err = d.do(ctx, true, keyOf(k), "TYPE", k); err != nil { // its slot moved while we were there
				return nil, readError(err)
			}
		}
		if kind == "string" {
			kept = append(kept, k)
		}
	}
	c.free()
	return kept, nil
}
