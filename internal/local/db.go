package local

import (
	"fmt"
	"log/slog"
	"sync"
)

// DB is one database: a storage with its committer, expiry times and watchers.
// Any number of drivers may share it.
type DB struct {
	storage  Storage
	expiries *expiries
	hub      *hub
	logger   *slog.Logger

	mu    sync.Mutex
	queue []*request
	wake  chan struct{} // holds a token when the queue is not empty

	stop    chan struct{} // closed by Close
	stopped chan struct{} // closed when the committer has ended
}

// Open starts a database over the storage. Holds of locks that are found in it
// are removed: whoever opens the storage has it alone, so their holders are gone.
// A nil logger discards.
func Open(storage Storage, logger *slog.Logger) (*DB, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	db := &DB{
		storage:  storage,
		expiries: newExpiries(),
		hub:      newHub(),
		logger:   logger,
		wake:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	locks, err := db.load()
	if err == nil {
		err = db.purge(locks)
	}
	if err != nil {
		return nil, err
	}
	go db.run()
	return db, nil
}

// Close ends the committer and closes the storage. All drivers are closed.
func (db *DB) Close() error {
	close(db.stop)
	<-db.stopped
	return db.storage.Close()
}

// purge deletes what a process that has ended left behind.
func (db *DB) purge(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	t := &transaction{db: db}
	err := db.storage.Update(func(tx Tx) error {
		t.tx = tx
		return t.remove(keys...)
	})
	if err != nil {
		return fmt.Errorf("remove the locks of a process that has ended: %w", err)
	}
	db.expiries.settle(t.changes, t.last)
	return nil
}

// load reads all expiry times from the storage. It returns the keys of locks.
func (db *DB) load() (locks []string, err error) {
	view, err := db.storage.View()
	if err != nil {
		return nil, err
	}
	defer view.Close()
	var records []expiry
	view.Scan("", "", func(key string, r Record, err error) bool {
		switch {
		case err != nil: // reported to whoever reads that key
		case r.Owner != "":
			locks = append(locks, key)
			fallthrough
		case r.Expires != 0:
			records = append(records, expiry{key: key, revision: r.Revision, at: r.Expires})
		}
		return true
	})
	db.expiries.reset(records, view.Revision())
	return locks, nil
}
