package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mna/redisc"

	"github.com/kvtools/valkeyrie/store"
)

const (
	// refreshInterval is how often the nodes of a cluster are asked which slots
	// they have, when no redirection gave reason to.
	refreshInterval = 5 * time.Second

	// redirectsMost bounds how often a call is sent elsewhere or again because
	// slots move or a primary is being replaced.
	redirectsMost = 12
)

// cluster is the primaries of a Redis Cluster.
type cluster struct {
	d      *driver
	seeds  []string
	table  atomic.Pointer[slotTable]
	claims atomic.Pointer[string] // what the primaries claimed when a walk asked last

	looking sync.Once
	stale   chan struct{} // capacity 1: the table is known to be wrong

	mu     sync.Mutex
	nodes  map[string]*server // by address: all that were ever heard of
	next   *refresh           // the next question for the slots, nil: nobody wants it
	asking bool               // askAll runs
}

// slotTable says which server has which slots.
type slotTable struct {
	slots     [redisc.HashSlots]*server
	primaries []*server
}

// refresh is one question for the slots; done is closed when err is there.
type refresh struct {
	done chan struct{}
	err  error
}

func newCluster(d *driver, seeds []string) *cluster {
	return &cluster{d: d, seeds: seeds, stale: make(chan struct{}, 1), nodes: make(map[string]*server)}
}

func (c *cluster) together() bool { return false }

// node returns the server at an address.
func (c *cluster) node(addr string) *server {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.nodes[addr]
	if s == nil {
		s = newServer(c.d, addr, c.d.dialTo(addr))
		c.nodes[addr] = s
	}
	return s
}

// do sends a call to the server that has the key's slot, and follows where the
// servers send it to. What a server redirects it has not applied.
func (c *cluster) do(ctx context.Context, key string, bulk bool, one *call) (*call, error) {
	s, err := c.owner(ctx, redisc.Slot(key))
	if err != nil {
		return one, &noReply{err: err}
	}
	asking := false
	for attempt := 0; ; attempt++ {
		var answered *call
		if asking {
			answered, err = c.ask(ctx, s.link(bulk), one)
		} else {
			answered, err = s.link(bulk).do(ctx, one)
		}
		var lost *noReply
		if errors.As(err, &lost) && ctx.Err() == nil {
			store.Poke(c.stale) // the server may have been replaced
		}
		if err == nil || !isAnswer(err) || attempt == redirectsMost {
			return answered, err
		}
		again, next := answered.again(), redisc.ParseRedir(answered.err)
		asking = false
		switch {
		case next != nil && next.Addr != "":
			s, asking = c.node(address(next.Addr, s.addr)), next.Type == "ASK"
			if !asking {
				store.Poke(c.stale)
			}
		case isCode(err, "TRYAGAIN"), isCode(err, "CLUSTERDOWN"), isCode(err, "LOADING"):
			store.Poke(c.stale)
			if err := c.pause(ctx, attempt); err != nil {
				return answered, &noReply{err: err}
			}
			if s, err = c.owner(ctx, redisc.Slot(key)); err != nil {
				return answered, &noReply{err: err}
			}
		default:
			return answered, err
		}
		one = again
	}
}

// ask sends a call with ASKING before it, which makes a server that is taking a
// slot over serve it already.
func (c *cluster) ask(ctx context.Context, l *link, one *call) (*call, error) {
	batch, err := l.do(ctx, newBatch(one.reads, []command{{name: "ASKING"}, {one.name, slices.Clone(one.args)}}))
	if err != nil {
		return one, err
	}
	reply := batch.replies[1]
	if answer, failed := reply.(error); failed {
		one.err = answer
		return one, answer
	}
	one.reply = reply
	return one, nil
}

// pause waits a little longer each time.
func (c *cluster) pause(ctx context.Context, attempt int) error {
	select {
	case <-time.After(min(10*time.Millisecond<<attempt, 500*time.Millisecond)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.d.ctx.Done():
		return context.Cause(c.d.ctx)
	}
}

// owner returns the server that has a slot.
func (c *cluster) owner(ctx context.Context, slot int) (*server, error) {
	if t := c.table.Load(); t != nil && t.slots[slot] != nil {
		return t.slots[slot], nil
	}
	if err := c.refresh(ctx); err != nil {
		return nil, err
	}
	if s := c.table.Load().slots[slot]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("no node of the cluster has slot %d", slot)
}

// primaries implements servers.
func (c *cluster) primaries(ctx context.Context) ([]*server, string, error) {
	if c.table.Load() == nil {
		if err := c.refresh(ctx); err != nil {
			return nil, "", err
		}
	}
	all := c.table.Load().primaries
	if claims := c.claims.Load(); claims != nil {
		return all, *claims, nil
	}
	claims, _, err := slotClaims(ctx, all)
	return all, claims, err
}

// settled implements servers. What one node tells of the others may be old, so
// each is asked what it claims for itself: that is what it claimed before, and it
// neither gives away nor takes over any slot.
func (c *cluster) settled(ctx context.Context, before string) (bool, error) {
	claims, moving, err := slotClaims(ctx, c.table.Load().primaries)
	if err != nil {
		return false, err
	}
	c.claims.Store(&claims)
	if claims == before {
		return !moving, nil
	}
	return false, c.refresh(ctx) // there may be other servers
}

// split implements servers.
func (c *cluster) split(keys []any) map[*server][]any {
	split := make(map[*server][]any)
	t := c.table.Load() // there is one: the watch has read everything before
	for _, key := range keys {
		s := t.slots[redisc.Slot(key.(string))]
		if s == nil {
			s = t.primaries[0] // it knows better
		}
		split[s] = append(split[s], key)
	}
	return split
}
