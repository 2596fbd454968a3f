package etcdv2

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"

	client "go.etcd.io/etcd/client/v2"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// pair makes a pair of a node that has a value.
func pair(key string, n *client.Node, keysOnly bool) *valkeyrie.KVPair {
	c := decode(n.Value)
	p := &valkeyrie.KVPair{Key: key, LastIndex: c.revision}
	if c.revision == 0 {
		p.LastIndex = n.ModifiedIndex
	}
	if !keysOnly {
		p.Value = c.value
	}
	return p
}

// found is what a read of a node found.
type found struct {
	node  *client.Node // a directory with nothing in it if there is none
	gone  *answer      // why there is none, nil if there is one
	index uint64       // of etcd, when it was read
	by    *member      // who read it
}

// look reads a node, and with recursive all that is below it.
func (d *driver) look(ctx context.Context, path string, quorum, recursive bool) (found, error) {
	resp, m, err := d.get(ctx, path, client.GetOptions{Quorum: quorum, Recursive: recursive})
	if err == nil {
		return found{node: resp.Node, index: resp.Index, by: m}, nil
	}
	switch code(err) {
	case client.ErrorCodeKeyNotFound, client.ErrorCodeNotDir: // there is nothing below a value
		gone := as(valkeyrie.ErrKeyNotFound, err)
		return found{node: &client.Node{Dir: true}, gone: gone, index: gone.etcd.Index, by: m}, nil
	}
	return found{}, err
}

// find returns the node with the value of a key.
func (d *driver) find(ctx context.Context, key string, quorum bool) (*client.Node, error) {
	f, err := d.look(ctx, wirePath(key), quorum, false)
	if err != nil {
		return nil, err
	}
	if n := valueOf(f.node); n != nil {
		return n, nil
	}
	return nil, f.missing()
}

// missing is the error of a key or a directory that is not there.
func (f found) missing() error {
	if f.gone != nil {
		return f.gone
	}
	return valkeyrie.ErrKeyNotFound
}

// valueOf returns the node with the value of the key whose node this is, nil when
// it has none.
func valueOf(n *client.Node) *client.Node {
	if !n.Dir {
		return n
	}
	for _, child := range n.Nodes {
		if !child.Dir && child.Key == n.Key+ownValue {
			return child
		}
	}
	return nil
}

// walk calls yield with every pair of a tree whose key begins with dir until it
// returns false. It sorts each directory, which is cheaper than sorting all keys.
func walk(n *client.Node, dir string, keysOnly bool, yield func(*valkeyrie.KVPair) bool) bool {
	if !n.Dir {
		key, ours := keyOf(n.Key)
		return !ours || !strings.HasPrefix(key, dir) || yield(pair(key, n, keysOnly))
	}
	slices.SortFunc(n.Nodes, func(a, b *client.Node) int { return strings.Compare(a.Key, b.Key) })
	for _, child := range n.Nodes {
		if !walk(child, dir, keysOnly, yield) {
			return false
		}
	}
	return true
}

// Get implements store.Driver.
func (d *driver) Get(ctx context.Context, key string, opts valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	n, err := d.find(ctx, key, !opts.AllowStale)
	if err != nil {
		return nil, err
	}
	return pair(key, n, opts.KeysOnly), nil
}

// Walk implements store.Driver. etcd answers with the whole directory at once.
func (d *driver) Walk(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		f, err := d.look(ctx, wirePath(dir), !opts.AllowStale, true)
		if err != nil {
			yield(nil, err)
			return
		}
		walk(f.node, dir, opts.KeysOnly, func(p *valkeyrie.KVPair) bool { return yield(p, nil) })
	}
}

// Write implements store.Driver.
func (d *driver) Write(ctx context.Context, w store.Write) (store.Written, error) {
	c := content{value: w.Value}
	if w.KeepAlive {
		c.revision = newRevision()
	}
	at, err := d.put(ctx, w, c.encode())
	if err != nil {
		return store.Written{}, err
	}
	if w.KeepAlive {
		return store.Written{Revision: c.revision}, nil
	}
	return store.Written{Revision: at.index, FrontExpires: w.TTL > 0}, nil
}

// place is a node at a modifiedIndex.
type place struct {
	path  string
	index uint64
}

