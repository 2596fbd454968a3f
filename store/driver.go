package store

import (
	"context"
	"iter"
	"time"

	"github.com/kvtools/valkeyrie"
)

// Driver is what a backend fills in; New makes a valkeyrie.Store of it. It says
// only what is particular to the server. The front has checked every argument:
// keys are valid, in their normal form and carry Config.Prefix; options have no
// negative values; the store is not closed; the context was not done yet.
//
// All methods are called concurrently. Pairs that a driver returns carry the
// key as it was given to the driver, hold slices that nobody else keeps, have a
// revision that is not 0, and a Value that is nil only with KeysOnly. A driver
// keeps no slice that it was passed beyond the call.
//
// Errors unwrap to the sentinel of package valkeyrie that fits and to the
// client's error (each backend has one function in errors.go for that); the
// front adds the operation, the backend's name and the key. A driver repeats a
// call by itself only when it knows that the call was not applied.
//
// Small optional abilities are interfaces of their own: Acquirer, Confirmed.
type Driver interface {
	// Info describes the driver. It is called once.
	Info() Info

	// Get reads a key: linearizable unless opts.AllowStale. ErrKeyNotFound.
	Get(ctx context.Context, key string, opts valkeyrie.ReadOptions) (*valkeyrie.KVPair, error)

	// Walk yields every pair whose key begins with dir, each once. dir is empty
	// (everything) or ends in "/". It holds a bounded number of pairs at a
	// time. What existed from start to end of the walk is in it; what is
	// written meanwhile may be. After an error it ends.
	Walk(ctx context.Context, dir string, opts valkeyrie.ReadOptions) iter.Seq2[*valkeyrie.KVPair, error]

	// Write writes a key in one atomic step; see Write for the conditions and
	// Written for what it answers. An expired key counts as absent. A write
	// replaces the TTL along with the value. Errors: ErrKeyExists,
	// ErrKeyModified, ErrKeyNotFound (by the condition), ErrValueTooLarge,
	// ErrAmbiguous when it may or may not have been applied.
	Write(ctx context.Context, w Write) (Written, error)

	// Delete removes a key, if ifRevision is not 0 only at that revision, in
	// one atomic step. Errors: ErrKeyNotFound, ErrKeyModified, ErrAmbiguous.
	Delete(ctx context.Context, key string, ifRevision uint64) error

	// DeleteTree removes every key that begins with dir, which ends in "/",
	// and what the driver itself keeps below it. Errors: ErrKeyNotFound when
	// there was no key of a user, ErrAmbiguous.
	DeleteTree(ctx context.Context, dir string) error

	// Renew starts the TTL of a key anew if it is still at that revision. The
	// key was written with KeepAlive by this driver. It should not change the
	// revision; where it must, the answer has the new one. Errors:
	// ErrKeyNotFound, ErrKeyModified.
	Renew(ctx context.Context, key string, revision uint64, ttl time.Duration) (Written, error)

	// Watch reports states and changes to the sink until ctx is done or the
	// watch breaks; it never returns nil before that. It begins with a
	// snapshot, read linearizably, and misses nothing between the snapshot and
	// the first change. The front calls it again, with backoff, after any error
	// but those that no retry can mend (ErrUnauthorized, ErrInvalidKey,
	// ErrCallNotSupported, ErrClosed), and compares: a driver
	// that lost its place (compaction, a session that ended, an index that went
	// back, a notification that may be missing) either returns an error or
	// begins another snapshot. A dead connection must be noticed within seconds.
	Watch(ctx context.Context, r WatchRequest, sink Sink) error

	// TryLock takes the lock if it is free: the key is absent or expired, and
	// nobody is in line. In one atomic step it writes r.Value to the key, to
	// expire after r.TTL unless renewed. A key that holds r.Owner's own hold,
	// left over from an acquisition whose answer was lost, counts as free.
	// ErrLockHeld otherwise. After any other error nothing may stay
	// behind for longer than the TTL.
	TryLock(ctx context.Context, r LockRequest) (Hold, error)

	// Close frees what the driver has and makes calls in flight return. The
	// front calls it once, after all holds and watches ended.
	Close() error
}

// Info describes a driver.
type Info struct {
	// Name is the backend's name, for errors and logs.
	Name string

	// Contexts says how far the calls honour their context. The zero value is
	// the safe one.
	Contexts Contexts

	// LeadingSlash: the server tells "/a" from "a". When false the front drops
	// a leading slash of Config.Prefix.
	LeadingSlash bool

	// MaxValue is the largest value in bytes that the server takes; the front
	// refuses larger ones. 0: the driver finds out by itself.
	MaxValue int
}

// Contexts says how far a driver's calls honour their context; the front adds
// what is missing.
type Contexts int

