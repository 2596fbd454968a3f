package testutils

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/kvtools/valkeyrie"
)

// slots is how many keys a clerk has in use.
const slots = 4

// clerk makes all calls on keys that nobody else writes to, one call at a time, and
// so knows what each of them has to answer. A key whose state is not known any
// more, as a write to it was ambiguous, is given up for a fresh one.
type clerk struct {
	s     *soak
	kv    kvstore
	dir   string
	next  int // numbers keys and values
	keys  [slots]desk
	short string     // a key with a TTL
	put   time.Time  // when its Put had begun
	alive string     // a key that is kept alive
	calls []clerkJob // what it can do
}

// clerkJob is one thing that a clerk does.
type clerkJob func(ctx context.Context) error

// desk is a key and what must be there.
type desk struct {
	key   string
	value string // "" when the key is absent
	pair  *pair  // as it was read last or returned by AtomicPut; may be old
	fresh bool   // pair is the present one
}

// startMixed has two clerks at each store.
func (s *soak) startMixed() {
	for i, kv := range s.everyStore() {
		for j := range 2 {
			c := &clerk{s: s, kv: kv, dir: s.key(fmt.Sprintf("load/%d-%d", i, j))}
			for d := range c.keys {
				c.renew(&c.keys[d])
			}
			k := c.desk
			c.calls = []clerkJob{
				k(c.write), k(c.write), k(c.get), k(c.get), k(c.get), k(c.exists), k(c.delete), k(c.create), k(c.create),
				k(c.update), k(c.update), k(c.update), k(c.atomicDelete),
				c.list, c.walk, c.tree, c.mortal, c.mortal, c.keepAlive,
			}
			s.work(fmt.Sprintf("load %d of store %d", j, i), func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				return c.calls[rand.IntN(len(c.calls))](ctx)
			})
		}
	}
}

// desk is a job on any of the keys.
func (c *clerk) desk(do func(ctx context.Context, d *desk) error) clerkJob {
	return func(ctx context.Context) error { return do(ctx, &c.keys[rand.IntN(slots)]) }
}

// number is a new one.
func (c *clerk) number() int {
	c.next++
	return c.next
}

// renew gives a desk a fresh key.
func (c *clerk) renew(d *desk) { *d = desk{key: fmt.Sprintf("%s/keys/%d", c.dir, c.number())} }

// value is a new one, large now and then.
func (c *clerk) value() string {
	v := fmt.Sprintf("v%d", c.number())
	if rand.IntN(20) == 0 {
		v += strings.Repeat(" large", 8<<10)
	}
	return v
}

// answered judges the error of a call: whether it is an answer, and if so the one
// that was to be given; want is nil for success.
func (c *clerk) answered(kind string, err, want error) (bool, error) {
	c.s.totals.call(kind, err)
	if !(operation{err: err}).answered() {
		return false, tolerable(err)
	}
	if !errors.Is(err, want) {
		return true, fmt.Errorf("want %w, got %w", orNil(want), orNil(err))
	}
	return true, nil
}

// wrote judges a write and keeps what is there after it.
func (c *clerk) wrote(kind string, d *desk, after string, p *pair, err, want error) error {
	ok, broken := c.answered(kind, err, want)
	switch {
	case broken != nil:
		return fmt.Errorf("%s of %s, in which there was %.20q: %w", kind, d.key, d.value, broken)
	case errors.Is(err, valkeyrie.ErrAmbiguous):
		c.renew(d)
	case ok && want == nil:
		d.value, d.fresh = after, p != nil
		if p != nil {
			if string(p.Value) != after {
				return fmt.Errorf("%s of %s returned another pair: %s", kind, d.key, show(p))
			}
			d.pair = p
		}
	}
	return nil
}

// present is the error of a call that wants the key to be there.
func (d *desk) present() error {
	if d.value == "" {
		return valkeyrie.ErrKeyNotFound
	}
	return nil
}

func (c *clerk) write(ctx context.Context, d *desk) error {
	v := c.value()
	return c.wrote("Put", d, v, nil, c.kv.Put(ctx, d.key, []byte(v), nil), nil)
}

func (c *clerk) get(ctx context.Context, d *desk) error {
	p, err := c.kv.Get(ctx, d.key, nil)
	ok, broken := c.answered("Get", err, d.present())
	switch {
	case broken != nil:
		return fmt.Errorf("Get of %s, in which there was %.20q: %w", d.key, d.value, broken)
	case !ok || d.value == "":
		return nil
	case string(p.Value) != d.value:
		return fmt.Errorf("Get of %s: want %.20q, got %s", d.key, d.value, show(p))
	case d.fresh && p.LastIndex != d.pair.LastIndex:
		return fmt.Errorf("Get of %s: want revision %d, got %s", d.key, d.pair.LastIndex, show(p))
	}
	d.pair, d.fresh = p, true
	return nil
}

func (c *clerk) exists(ctx context.Context, d *desk) error {
	there, err := c.kv.Exists(ctx, d.key, nil)
	ok, broken := c.answered("Exists", err, nil)
	if broken == nil && ok && there != (d.value != "") {
		return fmt.Errorf("wrong answer of Exists of %s: %v, in which there was %.20q", d.key, there, d.value)
	}
	return broken
}

