package testutils_test

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
)

// kvstore keeps the types below short.
type kvstore = valkeyrie.Store

var kvDefects = []defect{
	{"DeleteTree takes siblings along", "Lists/DeleteTree removes all that is below and nothing else",
		func(s kvstore) kvstore { return siblings{s} }},
	{"revisions start anew when a key is created again", "Revisions/every write gives the key a revision it has never had, also after a delete",
		func(s kvstore) kvstore { return versions{s} }},
	{"a write of the same value is left out", "Revisions/every write gives the key a revision it has never had, also for an identical value",
		func(s kvstore) kvstore { return lazy{s} }},
	{"the revision is a hash of the value", "Revisions/a pair from before a delete and re-create is refused",
		func(s kvstore) kvstore { return hashed{s} }},
	{"AtomicPut compares and then puts", "Atomic/increments with AtomicPut by many writers are never lost",
		func(s kvstore) kvstore { return twoSteps{s} }},
	{"create looks first and then puts", "Atomic/of N concurrent creates exactly one succeeds, the others get ErrKeyExists",
		func(s kvstore) kvstore { return lookFirst{s} }},
	{"AtomicPut reads the pair that it returns", "Atomic/AtomicPut returns the pair of this very write",
		func(s kvstore) kvstore { return readBack{s} }},
	{"an empty value is nil", "Values/an empty value comes back as an empty slice that is not nil, is listed, and exists",
		func(s kvstore) kvstore { return nilEmpty{s} }},
	{"Get hands out its own memory", "Values/what a call returns belongs to the caller",
		func(s kvstore) kvstore { return cached{s, time.Hour} }},
	{"Get answers from a cache for a moment", "Linearizability/concurrent calls over two stores have an order that explains all answers",
		func(s kvstore) kvstore { return cached{s, 5 * time.Millisecond} }},
	{"a write that was applied says that its context ended", "Linearizability/calls that their context cuts off are ambiguous and not wrong",
		func(s kvstore) kvstore { return denying{s} }},
	{"TTLs are ignored", "TTL/a key is there for at least its TTL, and gone from every read a second later",
		func(s kvstore) kvstore {
			return ttls{s, func(*valkeyrie.WriteOptions) *valkeyrie.WriteOptions { return nil }}
		}},
	{"TTLs are cut to whole seconds", "TTL/a TTL is never truncated to zero nor so long that it overflows",
		func(s kvstore) kvstore {
			return ttls{s, func(o *valkeyrie.WriteOptions) *valkeyrie.WriteOptions {
				return &valkeyrie.WriteOptions{TTL: o.TTL.Truncate(time.Second), KeepAlive: o.KeepAlive && o.TTL >= time.Second}
			}}
		}},
	{"KeepAlive is ignored", "TTL/KeepAlive keeps a key, and renewing is not a write",
		func(s kvstore) kvstore {
			return ttls{s, func(o *valkeyrie.WriteOptions) *valkeyrie.WriteOptions { return &valkeyrie.WriteOptions{TTL: o.TTL} }}
		}},
	{"errors are bare", "Lists/errors name the backend, the method and the key",
		func(s kvstore) kvstore { return bare{s} }},
	{"Delete of a missing key is fine", "Lists/Get, Delete, DeleteTree and List of nothing are ErrKeyNotFound, Exists and Walk are not",
		func(s kvstore) kvstore { return forgiving{s} }},
	{"List is in the order of the server", "Lists/List returns all depths, sorted in byte order, without the directory's own key",
		func(s kvstore) kvstore { return reversed{s} }},
	{"Walk loses what is deleted around it", "Lists/Walk yields what List returns",
		func(s kvstore) kvstore { return skipping{s} }},
	{"Close does nothing", "Close/after Close every call is ErrClosed",
		func(s kvstore) kvstore { return unclosable{s} }},
	{"contexts are ignored", "Contexts/a call with a cancelled context is context.Canceled, and nothing is written",
		func(s kvstore) kvstore { return deaf{s} }},
}

type siblings struct{ kvstore }

func (s siblings) DeleteTree(ctx context.Context, dir string) error {
	for p := range s.Walk(ctx, "", nil) {
		if strings.HasPrefix(p.Key, strings.Trim(dir, "/")) {
			_ = s.Delete(ctx, p.Key)
		}
	}
	return nil
}

