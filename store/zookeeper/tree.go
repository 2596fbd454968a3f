package zookeeper

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

const (
	// batchOps and batchBytes bound one Multi of a DeleteTree, which must fit
	// into a packet of 1 MB.
	batchOps   = 250
	batchBytes = 256 << 10

	// batchesAtOnce bounds how many Multis are under way.
	batchesAtOnce = 8
)

// makeParents makes the parents of a node that are missing. The caller tries again
// afterwards: some may have gone meanwhile. What it makes for a call that does not
// come to its end then is empty, and is removed.
func (d *driver) makeParents(conn *zk.Conn, path string) error {
	last := parent(path)
	if last == "/" {
		return nil
	}
	err := d.makeChain(conn, []string{last}) // often that is all
	if !errors.Is(err, zk.ErrNoNode) {
		return readError(err)
	}
	var above []string // all others, the topmost first
	for i := 1; i < len(last); i++ {
		if last[i] == '/' {
			above = append(above, last[:i])
		}
	}
	there := sort.Search(len(above), func(i int) bool {
		var exists bool
		if err == nil || errors.Is(err, zk.ErrNoNode) {
			exists, _, err = conn.Exists(above[i])
		}
		return !exists
	})
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return readError(err)
	}
	err = d.makeChain(conn, append(above, last)[there:])
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return readError(err)
}

// makeChain makes nodes, each the parent of the next, as many at once as fit into
// a request. That somebody else has made one is no error: the caller finds out
// what is still missing.
func (d *driver) makeChain(conn *zk.Conn, paths []string) error {
	for batch := range batches(paths) {
		var ops []any
		for _, p := range batch {
			ops = append(ops, d.createParent(p)...)
		}
		results, err := conn.Multi(ops...)
		if errors.Is(err, zk.ErrNodeExists) {
			return nil
		}
		if err != nil {
			return err
		}
		d.sweeper.later(batch[len(batch)-1], results[1].Stat.Mzxid)
	}
	return nil
}

// DeleteTree implements store.Driver: level by level, the deepest first. It is
// atomic only within a batch, and goes on until nothing is left that it saw.
func (d *driver) DeleteTree(ctx context.Context, dir string) error {
	return do(ctx, d.main, func(o *op) error {
		if err := o.ready(); err != nil {
			return err
		}
		for first := true; ; first = false {
			levels, keys, err := d.levels(ctx, dir)
			switch {
			case err != nil:
				return err
			case keys == 0 && first:
				return valkeyrie.ErrKeyNotFound
			case keys == 0:
				if there, stat, err := o.conn.Exists(dirOf(dir)); err == nil && there {
					d.sweeper.later(dirOf(dir), stat.Mzxid) // if it was implied
				}
				return nil
			}
			for _, level := range slices.Backward(levels) {
				if err := each(batchesAtOnce, batches(level), func(batch []string) error { return d.deleteBatch(o, batch) }); err != nil {
					return err
				}
			}
		}
	})
}

// levels returns the paths of all nodes below a directory by their depth, and how
// many of them are keys. What is the library's own below keys comes with them.
func (d *driver) levels(ctx context.Context, dir string) (levels [][]string, keys int, err error) {
	depth := strings.Count(dir, "/")
	add := func(path string, at int) {
		for len(levels) <= at {
			levels = append(levels, nil)
		}
		levels[at] = append(levels[at], path)
	}
	err = d.walk(ctx, dir, valkeyrie.ReadOptions{KeysOnly: true}, func(f found) bool {
		at := strings.Count(f.key, "/") - depth
		add(f.path, at)
		if f.pair != nil {
			keys++
		}
		if slices.Contains(f.children, store.Reserved) {
			add(child(f.path, store.Reserved), at+1)
		}
		return true
	})
	return levels, keys, err
}

// each calls f for all items, for so many at once, and returns its errors. After
// one it begins no more.
func each[T any](atOnce int, items iter.Seq[T], f func(T) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	places := make(chan struct{}, atOnce)
	for item := range items {
		places <- struct{}{}
		mu.Lock()
		stop := failed != nil
		mu.Unlock()
		if stop {
			break
		}
		wg.Go(func() {
			defer func() { <-places }()
			if err := f(item); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = errors.Join(failed, err)
			}
		})
	}
	wg.Wait()
	return failed
}

// batches cuts paths into what fits into one request each.
func batches(paths []string) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		start, size := 0, 0
		for i, p := range paths {
			if i-start == batchOps || size > batchBytes {
				if !yield(paths[start:i]) {
					return
				}
				start, size = i, 0
			}
			size += len(p)
		}
		if start < len(paths) {
			yield(paths[start:])
		}
	}
}

// deleteBatch deletes nodes at once, or one by one when one of them stands in
// the way of that.
func (d *driver) deleteBatch(o *op, paths []string) error {
	ops := make([]any, 0, len(paths))
	for _, p := range paths {
		ops = append(ops, &zk.DeleteRequest{Path: p, Version: -1})
	}
	if err := o.writing(); err != nil {
		return err
	}
	_, err := o.conn.Multi(ops...)
	if err == nil || !isOneOf(err, zk.ErrNoNode, zk.ErrNotEmpty) {
		return writeError(err)
	}
	for _, p := range paths {
		if err := o.clear(p); err != nil {
			return writeError(err)
		}
	}
	return nil
}

// clear deletes a node and what the library keeps below it. What else is below it
// is for the next round.
func (o *op) clear(path string) error {
	if o.left() {
		return o.gone()
	}
	err := remove(o.conn, path)
	if !errors.Is(err, zk.ErrNotEmpty) {
		return err
	}
	names, _, err := o.conn.Children(path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	own := strings.Contains(path+"/", "/"+store.Reserved+"/")
	for _, name := range names {
		if own || name == store.Reserved {
			if err := o.clear(child(path, name)); err != nil {
				return err
			}
		}
	}
	if err = remove(o.conn, path); errors.Is(err, zk.ErrNotEmpty) {
		return nil
	}
	return err
}
