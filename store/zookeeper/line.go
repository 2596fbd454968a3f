package zookeeper

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// lineOf is the parent of the nodes of those who want the lock.
func lineOf(path string) string { return path + "/" + store.Reserved + "/lock" }

// enter gets in line.
func (h *hold) enter(conn *zk.Conn) (err error) {
	h.entered = true
	for {
		h.own, err = conn.Create(child(lineOf(h.path), h.attempt), nil, zk.FlagEphemeralSequential, h.d.acl)
		if !errors.Is(err, zk.ErrNoNode) {
			return writeError(err)
		}
		if err := h.d.makeParents(conn, child(lineOf(h.path), h.attempt)); err != nil {
			return err
		}
	}
}

// names returns the names in line, in order. Those of earlier attempts of the
// same Locker are not counted, and removed.
func (h *hold) names(conn *zk.Conn) ([]string, error) {
	all, _, err := conn.Children(lineOf(h.path))
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return nil, readError(err)
	}
	line := all[:0]
	for _, name := range all {
		if !strings.HasPrefix(name, h.owner) || strings.HasPrefix(name, h.attempt) {
			line = append(line, name)
		} else if err := remove(conn, child(lineOf(h.path), name)); err != nil {
			return nil, writeError(err)
		}
	}
	slices.SortFunc(line, func(a, b string) int { return cmp.Compare(number(a), number(b)) })
	return line, nil
}

// number is the number that the server gave a node.
func number(name string) int64 {
	n, _ := strconv.ParseInt(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
	return n
}

// before returns the name of the node before the own one, "" when that is the
// first.
func (h *hold) before(conn *zk.Conn) (string, error) {
	line, err := h.names(conn)
	if err != nil {
		return "", err
	}
	switch i := slices.Index(line, h.own[strings.LastIndexByte(h.own, '/')+1:]); {
	case i < 0:
		return "", errPlaceLost
	case i == 0:
		return "", nil
	default:
		return line[i-1], nil
	}
}

// look reads the key. ErrLockHeld: it is not free, that is, absent or left over
// from a hold, which is over if nobody is in line before.
func (h *hold) look(conn *zk.Conn) error {
	data, stat, err := conn.Get(h.path)
	h.stat = stat
	switch {
	case errors.Is(err, zk.ErrNoNode):
		h.stat = nil
		return nil
	case err != nil:
		return readError(err)
	case data == nil:
		return nil
	}
	there, line, err := conn.Exists(lineOf(h.path))
	switch {
	case err != nil:
		return readError(err)
	case !there, line.Mzxid != stat.Mzxid:
		return valkeyrie.ErrLockHeld
	}
	return nil
}

// survey is before and, for the first in line, look. It asks for both at once,
// which makes a hand-over shorter by a round trip. Their order does not matter: who
// is first stays so, and that the key is as it was read is a condition of taking it.
func (h *hold) survey(conn *zk.Conn) (before string, err error) {
	looked := make(chan error, 1)
	go func() { looked <- h.look(conn) }()
	before, err = h.before(conn)
	if lookErr := <-looked; err == nil && before == "" {
		err = lookErr
	}
	return before, err
}

// take writes the key, which was found free; the own node is the first in line.
// ErrLockHeld: somebody has put data there.
func (h *hold) take(ctx context.Context, g *gate) error {
	for {
		if h.stat == nil {
			return errPlaceLost // it has the line below it
		}
		if h.record != nil { // of a try whose answer was lost
			if err := remove(g.conn, h.record.path); err != nil {
				return readError(err)
			}
			h.record = nil
		}
		var err error
		if h.record, err = h.d.expiry.record(ctx, note{Key: h.path, Holder: h.own}); err != nil {
			return err
		}
		sent := time.Now()
		results, err := g.conn.Multi(
			&zk.CheckVersionRequest{Path: h.own, Version: 0},
			&zk.SetDataRequest{Path: h.path, Data: h.value, Version: h.stat.Version},
			&zk.SetDataRequest{Path: lineOf(h.path), Data: []byte(h.own), Version: -1},
			h.record.create(h.d),
		)
		if err == nil {
			h.stat, h.length, h.confirmed = results[1].Stat, g.length, sent
			return nil
		}
		switch at := failedAt(results); {
		case !answered(err) || at < 0:
			return writeError(err)
		case at == 0:
			return store.Wrap(errPlaceLost, err)
		case at == 3:
			if err := h.d.expiry.restore(ctx, err); err != nil {
				return err
			}
		case at == 1 && errors.Is(err, zk.ErrBadVersion):
		default:
			return writeError(err)
		}
		if err := h.look(g.conn); err != nil {
			return err
		}
	}
}

// release deletes all that belongs to the hold.
func (h *hold) release(conn *zk.Conn) error {
	line := lineOf(h.path)
	ops := []any{
		&zk.SetDataRequest{Path: h.path, Version: h.stat.Version},
		&zk.DeleteRequest{Path: h.own, Version: -1},
		&zk.SetDataRequest{Path: line, Version: -1},
		&zk.DeleteRequest{Path: h.record.path, Version: -1},
	}
	results, err := conn.Multi(ops...)
	if failedAt(results) == 3 { // somebody has removed the record
		results, err = conn.Multi(ops[:3]...)
	}
	switch {
	case err == nil:
		h.d.sweeper.later(line, results[0].Stat.Mzxid)
		return nil
	case !answered(err):
		return writeError(err)
	}
	if err := h.clear(conn); err != nil {
		return writeError(err)
	}
	return store.Wrap(valkeyrie.ErrLockNotHeld, err)
}

// clear removes what is left of an attempt, or of a hold that is over.
func (h *hold) clear(conn *zk.Conn) error {
	if h.own != "" { // first, as others wait for that
		if err := remove(conn, h.own); err != nil {
			return err
		}
	}
	line := lineOf(h.path)
	names, stat, err := conn.Children(line)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	others := len(names)
	for _, name := range names {
		if strings.HasPrefix(name, h.attempt) {
			if err := remove(conn, child(line, name)); err != nil {
				return err
			}
			others--
		}
	}
	if err == nil && others == 0 {
		h.d.sweeper.later(line, stat.Mzxid)
	}
	if h.record == nil {
		return nil
	}
	_, err = h.d.expiry.reaper.reap(conn, h.record.path, 0)
	return err
}

// leave clears away what an attempt has left, at once if that is possible and in
// the background if not: what stays in line blocks all others.
func (h *hold) leave() {
	if !h.entered {
		return
	}
	if g, err := h.c.now(); err == nil && h.clear(g.conn) == nil {
		return
	}
	h.d.tasks.Go(func() {
		for {
			g, err := h.c.ready(h.d.ctx, true)
			if err != nil {
				return // closed, or refused for good
			}
			if err := h.clear(g.conn); err == nil || !disconnected(err) {
				return
			}
		}
	})
}

// giveBack releases a hold that nobody wants any more.
func (h *hold) giveBack() {
	g, err := h.c.now()
	if err == nil {
		err = h.release(g.conn)
	}
	h.released(err)
}

// released sees to what a release has left that failed in another way than that
// the hold was over, and returns its error.
func (h *hold) released(err error) error {
	if err != nil && !errors.Is(err, valkeyrie.ErrLockNotHeld) {
		h.leave()
	}
	return err
}
