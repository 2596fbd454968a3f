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
func (h *hold) enter(conn *zk.Conn) error {
	for {
		h.unsure = true
		own, err := conn.Create(child(lineOf(h.path), h.attempt), nil, zk.FlagEphemeralSequential, h.d.acl)
		switch {
		case err == nil:
			h.own, h.unsure = own, false
			return nil
		case answered(err):
			h.unsure = false
		}
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
		if strings.HasPrefix(name, h.owner) && !strings.HasPrefix(name, h.attempt) {
			if err := conn.Delete(child(lineOf(h.path), name), -1); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return nil, writeError(err)
			}
			continue
		}
		line = append(line, name)
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

// look reads the key, and tells whether it is free: absent, or left over from a
// hold, which is over if nobody is in line before.
func (h *hold) look(conn *zk.Conn) (bool, error) {
	h.stat = nil
	data, stat, err := conn.Get(h.path)
	if errors.Is(err, zk.ErrNoNode) {
		return true, nil
	}
	if err != nil {
		return false, readError(err)
	}
	h.stat = stat
	if data == nil {
		return true, nil
	}
	there, line, err := conn.Exists(lineOf(h.path))
	if err != nil {
		return false, readError(err)
	}
	return there && line.Mzxid == stat.Mzxid, nil
}

// take writes the key if it is free; the own node is the first in line.
// ErrLockHeld: there is somebody's data.
func (h *hold) take(ctx context.Context, conn *zk.Conn) error {
	for {
		if h.record != nil { // of a try whose answer was lost
			if err := conn.Delete(h.record.path, -1); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return readError(err)
			}
			h.record = nil
		}
		free, err := h.look(conn)
		switch {
		case err != nil:
			return err
		case !free:
			return valkeyrie.ErrLockHeld
		case h.stat == nil:
			return errPlaceLost // it has the line below it
		}
		if h.record, err = h.d.expiry.record(ctx, note{Key: h.path, Holder: h.own}); err != nil {
			return err
		}
		sent := time.Now()
		results, err := conn.Multi(
			&zk.CheckVersionRequest{Path: h.own, Version: 0},
			&zk.SetDataRequest{Path: h.path, Data: h.value, Version: h.stat.Version},
			&zk.SetDataRequest{Path: lineOf(h.path), Data: []byte(h.own), Version: -1},
			h.record.create(h.d),
		)
		if err == nil {
			h.stat, h.length, h.confirmed = results[1].Stat, h.c.gate.Load().length, sent
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
		case at == 1 && errors.Is(err, zk.ErrBadVersion): // look again
		default:
			return writeError(err)
		}
	}
}

// release deletes all that belongs to the hold.
func (h *hold) release(conn *zk.Conn) error {
	line := lineOf(h.path)
	record := true
	for {
		ops := []any{
			&zk.SetDataRequest{Path: h.path, Version: h.stat.Version},
			&zk.DeleteRequest{Path: h.own, Version: -1},
			&zk.SetDataRequest{Path: line, Version: -1},
		}
		if record {
			ops = append(ops, &zk.DeleteRequest{Path: h.record.path, Version: -1})
		}
		results, err := conn.Multi(ops...)
		if err == nil {
			h.d.sweeper.later(line, results[0].Stat.Mzxid)
			return nil
		}
		if !answered(err) {
			return writeError(err)
		}
		if failedAt(results) == 3 {
			record = false
			continue
		}
		if err := h.clear(conn); err != nil {
			return writeError(err)
		}
		return store.Wrap(valkeyrie.ErrLockNotHeld, err)
	}
}

// clear removes what is left of a hold that is over.
func (h *hold) clear(conn *zk.Conn) error {
	if err := h.exit(conn); err != nil {
		return err
	}
	if h.record == nil {
		return nil
	}
	_, err := h.d.expiry.reaper.reap(conn, h.record.path, 0)
	return err
}

// exit leaves the line.
func (h *hold) exit(conn *zk.Conn) error {
	line := lineOf(h.path)
	if h.unsure {
		names, _, err := conn.Children(line)
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return err
		}
		for _, name := range names {
			if strings.HasPrefix(name, h.attempt) {
				h.own = child(line, name)
			}
		}
		h.unsure = false
	}
	if h.own == "" {
		return nil
	}
	if err := conn.Delete(h.own, -1); err != nil && !errors.Is(err, zk.ErrNoNode) {
		return err
	}
	if there, stat, err := conn.Exists(line); err == nil && there && stat.NumChildren == 0 {
		h.d.sweeper.later(line, stat.Mzxid)
	}
	return nil
}

// leave clears away what an attempt has left, at once if that is possible and in
// the background if not: what stays in line blocks all others.
func (h *hold) leave() {
	if h.own == "" && !h.unsure {
		return
	}
	if conn, _, err := h.c.now(); err == nil && h.clear(conn) == nil {
		return
	}
	h.d.tasks.Go(func() {
		for {
			conn, _, err := h.c.ready(h.d.ctx, true)
			if err != nil {
				return // closed, or refused for good
			}
			if err := h.clear(conn); err == nil || !disconnected(err) {
				return
			}
		}
	})
}

// giveBack releases a hold that nobody wants any more.
func (h *hold) giveBack() {
	conn, _, err := h.c.now()
	if err == nil {
		err = h.release(conn)
	}
	if err != nil && !errors.Is(err, valkeyrie.ErrLockNotHeld) {
		h.leave()
	}
}
