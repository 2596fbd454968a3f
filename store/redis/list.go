package redis

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
	"strings"

	"github.com/gomodule/redigo/redis"

	"github.com/kvtools/valkeyrie"
)

const (
	// scanCount is how many of its keys a server looks at for one SCAN; where few
	// of them match, up to scanCountMost, which takes it about 2 ms.
	scanCount, scanCountMost = 2000, 10000

	// A request reads firstKeys keys at first, and then as many as make up about
	// requestBytes, at most requestKeys.
	firstKeys, requestKeys = 250, 1000
	requestBytes           = 1 << 20

	// inFlight bounds how many such requests are under way at a time.
	inFlight = 4
)

// glob makes a pattern that matches what begins with a prefix.
func glob(prefix string) string { return globEscaper.Replace(prefix) + "*" }

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// Walk implements store.Driver: SCAN for the keys, and at the same time reads of
// those that it found. A server may return a key more than once while its table
// shrinks, so a hash of each key is kept: 10 to 20 bytes a key. That two of ten
// million keys have the same one, so that the second is missed, happens once in
// 300,000 times, and to other keys the next time.
func (d *driver) Walk(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		seen, seed := make(map[uint64]struct{}), maphash.MakeSeed()
		w := walk{d: d, ctx: ctx, dir: dir, keysOnly: opts.KeysOnly}
		w.take = func(s state) bool {
			if s.pair == nil {
				return true // deleted meanwhile, or no string
			}
			hash := maphash.String(seed, s.pair.Key)
			if _, twice := seen[hash]; twice {
				return true
			}
			seen[hash] = struct{}{}
			return yield(s.pair, nil)
		}
		if err := w.run(); err != nil && !errors.Is(err, errEnough) {
			yield(nil, err)
		}
	}
}

// errEnough: who takes what a walk finds wants no more.
var errEnough = errors.New("the walk was broken off")

// walk reads everything that begins with dir.
type walk struct {
	d        *driver
	ctx      context.Context
	dir      string
	keysOnly bool
	withTTL  bool
	take     func(state) bool // false: no more

	requests []*request // under way, in order
	perReq   int
}

// run walks over all servers.
func (w *walk) run() error {
	w.perReq = firstKeys
	return w.d.passes(w.ctx, func(all []*server) error {
		err := w.over(all)
		w.requests = nil
		return err
	})
}

// over walks over some servers, which work at the same time.
func (w *walk) over(all []*server) error {
	scans := make([]*scanner, len(all))
	for i, s := range all {
		scans[i] = &scanner{s: s, ctx: w.ctx, dir: w.dir}
		if err := scans[i].start(); err != nil {
			return err
		}
	}
	for len(scans) > 0 {
		left := scans[:0]
		for _, scan := range scans {
			keys, more, err := scan.next()
			if err != nil {
				return err
			}
			if more { // the server looks for the next ones while these are read
				if err := scan.start(); err != nil {
					return err
				}
				left = append(left, scan)
			}
			if err := w.read(scan.s, keys); err != nil {
				return err
			}
		}
		scans = left
	}
	return w.finish(0)
}

// read asks for some keys and takes what earlier requests brought, so that not
// too many are under way.
func (w *walk) read(s *server, keys []any) error {
	for len(keys) > 0 {
		if err := w.finish(inFlight - 1); err != nil {
			return err
		}
		n := min(len(keys), w.perReq)
		r, err := w.d.startRead(w.ctx, s, keys[:n], w.keysOnly, w.withTTL)
		if err != nil {
			return err
		}
		w.requests = append(w.requests, r)
		keys = keys[n:]
	}
	return nil
}

// finish takes what requests brought until so many are left.
func (w *walk) finish(left int) error {
	for len(w.requests) > left {
		r := w.requests[0]
		w.requests = w.requests[1:]
		states, err := r.states(w.ctx)
		if err != nil {
			return err
		}
		size := 0
		for _, s := range states {
			if s.pair != nil {
				size += len(s.pair.Value)
			}
			if !w.take(s) {
				return errEnough
			}
		}
		w.perReq = max(1, min(requestKeys, requestBytes*len(r.keys)/(size+1)))
	}
	return nil
}

// scanner finds the keys of one server that begin with dir.
type scanner struct {
	s   *server
	ctx context.Context
	dir string
	own bool // the library's own keys, too

	cursor  []byte
	count   int
	call    *call
	pipe    *pipe
	resends int
}

// start asks for the next keys. Over another connection it begins again, as there
// may be another process behind it, in which the cursor stands for other keys.
func (s *scanner) start() error {
	p, err := s.s.bulk.open(s.ctx)
	if err != nil {
		return readError(&noReply{err: err})
	}
	if p != s.pipe {
		s.pipe, s.cursor, s.count = p, []byte("0"), scanCount
	}
	args := []any{s.cursor}
	if s.dir != "" {
		args = append(args, "MATCH", glob(s.dir))
	}
	s.call = newCall(true, "SCAN", append(args, "COUNT", s.count)...)
	p.start(s.call)
	return nil
}

// next waits for what start asked for, without the library's own keys unless
// own; more: start must be called again.
func (s *scanner) next() (keys []any, more bool, err error) {
	err = s.pipe.await(s.ctx, s.call)
	for err != nil {
		if !s.s.bulk.resend(s.ctx, s.call, err, s.resends) {
			return nil, false, readError(err)
		}
		s.resends++
		if err := s.start(); err != nil {
			return nil, false, err
		}
		err = s.pipe.await(s.ctx, s.call)
	}
	cursor, found, err := scanReply(s.call.reply)
	if err != nil {
		return nil, false, err
	}
	s.call.free()
	s.cursor = cursor
	if len(found) < s.count/10 {
		s.count = scanCountMost
	}
	if !s.own {
		found = slices.DeleteFunc(found, func(key any) bool { return isReserved(key.([]byte)) })
	}
	return found, string(cursor) != "0", nil
}

// scanReply takes the reply to SCAN apart; each key is a []byte.
func scanReply(reply any) (cursor []byte, keys []any, err error) {
	parts, err := redis.Values(reply, nil)
	if err == nil && len(parts) == 2 {
		cursor, _ = parts[0].([]byte)
		keys, _ = parts[1].([]any)
	}
	for _, key := range keys {
		if _, ok := key.([]byte); !ok {
			cursor = nil
		}
	}
	if cursor == nil {
		return nil, nil, fmt.Errorf("the server answered SCAN with %T", reply)
	}
	return cursor, keys, nil
}
