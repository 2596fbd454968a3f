package redis

import (
	"context"

	"github.com/kvtools/valkeyrie"
)

// servers is what there is to talk to: one server, a Sentinel group's primary or
// a Cluster's primaries.
type servers interface {
	// do sends a call to the server that has the key; bulk: on the connection
	// for what moves much data. See link.do.
	do(ctx context.Context, key string, bulk bool, c *call) (*call, error)

	// primaries returns all servers that have keys, at least one, and how the keys
	// are spread over them.
	primaries(ctx context.Context) (all []*server, spread string, err error)

	// settled tells whether the keys are still spread like that, and none moves
	// between servers.
	settled(ctx context.Context, spread string) (bool, error)

	// split tells which of these keys each server has, as far as is known.
	split(keys []any) map[*server][]any

	// together tells whether one command may take keys of several slots.
	together() bool
}

// server is one server and the connections to it.
type server struct {
	addr string // empty: found anew for each connection
	dial dialer

	calls link // for ordinary calls
	bulk  link // for what moves much data
}

// dialer opens a connection.
type dialer func(ctx context.Context) (*line, error)

func newServer(d *driver, addr string, dial dialer) *server {
	return &server{addr: addr, dial: dial, calls: link{d: d, dial: dial, express: true}, bulk: link{d: d, dial: dial}}
}

// dialTo opens connections to an address.
func (d *driver) dialTo(addr string) dialer {
	return func(ctx context.Context) (*line, error) {
		l, _, err := d.dialServer(ctx, addr)
		return l, err
	}
}

// link returns the connection for a kind of calls.
func (s *server) link(bulk bool) *link {
	if bulk {
		return &s.bulk
	}
	return &s.calls
}

// drop gives up all connections, as they lead to the wrong server.
func (s *server) drop(why error) {
	s.calls.drop(why)
	s.bulk.drop(why)
}

// single is one server.
type single struct{ s *server }

func newSingle(d *driver, addr string) *single {
	return &single{newServer(d, addr, d.dialTo(addr))}
}

func (s *single) do(ctx context.Context, _ string, bulk bool, c *call) (*call, error) {
	return s.s.link(bulk).do(ctx, c)
}

func (s *single) primaries(context.Context) ([]*server, string, error) {
	return []*server{s.s}, "", nil
}

func (s *single) settled(context.Context, string) (bool, error) { return true, nil }

func (s *single) split(keys []any) map[*server][]any {
	return map[*server][]any{s.s: keys}
}

func (s *single) together() bool { return true }

// do sends a command about a key and returns its reply.
func (d *driver) do(ctx context.Context, reads bool, key string, name string, args ...any) (any, error) {
	return d.send(ctx, key, false, newCall(reads, name, args...))
}

// send sends a call about a key and returns the reply to its command.
func (d *driver) send(ctx context.Context, key string, bulk bool, c *call) (any, error) {
	if d.ctx.Err() != nil {
		return nil, valkeyrie.ErrClosed
	}
	c, err := d.servers.do(ctx, key, bulk, c)
	if err != nil {
		return nil, err
	}
	reply := c.reply
	c.free()
	return reply, nil
}
