// Package local is what store/memory and store/boltdb share: a store.Driver for
// a store that lives in this process, over a narrow Storage that each of them
// fills in.
//
// One goroutine, the committer, makes every change. It takes all the writes
// that wait into one transaction, so that their cost is shared, deletes what
// has expired, and then tells the watchers what has changed. Reads go to the
// storage directly and never wait for it.
package local

// Record is what the storage keeps under a key.
type Record struct {
	// Value is never nil in a record that is written.
	Value []byte

	// Revision of the write that made the record; never 0.
	Revision uint64

	// Expires is when the record expires, in nanoseconds since 1970 on the
	// clock of the process that wrote it; 0: never. It may be put off in
	// memory: see expiries.
	Expires int64

	// Owner identifies the Locker whose hold the record is; empty for data.
	Owner string
}

// Storage keeps records in the order of their keys. Its methods are called
// concurrently, except that one Update runs at a time.
//
// Keys that the storage returns belong to the caller. A record that cannot be
// read is an error that unwraps to valkeyrie.ErrCorrupt and names the key.
// After Close every method returns valkeyrie.ErrClosed.
type Storage interface {
	// Get reads one record, from the last committed state. The value belongs to
	// the caller; it is left out unless values is set.
	Get(key string, values bool) (r Record, found bool, err error)

	// View returns the last committed state, which does not change any more. It
	// must be closed soon: the storage may not be able to grow before that.
	View() (View, error)

	// Update runs fn in a transaction. If fn returns an error, nothing has
	// changed, and Update returns that error. Otherwise the changes are as
	// durable as the storage can make them when Update returns nil. An error of
	// the commit itself unwraps to valkeyrie.ErrAmbiguous.
	Update(fn func(tx Tx) error) error

	// MaxValue is the size in bytes of the largest value; 0: no limit.
	MaxValue() int

	// Close frees the storage, after the views that are open have been closed.
	Close() error
}

// View is one committed state. It is used by one goroutine.
type View interface {
	// Revision is the last one that Tx.NextRevision drew in this state.
	Revision() uint64

	// Get reads one record. The value is valid until the view is closed.
	Get(key string) (r Record, found bool, err error)

	// Scan calls yield for each record whose key begins with prefix and is not
	// less than from, in order, until yield returns false. The value is valid
	// until the view is closed. A record that cannot be read has an err.
	Scan(prefix, from string, yield func(key string, r Record, err error) bool)

	// Close ends the view.
	Close()
}

// Tx is a transaction that writes. It is used by one goroutine. Its reads see
// its own writes. Values that it returns are valid until it ends.
type Tx interface {
	Get(key string) (r Record, found bool, err error)
	Scan(prefix, from string, yield func(key string, r Record, err error) bool)

	// Put writes a record. The storage may keep r.Value, which nobody changes.
	// Errors: valkeyrie.ErrValueTooLarge.
	Put(key string, r Record) error

	// Delete removes a record, whether or not it can be read. A missing one is
	// no error.
	Delete(key string) error

	// NextRevision draws a revision that was never drawn from this storage in a
	// transaction that was committed. It is greater than all of those.
	NextRevision() (uint64, error)
}
