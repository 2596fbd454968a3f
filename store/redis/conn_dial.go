package redis

import (
	"context"
	"fmt"

	"github.com/gomodule/redigo/redis"
)

// line is an open connection.
type line struct {
	conn   redis.Conn
	socket *socket
	addr   string
	first  []command // what was sent first
}

// flush sends what redigo and the socket keep.
func (l *line) flush() error {
	if err := l.conn.Flush(); err != nil {
		return err
	}
	return l.socket.flush()
}

// dialServer opens a connection to a data server, authenticates and selects the
// database: without these it would be another server than its users expect. It
// returns the replies to the commands that the caller adds.
func (d *driver) dialServer(ctx context.Context, addr string, more ...command) (*line, []any, error) {
	first := auth(d.config.Username, d.config.Password)
	if d.opts.DB != 0 {
		first = append(first, command{"SELECT", []any{d.opts.DB}})
	}
	first = append(first, command{name: "PING"}) // refused while it loads its data
	l, replies, err := d.dialLine(ctx, addr, append(first, more...))
	if err != nil {
		return nil, nil, err
	}
	return l, replies[len(first):], nil
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

// dialLine opens a connection and sends the first commands, of which none may
// fail, but for the lack of a right to PING or ROLE. It returns their replies.
func (d *driver) dialLine(ctx context.Context, addr string, first []command) (*line, []any, error) {
	s, err := dialSocket(ctx, addr, d.config.TLS)
	if err != nil {
		return nil, nil, err
	}
	l := &line{conn: redis.NewConn(s, 0, 0), socket: s, addr: addr, first: first}
	whole := context.AfterFunc(ctx, func() { _ = s.Close() })
	replies, err := l.greet()
	if !whole() {
		err = ctx.Err()
	}
	if err != nil {
		_ = s.Close()
		return nil, nil, fmt.Errorf("%s: %w", addr, err)
	}
	return l, replies, nil
}

// greet sends the first commands.
func (l *line) greet() ([]any, error) {
	for _, one := range l.first {
		if err := l.conn.Send(one.name, one.args...); err != nil {
			return nil, err
		}
	}
	if err := l.flush(); err != nil {
		return nil, err
	}
	replies := make([]any, len(l.first))
	for i, one := range l.first {
		reply, err := l.conn.Receive()
		if err != nil && !(isCode(err, "NOPERM") && (one.name == "PING" || one.name == "ROLE")) {
			return nil, err
		}
		replies[i] = reply
	}
	return replies, nil
}
