// Package memory is the store that lives in the memory of its process. It keeps
// the whole contract of package valkeyrie without a server or a file: it is the
// reference for the suite in testutils, and what services use in their own unit
// tests.
//
// A test gives each case a store of its own by passing no endpoint:
//
//	kv, err := memory.New(nil, nil, nil)
//	if err != nil {
//		t.Fatal(err)
//	}
//	t.Cleanup(func() { _ = kv.Close() })
//
// To play several processes that use one server, open several stores with the
// same name, for example that of the test:
//
//	here, err := memory.New([]string{t.Name()}, nil, nil)
//	there, err := memory.New([]string{t.Name()}, nil, nil)
//
// Both see the same keys, watches and locks; each is closed by itself. The data
// goes when the last store of that name is closed.
//
// Code that opens its store by name needs only another name:
//
//	import _ "github.com/kvtools/valkeyrie/store/memory"
//
//	kv, err := valkeyrie.NewStore("memory", nil, cfg)
//
// Expiry, watches and locks are exact, and run on the monotonic clock. Values
// have no limit but memory. Config.TLS, Username, Password and Token mean
// nothing here.
package memory

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/local"
	"github.com/kvtools/valkeyrie/store"
)

// StoreName is the name of this backend for valkeyrie.NewStore.
const StoreName = "memory"

func init() { store.Register(StoreName, New) }

// Options are the options of this backend. There are none so far; nil will
// always mean the defaults.
type Options struct{}

// databases are those that have a name.
var databases = local.Shared[string, *local.DB]{
	Same: func(a, b string) bool { return a == b },
}

// New opens a store. endpoints is empty, for a store that shares its data with
// nobody, or one name, for a store that shares its data with all that are open
// under this name in the process. Anything else is an
// *valkeyrie.InvalidConfigError.
func New(endpoints []string, cfg *valkeyrie.Config, opts *Options) (valkeyrie.Store, error) {
	return store.Open(StoreName, cfg, opts, func(settings valkeyrie.Config, _ Options) (store.Driver, error) {
		db, release, err := open(endpoints, settings.Logger)
		if err != nil {
			return nil, err
		}
		return local.NewDriver(db, StoreName, release), nil
	})
}

// open returns the database that the endpoints mean.
func open(endpoints []string, logger *slog.Logger) (*local.DB, func() error, error) {
	create := func() (*local.DB, error) { return local.Open(local.NewMemory(), logger) }
	switch {
	case len(endpoints) == 0:
		db, err := create()
		if err != nil {
			return nil, nil, err
		}
		return db, db.Close, nil
	case len(endpoints) > 1:
		return nil, nil, &valkeyrie.InvalidConfigError{Backend: StoreName, Field: "endpoints",
			Reason: fmt.Sprintf("there are %d; give one name, or none for a store of its own", len(endpoints))}
	case endpoints[0] == "":
		return nil, nil, &valkeyrie.InvalidConfigError{Backend: StoreName, Field: "endpoints",
			Reason: "the name is empty; give no endpoint for a store of its own"}
	}
	return databases.Acquire(context.Background(), endpoints[0], create, (*local.DB).Close)
}
