package redis

import (
	"context"
	"fmt"

	"github.com/gomodule/redigo/redis"

	"github.com/kvtools/valkeyrie"
)

// dialServer opens a connection to a data server, authenticates and selects the
// database: without these it would be another server than its users expect. It
// returns the replies to the commands that the caller adds.
func (d *driver) dialServer(ctx context.Context, addr string, push func([]any), more ...command) (*pipe, []any, error) {
	first := auth(d.config.Username, d.config.Password)
	if d.opts.DB != 0 {
		first = append(first, command{"SELECT", []any{d.opts.DB}})
	}
	first = append(first, command{name: "PING"}) // refused while it loads its data
	p, replies, err := d.dialWith(ctx, addr, push, append(first, more...))
	if err != nil {
		return nil, nil, err
	}
	return p, replies[len(first):], nil
}

// auth is the command that authenticates, if any.
func auth(username, password string) []command {
	switch {
	case username != "":
		return []command{{"AUTH", []any{username, password}}}
	case password != "": // the only form that servers before Redis 6 know
		return []command{{"AUTH", []any{password}}}
	}
	return nil
}

// dialWith opens a connection and sends the first commands, of which none may
// fail, but for the lack of a right to PING or ROLE. It returns their replies.
func (d *driver) dialWith(ctx context.Context, addr string, push func([]any), first []command) (*pipe, []any, error) {
	s, err := dialSocket(ctx, addr, d.config.TLS)
	if err != nil {
		return nil, nil, err
	}
	p := newPipe(s)
	p.push, p.addr = push, addr
	if !p.run(d) {
		_ = s.Close()
		return nil, nil, valkeyrie.ErrClosed
	}
	c := newBatch(true, first)
	if err := p.do(ctx, c); err != nil {
		p.fail(err)
		return nil, nil, err
	}
	for i, reply := range c.replies {
		if answer, failed := reply.(redis.Error); failed && !first[i].optional(answer) {
			p.fail(answer)
			return nil, nil, fmt.Errorf("%s: %w", addr, answer)
		}
	}
	return p, c.replies, nil
}
