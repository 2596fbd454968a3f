package valkeyrie

import (
	"context"
	"iter"
	"time"
)

// Store is a key/value store. Its calls are safe for concurrent use. What they
// promise on every backend is in the package documentation; each method's
// comment says what is particular to it and names the errors it returns, beyond
// those that any call may return: ErrInvalidKey, ErrInvalidOption,
// ErrNotReachable, ErrUnauthorized, ErrCorrupt, ErrClosed and the context's.
//
// A nil options pointer means the zero value of the options.
type Store interface {
	// Put writes the value, whether or not the key exists. A nil value is an
	// empty one. Errors: ErrValueTooLarge, ErrAmbiguous.
	Put(ctx context.Context, key string, value []byte, opts *WriteOptions) error

	// Get reads the key. Errors: ErrKeyNotFound.
	Get(ctx context.Context, key string, opts *ReadOptions) (*KVPair, error)

	// Delete removes the key, not what is below it.
	// Errors: ErrKeyNotFound, ErrAmbiguous.
	Delete(ctx context.Context, key string) error

	// Exists tells whether the key is there. A missing key is no error.
	Exists(ctx context.Context, key string, opts *ReadOptions) (bool, error)

	// List returns all pairs below the directory, at every depth, sorted by
	// key in byte order, without the directory's own key. "" is the root.
	// Errors: ErrKeyNotFound when there is nothing below the directory and it
	// is not a key itself; a key with nothing below it gives an empty list.
	List(ctx context.Context, directory string, opts *ReadOptions) ([]*KVPair, error)

	// Walk yields the pairs that List returns as they arrive, in no promised
	// order and in bounded memory. An error ends it. A directory with nothing
	// below it yields nothing.
	Walk(ctx context.Context, directory string, opts *ReadOptions) iter.Seq2[*KVPair, error]

	// DeleteTree removes all keys below the directory, whatever their number,
	// and not the directory's own key. The root is refused with ErrInvalidKey.
	// Where the server cannot do it at once, an error in the middle may leave
	// some of them. Errors: ErrKeyNotFound when there was nothing, ErrAmbiguous.
	DeleteTree(ctx context.Context, directory string) error

	// AtomicPut writes the value if the key is as it was in previous, and
	// returns the pair of this very write. A nil previous means that the key
	// must not exist: of any number of concurrent callers one succeeds. Of
	// previous only LastIndex counts. The bool is true exactly when err is nil.
	// Errors: ErrKeyExists (nil previous), ErrKeyModified and ErrKeyNotFound
	// (somebody else was faster: read again), ErrValueTooLarge, ErrAmbiguous.
	AtomicPut(ctx context.Context, key string, value []byte, previous *KVPair, opts *WriteOptions) (bool, *KVPair, error)

	// AtomicDelete removes the key if it is as it was in previous. Of previous
	// only LastIndex counts. The bool is true exactly when err is nil.
	// Errors: ErrPreviousNotSpecified (nil previous), ErrKeyModified,
	// ErrKeyNotFound, ErrAmbiguous.
	AtomicDelete(ctx context.Context, key string, previous *KVPair) (bool, error)

	// Watch sends the state of the key now, then its state after changes. A
	// key that does not exist, is deleted or has expired is a pair whose Value
	// is nil; its LastIndex is the last revision seen, 0 if there was none.
	// The channel is closed when the watch ends: ctx is done, the store is
	// closed, or the server refuses for good, which Config.Logger is told (and
	// Events yields as an error). An error is returned only when the first state
	// cannot be read, within Config.ConnectionTimeout.
	Watch(ctx context.Context, key string, opts *ReadOptions) (<-chan *KVPair, error)

	// WatchTree sends all pairs below the directory, as List would, now and
	// after changes; an empty directory, existing or not, is an empty slice
	// that is not nil. It ends as Watch does.
	WatchTree(ctx context.Context, directory string, opts *ReadOptions) (<-chan []*KVPair, error)

	// Events yields a Put for each key that exists, then Synced, then a Put or
	// Delete for each change. It runs until ctx is done or the loop breaks off,
	// which is no error; any other end yields an error last. Each range over it
	// is a watch of its own.
	Events(ctx context.Context, key string, opts *WatchOptions) iter.Seq2[Event, error]

	// NewLock returns a Locker for the key. It only checks its arguments; the
	// context is not kept.
	NewLock(ctx context.Context, key string, opts *LockOptions) (Locker, error)

	// Close ends all watches, holds and waits of this store and frees its
	// resources. Locks that are held are released if the server answers within
	// a second. Keys with a TTL stay until that is over, those with KeepAlive
	// too: who wants them gone at once deletes them before. The first call
	// returns the client's error, if any; further calls do nothing and return nil.
	Close() error
}