// versions counts the writes since a key was created, as ZooKeeper and etcd do
// in a field that looks like a revision.
type versions struct{ kvstore }

var counted = struct {
	sync.Mutex
	writes map[string]uint64
}{writes: make(map[string]uint64)}

func (s versions) Put(ctx context.Context, key string, value []byte, opts *valkeyrie.WriteOptions) error {
	counted.Lock()
	defer counted.Unlock()
	counted.writes[key]++
	return s.kvstore.Put(ctx, key, value, opts)
}

func (s versions) Delete(ctx context.Context, key string) error {
	counted.Lock()
	defer counted.Unlock()
	delete(counted.writes, key)
	return s.kvstore.Delete(ctx, key)
}

func (s versions) Get(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	counted.Lock()
	defer counted.Unlock()
	p, err := s.kvstore.Get(ctx, key, opts)
	if err == nil {
		p.LastIndex = max(1, counted.writes[key])
	}
	return p, err
}

type lazy struct{ kvstore }

func (s lazy) Put(ctx context.Context, key string, value []byte, opts *valkeyrie.WriteOptions) error {
	if p, err := s.Get(ctx, key, nil); err == nil && string(p.Value) == string(value) {
		return nil
	}
	return s.kvstore.Put(ctx, key, value, opts)
}

type hashed struct{ kvstore }

func hashOf(p *valkeyrie.KVPair) uint64 {
	h := fnv.New64()
	_, _ = h.Write(p.Value)
	return h.Sum64()
}

func (s hashed) Get(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	p, err := s.kvstore.Get(ctx, key, opts)
	if err == nil {
		p.LastIndex = hashOf(p)
	}
	return p, err
}

func (s hashed) AtomicPut(ctx context.Context, key string, value []byte, previous *valkeyrie.KVPair, opts *valkeyrie.WriteOptions) (bool, *valkeyrie.KVPair, error) {
	if now, err := s.kvstore.Get(ctx, key, nil); err == nil && previous != nil && hashOf(now) == previous.LastIndex {
		previous = now
	}
	ok, p, err := s.kvstore.AtomicPut(ctx, key, value, previous, opts)
	if err == nil {
		p.LastIndex = hashOf(p)
	}
	return ok, p, err
}

type twoSteps struct{ kvstore }

func (s twoSteps) AtomicPut(ctx context.Context, key string, value []byte, previous *valkeyrie.KVPair, opts *valkeyrie.WriteOptions) (bool, *valkeyrie.KVPair, error) {
	now, err := s.Get(ctx, key, nil)
	if previous == nil || err != nil || now.LastIndex != previous.LastIndex {
		return s.kvstore.AtomicPut(ctx, key, value, previous, opts)
	}
	time.Sleep(time.Millisecond) // a round trip
	if err := s.Put(ctx, key, value, opts); err != nil {
		return false, nil, err
	}
	p, err := s.Get(ctx, key, nil)
	return err == nil, p, err
}

type lookFirst struct{ kvstore }

func (s lookFirst) AtomicPut(ctx context.Context, key string, value []byte, previous *valkeyrie.KVPair, opts *valkeyrie.WriteOptions) (bool, *valkeyrie.KVPair, error) {
	if there, err := s.Exists(ctx, key, nil); previous != nil || there || err != nil {
		return s.kvstore.AtomicPut(ctx, key, value, previous, opts)
	}
	time.Sleep(time.Millisecond) // a round trip
	if err := s.Put(ctx, key, value, opts); err != nil {
		return false, nil, err
	}
	p, err := s.Get(ctx, key, nil)
	return err == nil, p, err
}

type readBack struct{ kvstore }

func (s readBack) AtomicPut(ctx context.Context, key string, value []byte, previous *valkeyrie.KVPair, opts *valkeyrie.WriteOptions) (bool, *valkeyrie.KVPair, error) {
	ok, p, err := s.kvstore.AtomicPut(ctx, key, value, previous, opts)
	if err != nil {
		return ok, p, err
	}
	time.Sleep(time.Millisecond) // a round trip
	if now, err := s.Get(ctx, key, nil); err == nil {
		p = now
	}
	return ok, p, nil
}

type nilEmpty struct{ kvstore }

func (s nilEmpty) Get(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	p, err := s.kvstore.Get(ctx, key, opts)
	if err == nil && len(p.Value) == 0 {
		p.Value = nil
	}
	return p, err
}