const (
	// ContextsIgnored: calls may return late or never. The front runs each in a
	// goroutine of its own, which is left behind when the context ends. Watch
	// and Acquire end with their context all the same.
	ContextsIgnored Contexts = iota

	// ContextsHonoured: calls return when their context ends. The front ends
	// the context when the store is closed.
	ContextsHonoured

	// ContextsAndClose: calls return when their context ends or Close is called,
	// say themselves when a write is ambiguous, and never wait on anything else
	// but a server's answer. The front adds nothing, which makes this the
	// fastest.
	ContextsAndClose
)

// Write is a write of one key. At most one of Create and IfRevision is set.
type Write struct {
	Key   string
	Value []byte

	// TTL after which the key expires, counted from when the server applies
	// the write; 0: never.
	TTL time.Duration

	// KeepAlive announces that Renew will be called: the TTL must not be shared
	// with other keys.
	KeepAlive bool

	// Create: only if the key is absent; ErrKeyExists otherwise.
	Create bool

	// IfRevision, when not 0: only if the key is at that revision;
	// ErrKeyModified at another one, ErrKeyNotFound when it is absent.
	IfRevision uint64
}

// Written is the answer to a Write or Renew.
type Written struct {
	// Revision of the key after this very write.
	Revision uint64

	// FrontExpires asks the front to delete the key when its TTL is over, at
	// that revision: the server cannot do it, or not in time. The driver has set
	// up whatever backstop the server offers for the case that this process dies.
	FrontExpires bool
}

// WatchRequest says what to watch.
type WatchRequest struct {
	// Key is the key to watch; with Tree, what keys begin with: empty
	// (everything) or ending in "/".
	Key  string
	Tree bool

	// KeysOnly: the pairs need no values.
	KeysOnly bool
}

// Sink takes what a Driver.Watch finds. No method blocks, so that a driver can
// always drain its server. They are called from one goroutine at a time.
//
// A driver that reads again now and then to be sure simply begins another
// snapshot; states that are the same cost nothing further.
type Sink interface {
	// Begin starts a snapshot: the Puts from here to Synced are all there is.
	Begin()

	// Put reports the state of a key: in a snapshot, or as a change. The states
	// of one key are reported in their order; one whose revision is the last
	// one reported is ignored. The sink keeps the pair.
	Put(pair *valkeyrie.KVPair)

	// Delete reports that a key is gone, after a Synced.
	Delete(key string)

	// Synced ends a snapshot: what was known and not put in it is gone.
	Synced()
}

// LockRequest says what a lock writes.
type LockRequest struct {
	Key   string
	Value []byte
	TTL   time.Duration // never 0

	// Owner identifies the Locker; it is random and never used by another one, nor
	// by the same one after it gave up an attempt that may still be under way.
	Owner string
}

// Hold is a lock that was acquired. Its methods are called by one goroutine at a time.
type Hold interface {
	// Token is the fencing token: greater than that of every earlier
	// acquisition of this key by anyone, across release, expiry and crash.
	Token() uint64

	// Revision is that of the lock's key while the hold lasts. It changes at
	// most during Renew. The front watches the key and calls Renew at once
	// when it sees it at another revision or absent.
	Revision() uint64

	// TTL is how long the server keeps the hold after the last Renew was sent,
	// when that differs from what was asked; otherwise 0. The front counts the
	// hold as lost before the shorter of the two is over.
	TTL() time.Duration

	// Renew confirms that the hold lasts and starts its TTL anew, in one atomic
	// step. ErrLockNotHeld when the key was taken, changed or deleted or the
	// session has ended; any other error says nothing about the hold.
	Renew(ctx context.Context) error

	// Release deletes the key and what belongs to the hold, if it lasts, and
	// nothing of anybody else, a later hold of the same Owner included.
	// ErrLockNotHeld when it does not last; what else belongs to it (a place
	// in line, a lease) is gone then all the same. The front calls it also after
	// Renew returned ErrLockNotHeld.
	Release(ctx context.Context) error
}

// Acquirer is implemented by drivers whose server puts waiters in line, or who
// know a better way to wait than to watch the key and try again.
type Acquirer interface {
	// Acquire is TryLock that waits for its turn. After an error, that of ctx
	// included, it has left nothing in line; the front calls it again
	// after an error that a retry can mend.
	Acquire(ctx context.Context, r LockRequest) (Hold, error)
}

// Confirmed is implemented by the holds of an Acquirer that renews them while it
// waits. Without it the front renews a hold once when it was acquired, which
// delays the hand-over by a round trip.
type Confirmed interface {
	// Confirmed is when the request was sent that last confirmed the hold, with
	// a monotonic reading: its TTL counts from then.
	Confirmed() time.Time
}