// put writes what is to be stored for a key, and returns where it is. Where the
// key's node is a directory the value goes into it.
func (d *driver) put(ctx context.Context, w store.Write, stored string) (at place, err error) {
	ttl := backstop(w.TTL)
	if w.IfRevision&ownRevision != 0 {
		return d.ifOwn(ctx, w.Key, w.IfRevision, place{}, func(at place) (uint64, error) {
			return d.set(ctx, at.path, stored, ttl, client.SetOptions{PrevIndex: at.index})
		})
	}
	path, opts := wirePath(w.Key), client.SetOptions{PrevIndex: w.IfRevision}
	if w.Create {
		opts.PrevExist = client.PrevNoExist
	}
	for {
		at.path = path
		at.index, err = d.set(ctx, path, stored, ttl, opts)
		switch code(err) {
		case client.ErrorCodeNotFile, client.ErrorCodeNodeExist:
		case client.ErrorCodeNotDir:
			if w.IfRevision != 0 {
				err = as(valkeyrie.ErrKeyNotFound, err)
			}
			return at, err
		default:
			return at, err
		}
		if w.IfRevision == 0 {
			f, lookErr := d.look(ctx, path, true, false)
			if lookErr != nil {
				return at, lookErr
			}
			value := valueOf(f.node)
			if w.Create && value != nil {
				exists := as(valkeyrie.ErrKeyExists, err)
				exists.node = value
				return at, exists
			}
			if f.gone != nil || value == f.node {
				continue // the directory is gone
			}
			if some, err := d.anyBelow(ctx, f.node, value); err != nil || some {
				return at, cmp.Or(err, errHasChildren)
			}
		}
		at.path = path + ownValue
		at.index, err = d.set(ctx, at.path, stored, ttl, opts)
		if code(err) != client.ErrorCodeNotDir {
			return at, err
		}
	}
}

// ifOwn makes a change to a key if it has a revision that is stored with its
// value, and returns where it is then. change does it on the condition that the
// node is still the same, and returns its new index; a renewal in between is no
// reason to fail. Where the node is known, it is not read first.
func (d *driver) ifOwn(ctx context.Context, key string, revision uint64, known place, change func(place) (uint64, error)) (place, error) {
	for at := known; ; at = (place{}) {
		if at.index == 0 {
			n, err := d.find(ctx, key, true)
			if err != nil {
				return place{}, err
			}
			if decode(n.Value).revision != revision {
				return place{}, valkeyrie.ErrKeyModified
			}
			at = place{n.Key, n.ModifiedIndex}
		}
		index, err := change(at)
		switch code(err) {
		case client.ErrorCodeTestFailed, client.ErrorCodeNotFile, client.ErrorCodeNotDir:
			continue
		}
		return place{at.path, index}, err
	}
}

// removeIfOwn removes a key if it has a revision that is stored with its value.
func (d *driver) removeIfOwn(ctx context.Context, key string, revision uint64, known place) error {
	_, err := d.ifOwn(ctx, key, revision, known, func(at place) (uint64, error) {
		return 0, d.remove(ctx, at.path, client.DeleteOptions{PrevIndex: at.index})
	})
	return err
}

// Delete implements store.Driver. The directories above stay.
func (d *driver) Delete(ctx context.Context, key string, revision uint64) error {
	if revision&ownRevision != 0 {
		return d.removeIfOwn(ctx, key, revision, place{})
	}
	path, opts := wirePath(key), client.DeleteOptions{PrevIndex: revision}
	for {
		err := d.remove(ctx, path, opts)
		if code(err) == client.ErrorCodeNotFile {
			if err = d.remove(ctx, path+ownValue, opts); code(err) == client.ErrorCodeNotDir {
				continue // the directory is gone
			}
		}
		if code(err) == client.ErrorCodeNotDir {
			return as(valkeyrie.ErrKeyNotFound, err)
		}
		return err
	}
}

// DeleteTree implements store.Driver, in one atomic request after a look whether
// there is anything. Without that etcd would delete a value under the directory's
// own name, which it cannot be told to leave.
func (d *driver) DeleteTree(ctx context.Context, dir string) error {
	path := wirePath(dir)
	f, err := d.look(ctx, path, true, false)
	if err != nil {
		return err
	}
	own := valueOf(f.node)
	if own == f.node {
		return valkeyrie.ErrKeyNotFound // a value, and nothing below it
	}
	if some, err := d.anyBelow(ctx, f.node, own); err != nil || !some {
		return cmp.Or(err, f.missing())
	}
	if own == nil {
		return d.remove(ctx, path, client.DeleteOptions{Dir: true, Recursive: true})
	}
	for _, child := range f.node.Nodes {
		if child == own {
			continue
		}
		err := d.remove(ctx, child.Key, client.DeleteOptions{Dir: child.Dir, Recursive: child.Dir})
		if err != nil && !errors.Is(err, valkeyrie.ErrKeyNotFound) && code(err) != client.ErrorCodeNotFile {
			return err
		}
	}
	return nil
}

// anyBelow tells whether there is a value in a directory, of which the nodes are
// known, at any depth and but for one. It reads no more directories than it must.
func (d *driver) anyBelow(ctx context.Context, dir, but *client.Node) (bool, error) {
	for _, child := range dir.Nodes {
		if _, ours := keyOf(child.Key); ours && !child.Dir && child != but {
			return true, nil
		}
	}
	for _, child := range dir.Nodes {
		if !child.Dir {
			continue
		}
		f, err := d.look(ctx, child.Key, true, false)
		if err != nil || !f.node.Dir {
			return err == nil, err
		}
		if some, err := d.anyBelow(ctx, f.node, nil); some || err != nil {
			return some, err
		}
	}
	return false, nil
}