// cached keeps what Get returned.
type cached struct {
	kvstore
	lifetime time.Duration
}

var cache sync.Map // cacheKey to cacheEntry

type cacheKey struct {
	s   kvstore
	key string
}

type cacheEntry struct {
	p       *valkeyrie.KVPair
	expires time.Time
}

func (s cached) Get(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	if e, ok := cache.Load(cacheKey{s.kvstore, key}); ok && time.Now().Before(e.(cacheEntry).expires) {
		return e.(cacheEntry).p, nil
	}
	p, err := s.kvstore.Get(ctx, key, opts)
	if err == nil {
		cache.Store(cacheKey{s.kvstore, key}, cacheEntry{p, time.Now().Add(s.lifetime)})
	}
	return p, err
}

// denying applies a put and then looks whether the context has ended.
type denying struct{ kvstore }

func (s denying) Put(ctx context.Context, key string, value []byte, opts *valkeyrie.WriteOptions) error {
	if err := s.kvstore.Put(context.WithoutCancel(ctx), key, value, opts); err != nil {
		return err
	}
	time.Sleep(time.Millisecond) // a round trip
	if err := ctx.Err(); err != nil {
		return &valkeyrie.OpError{Op: "Put", Backend: "memory", Key: key, Err: err}
	}
	return nil
}

type ttls struct {
	kvstore
	change func(*valkeyrie.WriteOptions) *valkeyrie.WriteOptions
}

func (s ttls) options(o *valkeyrie.WriteOptions) *valkeyrie.WriteOptions {
	if o == nil || o.TTL == 0 {
		return o
	}
	return s.change(o)
}

func (s ttls) Put(ctx context.Context, key string, value []byte, opts *valkeyrie.WriteOptions) error {
	return s.kvstore.Put(ctx, key, value, s.options(opts))
}

func (s ttls) AtomicPut(ctx context.Context, key string, value []byte, previous *valkeyrie.KVPair, opts *valkeyrie.WriteOptions) (bool, *valkeyrie.KVPair, error) {
	return s.kvstore.AtomicPut(ctx, key, value, previous, s.options(opts))
}

type bare struct{ kvstore }

func (s bare) Get(ctx context.Context, key string, opts *valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	p, err := s.kvstore.Get(ctx, key, opts)
	return p, unwrapped(err)
}

func (s bare) List(ctx context.Context, dir string, opts *valkeyrie.ReadOptions) ([]*valkeyrie.KVPair, error) {
	pairs, err := s.kvstore.List(ctx, dir, opts)
	return pairs, unwrapped(err)
}

func unwrapped(err error) error {
	if oe := (*valkeyrie.OpError)(nil); errors.As(err, &oe) {
		return oe.Err
	}
	return err
}

type forgiving struct{ kvstore }

func (s forgiving) Delete(ctx context.Context, key string) error {
	if err := s.kvstore.Delete(ctx, key); !errors.Is(err, valkeyrie.ErrKeyNotFound) {
		return err
	}
	return nil
}

// reversed sorts by the length of the keys first.
type reversed struct{ kvstore }

func (s reversed) List(ctx context.Context, dir string, opts *valkeyrie.ReadOptions) ([]*valkeyrie.KVPair, error) {
	pairs, err := s.kvstore.List(ctx, dir, opts)
	slices.SortFunc(pairs, func(a, b *valkeyrie.KVPair) int {
		return cmp.Or(cmp.Compare(len(a.Key), len(b.Key)), strings.Compare(a.Key, b.Key))
	})
	return pairs, err
}

// skipping loses the last pair of a Walk.
type skipping struct{ kvstore }

func (s skipping) Walk(ctx context.Context, dir string, opts *valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error] {
	return func(yield func(*valkeyrie.KVPair, error) bool) {
		var last *valkeyrie.KVPair
		for p, err := range s.kvstore.Walk(ctx, dir, opts) {
			if last != nil && !yield(last, nil) {
				return
			}
			if last = p; err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

type unclosable struct{ kvstore }

func (s unclosable) Close() error { return nil }

type deaf struct{ kvstore }

func (s deaf) Put(ctx context.Context, key string, value []byte, opts *valkeyrie.WriteOptions) error {
	return s.kvstore.Put(context.WithoutCancel(ctx), key, value, opts)
}
