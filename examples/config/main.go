// Command config shows a service that loads its configuration from the store,
// takes on changes while it runs, and keeps what it has when a change is bad.
//
//	go run ./examples/config
//	go run ./examples/config -store etcdv3 -endpoints 127.0.0.1:2379
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/examples/internal/backends"
)

func main() { backends.Main(run) }

const key = "examples/config"

// settings is the configuration of the service.
type settings struct {
	Limit   int    `json:"limit"`
	Message string `json:"message"`
}

// parse refuses what the service cannot work with.
func parse(value []byte) (*settings, error) {
	s := new(settings)
	if err := json.Unmarshal(value, s); err != nil {
		return nil, err
	}
	if s.Limit <= 0 {
		return nil, fmt.Errorf("limit is %d; it must be positive", s.Limit)
	}
	return s, nil
}

// service uses whatever settings are the latest good ones.
type service struct{ current atomic.Pointer[settings] }

// reload takes on the settings each time that they change, until ctx is done. It
// tells each time what became of it.
func (s *service) reload(ctx context.Context, kv valkeyrie.Store, tell chan<- string) error {
	states, err := kv.Watch(ctx, key, nil)
	if err != nil {
		return err
	}
	for state := range states { // outlives outages of the store
		what := "deleted: the old settings stay"
		if state.Value != nil {
			if next, err := parse(state.Value); err != nil {
				what = "refused: " + err.Error()
			} else {
				s.current.Store(next)
				what = fmt.Sprintf("loaded: limit %d, message %q", next.Limit, next.Message)
			}
		}
		select {
		case tell <- what:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func run(ctx context.Context, target backends.Target) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	kv, err := target.Open()
	if err != nil {
		return err
	}
	defer kv.Close()
	if err := kv.Put(ctx, key, []byte(`{"limit": 100, "message": "hello"}`), nil); err != nil {
		return err
	}

	var s service
	told, ended := make(chan string), make(chan error, 1)
	go func() { ended <- s.reload(ctx, kv, told) }()
	changes := []func() error{
		func() error { return change(ctx, kv, func(s *settings) { s.Limit += 50 }) },
		func() error { return kv.Put(ctx, key, []byte(`{"limit": 0}`), nil) }, // somebody's mistake
		func() error { return kv.Put(ctx, key, []byte(`{"limit": 200, "message": "hi"}`), nil) },
		func() error { return kv.Delete(ctx, key) },
	}
	for {
		select {
		case what := <-told:
			fmt.Println(what)
		case err := <-ended:
			return err
		}
		if len(changes) == 0 {
			fmt.Println("the service still has a limit of", s.current.Load().Limit)
			return nil
		}
		if err := changes[0](); err != nil {
			return err
		}
		changes = changes[1:]
	}
}

// change edits the settings as they are, however many others do so at once.
func change(ctx context.Context, kv valkeyrie.Store, edit func(*settings)) error {
	for {
		pair, err := kv.Get(ctx, key, nil)
		if err != nil {
			return err
		}
		s, err := parse(pair.Value)
		if err != nil {
			return err
		}
		edit(s)
		value, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, _, err = kv.AtomicPut(ctx, key, value, pair, nil)
		if !errors.Is(err, valkeyrie.ErrKeyModified) { // else somebody was faster: again
			return err
		}
	}
}
