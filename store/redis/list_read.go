package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/kvtools/valkeyrie"
)

// state is what was found under a key.
type state struct {
	key  string
	pair *valkeyrie.KVPair // nil: nothing, or no string
	ttl  time.Duration     // 0: none, or not asked for
}

// request is a read of several keys of one server that is under way.
type request struct {
	d        *driver
	s        *server
	keys     []any // strings or []byte, as arguments take them
	keysOnly bool
	withTTL  bool
	together bool // the values come in one reply

	pipe *pipe
	call *call
}

// start gives a call to the connection without waiting for the reply.
func (l *link) start(ctx context.Context, c *call) (*pipe, error) {
	p, err := l.open(ctx)
	if err != nil {
		return nil, &noReply{err: err}
	}
	p.start(c)
	return p, nil
}

// start gives a call to the pipe; if that broke just now, await says so.
func (p *pipe) start(c *call) {
	if err := p.enqueue(c); err != nil {
		c.err = err
		c.finish()
	}
}

// finish waits for the reply to a call that was started. See do.
func (l *link) finish(ctx context.Context, p *pipe, c *call) (*call, error) {
	err := p.await(ctx, c)
	if err == nil || !l.resend(ctx, c, err, 0) {
		return c, err
	}
	return l.do(ctx, c.again())
}

// startRead asks for some keys of a server.
func (d *driver) startRead(ctx context.Context, s *server, keys []any, keysOnly, withTTL bool) (*request, error) {
	r := &request{d: d, s: s, keys: keys, keysOnly: keysOnly, withTTL: withTTL, together: d.servers.together() && !keysOnly}
	r.call = newBatch(true, r.batch())
	var err error
	r.pipe, err = s.bulk.start(ctx, r.call)
	return r, readError(err)
}

// batch is the commands of a request: those for the values, then those for the TTLs.
func (r *request) batch() []command {
	var batch []command
	if r.together {
		batch = append(batch, command{"MGET", r.keys})
	} else {
		for _, k := range r.keys {
			batch = append(batch, readCommand(k, r.keysOnly))
		}
	}
	if r.withTTL {
		for _, k := range r.keys {
			batch = append(batch, command{"PTTL", []any{k}})
		}
	}
	return batch
}

// readCommand reads a key, or what is enough to know its revision.
func readCommand(key any, keysOnly bool) command {
	if keysOnly {
		return command{"GETRANGE", []any{key, 0, headerSize - 1}}
	}
	return command{"GET", []any{key}}
}

// states waits for the replies.
func (r *request) states(ctx context.Context) ([]state, error) {
	c, err := r.s.bulk.finish(ctx, r.pipe, r.call)
	if err != nil {
		return nil, readError(err)
	}
	replies := c.replies
	values := replies
	if r.together {
		if answer, failed := replies[0].(redis.Error); failed {
			return nil, readError(answer)
		}
		values, _ = replies[0].([]any)
		replies = replies[1:]
	} else {
		replies = replies[len(r.keys):]
	}
	c.free()
	if len(values) < len(r.keys) {
		return nil, fmt.Errorf("the server answered with %d values for %d keys", len(values), len(r.keys))
	}
	states, pairs := make([]state, len(r.keys)), make([]valkeyrie.KVPair, len(r.keys))
	for i, k := range r.keys {
		s := state{key: keyOf(k)}
		if s.pair, err = r.d.found(ctx, s.key, values[i], r.keysOnly, &pairs[i]); err != nil {
			return nil, err
		}
		if r.withTTL && s.pair != nil {
			s.ttl = ttlOf(replies[i])
		}
		states[i] = s
	}
	return states, nil
}

// keyOf is a key that may be a []byte.
func keyOf(key any) string {
	if b, ok := key.([]byte); ok {
		return string(b)
	}
	return key.(string)
}

// found makes a pair, in the memory it is given, of the reply to a read of a key;
// nil when there is nothing that is ours to read.
func (d *driver) found(ctx context.Context, key string, reply any, keysOnly bool, p *valkeyrie.KVPair) (*valkeyrie.KVPair, error) {
	switch reply := reply.(type) {
	case redis.Error:
		switch {
		case code(reply) == "WRONGTYPE":
			return nil, nil
		case redirects(reply):
			return d.alone(ctx, key, keysOnly) // its slot moved while we were there
		}
		return nil, readError(reply)
	case []byte:
		if keysOnly {
			if !hasMagic(reply) {
				return d.alone(ctx, key, keysOnly) // nothing, or of another tool
			}
			revision, err := decodeHeader(key, reply)
			*p = valkeyrie.KVPair{Key: key, LastIndex: revision}
			return p, err
		}
		value, revision, err := decode(key, reply)
		if err != nil {
			return nil, err
		}
		*p = valkeyrie.KVPair{Key: key, Value: value, LastIndex: revision}
		return p, nil
	}
	return nil, nil
}

// alone reads one key by itself; nil when there is nothing that is ours to read.
func (d *driver) alone(ctx context.Context, key string, keysOnly bool) (*valkeyrie.KVPair, error) {
	p, err := d.Get(ctx, key, valkeyrie.ReadOptions{KeysOnly: keysOnly})
	if missing(err) {
		return nil, nil
	}
	return p, err
}

// ttlOf is the TTL in a reply to PTTL; 0: none.
func ttlOf(reply any) time.Duration {
	if ms, ok := reply.(int64); ok && ms >= 0 {
		return max(time.Duration(ms)*time.Millisecond, time.Millisecond)
	}
	return 0
}
