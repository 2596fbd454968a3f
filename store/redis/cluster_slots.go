package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/mna/redisc"

	"github.com/kvtools/valkeyrie"
)

// refresh asks the cluster which slots are where. The answer is never older than
// the call: who comes while a question is under way waits for the next one, which
// answers all who came meanwhile.
func (c *cluster) refresh(ctx context.Context) error {
	c.mu.Lock()
	r := c.next
	if r == nil {
		r = &refresh{done: make(chan struct{})}
		c.next = r
	}
	if !c.asking {
		if !c.d.running.Go(c.askAll) {
			c.mu.Unlock()
			return valkeyrie.ErrClosed
		}
		c.asking = true
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// askAll asks as long as somebody wants to know.
func (c *cluster) askAll() {
	for {
		c.mu.Lock()
		r := c.next
		c.next = nil
		if r == nil {
			c.asking = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(c.d.ctx, c.d.config.ConnectionTimeout)
		r.err = c.askSlots(ctx)
		cancel()
		close(r.done)
		if r.err == nil {
			c.looking.Do(func() { c.d.running.Go(c.look) })
		}
	}
}

// look refreshes the table when it is known to be wrong, and now and then.
func (c *cluster) look() {
	for {
		select {
		case <-time.After(refreshInterval):
		case <-c.stale:
		case <-c.d.ctx.Done():
			return
		}
		if err := c.refresh(c.d.ctx); err != nil && c.d.ctx.Err() == nil {
			c.d.log.Info("cannot ask the cluster for its slots", "error", err)
		}
		if c.pause(c.d.ctx, 3) != nil { // many find out at once
			return
		}
	}
}

// askSlots lets redisc ask one node after the other, in random order, as a node that
// was cut off does not know of changes. redisc forgets the nodes that it began with
// once it knows primaries, so each question is a new one's, to all of them.
func (c *cluster) askSlots(ctx context.Context) error {
	var last asked
	ask := redisc.Cluster{
		StartupNodes: slices.Clone(c.seeds),
		CreatePool: func(addr string, _ ...redis.DialOption) (*redis.Pool, error) {
			dial := func() (redis.Conn, error) { return &asker{ctx: ctx, s: c.node(addr), last: &last}, nil }
			return &redis.Pool{Dial: dial}, nil
		},
		LayoutRefresh: func(_, layout [redisc.HashSlots][]string) { c.adopt(c.newTable(last.addr, &layout)) },
	}
	defer ask.Close()
	if t := c.table.Load(); t != nil {
		for _, s := range t.primaries {
			ask.StartupNodes = append(ask.StartupNodes, s.addr)
		}
	}
	err := ask.Refresh()
	switch {
	case err == nil && c.table.Load() == nil:
		err = errors.New("the cluster has no slots yet")
	case err == nil:
		return nil
	case last.refused != nil: // redisc keeps only the texts of errors
		err = fmt.Errorf("%w (%w)", err, last.refused)
	}
	return &noReply{err: err} // nothing of a user's was sent
}

// asked is what came of the questions for the slots.
type asked struct {
	addr    string // of the node that answered last
	refused error  // what a node said that did not answer
}

// asker is a redis.Conn for redisc's questions: over the connection for calls.
type asker struct {
	redis.Conn // what redisc does not call
	ctx        context.Context
	s          *server
	last       *asked
}

// Do implements redis.Conn.
func (a *asker) Do(name string, args ...any) (any, error) {
	if name == "" { // a pool does that when it takes a connection back
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(a.ctx, askTimeout)
	defer cancel()
	answered, err := a.s.calls.do(ctx, newCall(true, name, args...))
	if err != nil {
		if saysServer(err) {
			a.last.refused = err
		}
		return nil, fmt.Errorf("%s: %w", a.s.addr, err)
	}
	a.last.addr = a.s.addr
	return answered.reply, nil
}

// Err and Close implement redis.Conn.
func (a *asker) Err() error   { return nil }
func (a *asker) Close() error { return nil }

// newTable makes a table of a layout that a node told: for each slot the addresses
// of its primary and its replicas.
func (c *cluster) newTable(told string, layout *[redisc.HashSlots][]string) *slotTable {
	t, known := new(slotTable), make(map[string]*server)
	for slot, nodes := range layout {
		if len(nodes) == 0 {
			continue
		}
		s := known[nodes[0]]
		if s == nil {
			s = c.node(address(nodes[0], told))
			known[nodes[0]] = s
			t.primaries = append(t.primaries, s)
		}
		t.slots[slot] = s
	}
	return t
}

// address makes an address of what a node told: one that does not know a host
// means its own, and there are no brackets around one of IPv6.
func address(node, told string) string {
	colon := strings.LastIndexByte(node, ':')
	host, port := node[:max(colon, 0)], node[colon+1:]
	if host == "" || host == "?" {
		host, _, _ = net.SplitHostPort(told)
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// adopt makes a table the current one, unless it is empty. Watches begin again when
// there are other servers to be told by.
func (c *cluster) adopt(t *slotTable) {
	if len(t.primaries) == 0 {
		return
	}
	slices.SortFunc(t.primaries, func(a, b *server) int { return cmp.Compare(a.addr, b.addr) })
	old := c.table.Load()
	c.table.Store(t)
	if old != nil && !slices.Equal(old.primaries, t.primaries) {
		c.d.log.Info("the primaries of the cluster have changed", "count", len(t.primaries))
		c.d.hub.reset(errors.New("the primaries of the cluster have changed"))
	}
}

// slotClaims returns what each node says of itself in CLUSTER NODES: its epoch
// and its slots. moving: some node is giving a slot away or taking one over, which
// shows as [slot->-node] and [slot-<-node].
func slotClaims(ctx context.Context, all []*server) (claims string, moving bool, err error) {
	asked, pipes := make([]*call, len(all)), make([]*pipe, len(all))
	for i, s := range all {
		asked[i] = newCall(true, "CLUSTER", "NODES")
		if pipes[i], err = s.calls.start(ctx, asked[i]); err != nil {
			return "", false, err
		}
	}
	var claimed strings.Builder
	for i, s := range all {
		answered, err := s.calls.finish(ctx, pipes[i], asked[i])
		if err != nil {
			return "", false, err
		}
		nodes, err := redis.String(answered.reply, nil)
		if err != nil {
			return "", false, err
		}
		for line := range strings.Lines(nodes) {
			fields := strings.Fields(line)
			if len(fields) < 8 || !strings.Contains(fields[2], "myself") {
				continue
			}
			fmt.Fprintln(&claimed, fields[0], fields[6], fields[8:])
			moving = moving || slices.ContainsFunc(fields[8:], func(f string) bool { return f[0] == '[' })
		}
	}
	return claimed.String(), moving, nil
}
