package valkeyrie

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// alone empties the registry for one test: examples import backends.
func alone(t *testing.T) {
	t.Helper()
	registry.Lock()
	defer registry.Unlock()
	before := registry.constructors
	registry.constructors = make(map[string]Constructor)
	t.Cleanup(func() {
		registry.Lock()
		defer registry.Unlock()
		registry.constructors = before
	})
}

// register registers a backend for one test.
func register(t *testing.T, name string, c Constructor) {
	t.Helper()
	Register(name, c)
	t.Cleanup(func() {
		registry.Lock()
		defer registry.Unlock()
		delete(registry.constructors, name)
	})
}

func TestRegister(t *testing.T) {
	alone(t)
	never := func([]string, *Config) (Store, error) { return nil, errors.New("never called") }
	register(t, "zeta", never)
	register(t, "alpha", never)
	assert.Equal(t, []string{"alpha", "zeta"}, Backends())
	assert.PanicsWithValue(t, "valkeyrie: Register called twice for backend zeta", func() { Register("zeta", never) })
	assert.Panics(t, func() { Register("nil", nil) })
	assert.Panics(t, func() { Register("", never) })
	assert.Equal(t, []string{"alpha", "zeta"}, Backends(), "what panicked was not registered")
}

func TestRegistryIsSafeForConcurrentUse(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			name := fmt.Sprintf("concurrent-%d", i)
			register(t, name, func([]string, *Config) (Store, error) { return nil, nil })
			_, err := NewStore(name, nil, nil)
			assert.NoError(t, err)
			assert.Contains(t, Backends(), name)
		})
	}
	wg.Wait()
}

func TestNewStorePassesItsArguments(t *testing.T) {
	cfg := &Config{Prefix: "p"}
	failed := errors.New("as asked")
	register(t, "backend", func(endpoints []string, got *Config) (Store, error) {
		assert.Equal(t, []string{"a", "b"}, endpoints)
		assert.Same(t, cfg, got)
		return nil, failed
	})
	_, err := NewStore("backend", []string{"a", "b"}, cfg)
	assert.ErrorIs(t, err, failed)
}

func TestUnknownBackends(t *testing.T) {
	alone(t)
	_, err := NewStore("etcdv3", nil, nil)
	var unknown *UnknownBackendError
	require.ErrorAs(t, err, &unknown)
	assert.Equal(t, "etcdv3", unknown.Name)
	assert.Contains(t, err.Error(), `import _ "github.com/kvtools/valkeyrie/store/etcdv3"`)
	assert.Contains(t, err.Error(), "no backend is imported")

	register(t, "mine", func([]string, *Config) (Store, error) { return nil, nil })
	_, err = NewStore("mime", nil, nil)
	require.ErrorAs(t, err, &unknown)
	assert.Equal(t, []string{"mine"}, unknown.Registered)
	assert.Contains(t, err.Error(), "(imported: mine)")
	assert.NotContains(t, err.Error(), "store/mime", "it names no import that does not exist")
}

func TestErrorsNameAndUnwrap(t *testing.T) {
	client := errors.New("client's own error")
	err := error(&OpError{Op: "Put", Backend: "redis", Key: "a/b", Err: fmt.Errorf("%w: %w", ErrAmbiguous, client)})
	assert.ErrorIs(t, err, ErrAmbiguous)
	assert.ErrorIs(t, err, client)
	assert.Contains(t, err.Error(), `redis: Put "a/b": `)

	long := &OpError{Op: "Put", Backend: "redis", Key: strings.Repeat("k", 1<<20), Err: ErrInvalidKey}
	assert.Equal(t, `redis: Put "`+strings.Repeat("k", 64)+`"…: invalid key`, long.Error(), "the reason can be seen")
	root := &OpError{Op: "List", Backend: "redis", Err: ErrClosed}
	assert.Equal(t, `redis: List "": store is closed`, root.Error())
	assert.Equal(t, `redis: Close: EOF`, (&OpError{Op: "Close", Backend: "redis", Err: io.EOF}).Error())

	err = &InvalidConfigError{Backend: "boltdb", Field: "endpoints", Reason: "must be one path", Err: client}
	assert.ErrorIs(t, err, client)
	assert.Equal(t, "valkeyrie: boltdb: endpoints: must be one path: client's own error", err.Error())
}

func TestEventTypesHaveNames(t *testing.T) {
	assert.Equal(t, "Put Delete Synced EventType(?)", fmt.Sprint(Put, Delete, Synced, EventType(0)))
}
