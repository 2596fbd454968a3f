package zookeeper

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
)

// walkersAtOnce bounds how many nodes a walk reads at the same time, and so how
// many pairs it holds. The client sends their requests one after the other
// without waiting for answers.
const walkersAtOnce = 128

// found is what was read of one node of a walk.
type found struct {
	path     string
	key      string
	pair     *valkeyrie.KVPair // nil when it is no key
	children []string          // their names
	err      error
}

// Walk implements store.Driver. A leaf costs one request, as its Stat tells that
// it has no children.
func (d *driver) Walk(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		err := d.walk(ctx, dir, opts, func(f found) bool {
			return f.pair == nil || yield(f.pair, nil)
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// walk calls visit with every node below a directory, until it returns false.
func (d *driver) walk(ctx context.Context, dir string, opts valkeyrie.ReadOptions, visit func(found) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first, err := run(ctx, d.main, func(o *op) (*gate, error) { return d.main.reader(o.ctx, opts.AllowStale) }, nil)
	if err != nil {
		return err
	}
	root, err := run(ctx, d.main, func(*op) (found, error) {
		f := readNames(first, found{path: dirOf(dir), key: strings.TrimSuffix(dir, "/")})
		return f, f.err
	}, nil)
	if err != nil {
		return err
	}
	readers, more := []*gate{first}, make(chan *gate, moreClients)
	results := make(chan found, walkersAtOnce) // room for all that are under way
	todo, seen, long := push(nil, root), 0, false
	for busy := 0; busy > 0 || len(todo) > 0; {
		if !long && seen+len(todo) > longWalk {
			long = true
			d.moreReaders(ctx, opts.AllowStale, more)
		}
		for ; busy < walkersAtOnce && len(todo) > 0; busy++ {
			next, r := todo[len(todo)-1], readers[seen%len(readers)]
			todo = todo[:len(todo)-1]
			seen++
			if !d.calls.Go(func() { results <- readNode(r, next, opts) }) {
				return valkeyrie.ErrClosed
			}
		}
		select {
		case f := <-results:
			busy--
			if f.err != nil {
				return f.err
			}
			if !visit(f) {
				return nil
			}
			todo = push(todo, f)
		case r := <-more:
			readers = append(readers, r)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.ctx.Done():
			return valkeyrie.ErrClosed
		}
	}
	return nil
}

// longWalk is from how many nodes on a walk is spread over further connections,
// see driver.pick.
const longWalk = 300

// reader returns a session of the client that reads what was written before.
func (c *client) reader(ctx context.Context, stale bool) (*gate, error) {
	g, err := c.ready(ctx, false)
	if err == nil && !stale {
		err = readError(c.sync(g.conn))
	}
	return g, err
}

// moreReaders sends further readers as soon as they are there.
func (d *driver) moreReaders(ctx context.Context, stale bool, to chan<- *gate) {
	for _, c := range d.more {
		d.calls.Go(func() {
			if g, err := c.reader(ctx, stale); err == nil {
				to <- g // has room for all
			}
		})
	}
}

// push appends the children of a node to those that have to be read.
func push(todo []found, f found) []found {
	for _, name := range f.children {
		if path, key, ok := below(f.path, f.key, name); ok {
			todo = append(todo, found{path: path, key: key})
		}
	}
	return todo
}

// readNode reads a node, and the names of its children if it has any.
func readNode(g *gate, f found, opts valkeyrie.ReadOptions) found {
	data, stat, err := g.conn.Get(f.path)
	switch {
	case errors.Is(err, zk.ErrNoNode):
	case err != nil:
		f.err = readError(err)
	default:
		if data != nil {
			f.pair = &valkeyrie.KVPair{Key: f.key, LastIndex: uint64(stat.Mzxid)}
			if !opts.KeysOnly {
				f.pair.Value = data
			}
		}
		if stat.NumChildren > 0 {
			f = readNames(g, f)
		}
	}
	if f.err == nil && !opts.AllowStale {
		f.err = g.same()
	}
	return f
}

// readNames reads the names of a node's children.
func readNames(g *gate, f found) found {
	names, _, err := g.conn.Children(f.path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		f.err = readError(err)
	}
	f.children = names
	return f
}