// Locker is a lock on one key, for mutual exclusion between processes. Its
// calls are safe for concurrent use; each Locker holds the lock at most once,
// and may lock again after Unlock or after a loss.
//
// While the lock is held, Get of the key returns LockOptions.Value; after
// Unlock or expiry the key is absent. The key is an ordinary one: data that a
// Put left there counts as held by somebody else, and a Put or Delete while the
// lock is held ends the hold. Two clients with the same Value exclude each
// other.
//
// The hold is renewed in the background. The channel that Lock returns is closed
// when the hold ends: by Unlock, by Close, when the library sees that the key
// was taken or deleted or the session ended, and at the latest when the hold can
// no longer be proven, before the server would give the lock to another. That
// deadline is a local one, counted from the time the last confirmed renewal was
// sent, on the wall clock or the monotonic clock, whichever passed more, so that
// neither a silent network nor a suspended machine delays it.
//
// A process can still be stopped between its look at that channel and what it
// does next. Pass Token to what the lock guards, and let that refuse a token
// smaller than one it has seen.
type Locker interface {
	// Lock waits until it holds the lock or ctx is done; ctx governs the
	// waiting only, not the hold. A cancelled Lock leaves nothing behind. Once
	// it waits it survives outages of the server. A Lock while this Locker
	// holds the lock waits until that hold has ended.
	Lock(ctx context.Context) (lost <-chan struct{}, err error)

	// TryLock is Lock without waiting: ErrLockHeld when somebody, this Locker
	// included, holds the lock.
	TryLock(ctx context.Context) (lost <-chan struct{}, err error)

	// Unlock ends the hold and makes the lock free for others. It returns
	// ErrLockNotHeld when this Locker does not hold the lock (any more), and
	// then releases nobody else. After any other error the hold has ended here,
	// and the server ends it after the TTL at the latest. Give it a context that
	// is not done yet: when ctx ends, Unlock returns ErrAmbiguous, and the
	// release goes on in the background.
	Unlock(ctx context.Context) error

	// Token returns the fencing token of the hold, 0 when the lock is not held
	// (any more). It grows with every acquisition of the key, by anyone, across
	// release, expiry and crash. Read it once, right after Lock.
	Token() uint64
}

// KVPair is a key with its value and revision.
type KVPair struct {
	Key       string
	Value     []byte
	LastIndex uint64 // the revision of the key; compare for equality only
}

// WriteOptions are the options of Put and AtomicPut.
type WriteOptions struct {
	// TTL is the time after which the key expires. 0: never. Negative values
	// are refused with ErrInvalidOption.
	TTL time.Duration

	// KeepAlive renews the TTL in the background until the key is deleted or
	// overwritten or the store is closed, so that the key lives as long as this
	// process: after Close or a crash it is there for the rest of its TTL. It
	// needs a TTL. A key that expired all the same, because the
	// server was away or the machine suspended for longer than the TTL, is not
	// written again: who needs to know watches it.
	KeepAlive bool
}

// ReadOptions are the options of the calls that read. The zero value is the safe one.
type ReadOptions struct {
	// AllowStale permits a cheaper read that may miss the latest writes. On
	// backends where it saves nothing it changes nothing.
	AllowStale bool

	// KeysOnly leaves the values out: Value is nil, in Watch an empty slice
	// that is not nil for a key that exists.
	KeysOnly bool
}

// WatchOptions are the options of Events.
type WatchOptions struct {
	// Tree watches all keys below the directory instead of the key alone.
	Tree bool

	// KeysOnly leaves the values out: Value is nil in every event.
	KeysOnly bool
}

// LockOptions are the options of NewLock.
type LockOptions struct {
	// Value is what Get of the key returns while the lock is held. Default: empty.
	Value []byte

	// TTL is how long the hold outlives its holder. It is renewed at a third of
	// it. Default 20 s. Negative values are refused with ErrInvalidOption;
	// docs/compatibility.md lists the servers that raise small ones.
	TTL time.Duration
}

// DefaultLockTTL is the value of LockOptions.TTL when none is given.
const DefaultLockTTL = 20 * time.Second

// EventType says what an Event tells.
type EventType int

// The types of events.
const (
	Put    EventType = iota + 1 // the key exists with this value and revision
	Delete                      // the key was deleted or has expired
	Synced                      // all that existed at the start has been sent
)

// String returns the constant's name.
func (t EventType) String() string {
	switch t {
	case Put:
		return "Put"
	case Delete:
		return "Delete"
	case Synced:
		return "Synced"
	}
	return "EventType(?)"
}

// Event is one step of Store.Events.
type Event struct {
	Type EventType

	// Pair is the state of the key: after a Put, its value and revision; for a
	// Delete, no value and the last revision seen; nil for Synced.
	Pair *KVPair
}