func (c *clerk) delete(ctx context.Context, d *desk) error {
	return c.wrote("Delete", d, "", nil, c.kv.Delete(ctx, d.key), d.present())
}

func (c *clerk) create(ctx context.Context, d *desk) error {
	v, want := c.value(), error(nil)
	if d.value != "" {
		want = valkeyrie.ErrKeyExists
	}
	_, p, err := c.kv.AtomicPut(ctx, d.key, []byte(v), nil, nil)
	return c.wrote("AtomicPut, create", d, v, p, err, want)
}

// refused is the error of a conditional write with the pair that the desk has.
func (d *desk) refused() error {
	if d.value != "" && !d.fresh {
		return valkeyrie.ErrKeyModified
	}
	return d.present()
}

func (c *clerk) update(ctx context.Context, d *desk) error {
	if d.pair == nil {
		return c.get(ctx, d)
	}
	v := c.value()
	_, p, err := c.kv.AtomicPut(ctx, d.key, []byte(v), d.pair, nil)
	return c.wrote("AtomicPut, update", d, v, p, err, d.refused())
}

func (c *clerk) atomicDelete(ctx context.Context, d *desk) error {
	if d.pair == nil {
		return c.get(ctx, d)
	}
	_, err := c.kv.AtomicDelete(ctx, d.key, d.pair)
	return c.wrote("AtomicDelete", d, "", nil, err, d.refused())
}

// listed judges what a read of the directory of the keys has shown. Keys that were
// given up may be there or not.
func (c *clerk) listed(kind string, pairs []*pair, err error) error {
	if errors.Is(err, valkeyrie.ErrKeyNotFound) {
		err = nil // an empty directory
	}
	ok, broken := c.answered(kind, err, nil)
	if !ok || broken != nil {
		return broken
	}
	there := make(map[string]string)
	for _, p := range pairs {
		there[p.Key] = string(p.Value)
	}
	for _, d := range c.keys {
		if there[d.key] != d.value {
			return fmt.Errorf("%s: in %s there was %.20q, it shows %.20q", kind, d.key, d.value, there[d.key])
		}
	}
	return nil
}

func (c *clerk) list(ctx context.Context) error {
	pairs, err := c.kv.List(ctx, c.dir+"/keys", nil)
	return c.listed("List", pairs, err)
}

func (c *clerk) walk(ctx context.Context) error {
	pairs, err := collect(c.kv.Walk(ctx, c.dir+"/keys", nil))
	return c.listed("Walk", pairs, err)
}

// tree fills a directory and deletes it. What a failed attempt leaves stays until
// the end.
func (c *clerk) tree(ctx context.Context) error {
	dir := fmt.Sprintf("%s/trees/%d", c.dir, c.number())
	for i := range 1 + rand.IntN(10) {
		ok, broken := c.answered("Put", c.kv.Put(ctx, fmt.Sprintf("%s/%d/k", dir, i), []byte("v"), nil), nil)
		if !ok || broken != nil {
			return broken
		}
	}
	ok, broken := c.answered("DeleteTree", c.kv.DeleteTree(ctx, dir), nil)
	if !ok || broken != nil {
		return broken
	}
	_, err := c.kv.List(ctx, dir, nil)
	_, broken = c.answered("List", err, valkeyrie.ErrKeyNotFound)
	return broken
}

// mortal puts a key with a TTL, or looks whether the last one is there for that long.
// That it is gone later shows at the end: a server that was away may count anew.
func (c *clerk) mortal(ctx context.Context) error {
	const ttl = 2 * time.Second
	if c.short == "" {
		c.short, c.put = fmt.Sprintf("%s/short/%d", c.dir, c.number()), time.Now()
		err := c.kv.Put(ctx, c.short, []byte("v"), &valkeyrie.WriteOptions{TTL: ttl})
		ok, broken := c.answered("Put with TTL", err, nil)
		if !ok {
			c.short = ""
		}
		return broken
	}
	_, err := c.kv.Get(ctx, c.short, nil)
	lived := time.Since(c.put)
	c.s.totals.call("Get", err)
	switch {
	case errors.Is(err, valkeyrie.ErrKeyNotFound) && lived < ttl:
		return fmt.Errorf("%s is gone %v after its Put had begun, with a TTL of %v", c.short, lived, ttl)
	case lived >= ttl:
		c.short = ""
	}
	if !(operation{err: err}).answered() {
		return tolerable(err)
	}
	return nil
}

// keepAlive puts a key that is kept alive, and deletes it the next time.
func (c *clerk) keepAlive(ctx context.Context) error {
	if c.alive == "" {
		c.alive = fmt.Sprintf("%s/alive/%d", c.dir, c.number())
		err := c.kv.Put(ctx, c.alive, []byte("v"), &valkeyrie.WriteOptions{TTL: lifetime, KeepAlive: true})
		_, broken := c.answered("Put with KeepAlive", err, nil)
		return broken
	}
	err := c.kv.Delete(ctx, c.alive)
	if errors.Is(err, valkeyrie.ErrKeyNotFound) { // the server was away, or it was never put
		err = nil
	}
	ok, broken := c.answered("Delete", err, nil)
	if ok {
		c.alive = ""
	}
	return broken
}
