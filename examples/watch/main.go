// Command watch shows the three ways to follow changes: of one key, of a
// directory as a whole, and of each of its keys.
//
//	go run ./examples/watch
//	go run ./examples/watch -store etcdv3 -endpoints 127.0.0.1:2379
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/examples/internal/backends"
)

func main() { backends.Main(run) }

const dir = "examples/watch"

func run(ctx context.Context, target backends.Target) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel() // ends all watches
	kv, err := target.Open()
	if err != nil {
		return err
	}
	defer kv.Close()
	if err := kv.DeleteTree(ctx, dir); err != nil && !errors.Is(err, valkeyrie.ErrKeyNotFound) {
		return err
	}
	for _, watch := range []func(context.Context, valkeyrie.Store) error{watchKey, watchTree, events} {
		if err := watch(ctx, kv); err != nil {
			return err
		}
	}
	return nil
}

// watchKey follows one key. The first state is the present one; a key that is
// not there has no value.
func watchKey(ctx context.Context, kv valkeyrie.Store) error {
	key := dir + "/door"
	states, err := kv.Watch(ctx, key, nil)
	if err != nil {
		return err
	}
	changes := []func() error{
		func() error { return kv.Put(ctx, key, []byte("open"), nil) },
		func() error { return kv.Put(ctx, key, []byte("shut"), nil) },
		func() error { return kv.Delete(ctx, key) },
	}
	for state := range states {
		if state.Value == nil {
			fmt.Println("Watch: no door")
		} else {
			fmt.Printf("Watch: the door is %s\n", state.Value)
		}
		if len(changes) == 0 {
			return nil
		}
		if err := changes[0](); err != nil {
			return err
		}
		changes = changes[1:]
	}
	return errors.New("the watch of the door ended early")
}

// watchTree follows a directory: each state is all of it, sorted. Changes that
// come faster than they are read are merged, and the last state always arrives.
func watchTree(ctx context.Context, kv valkeyrie.Store) error {
	states, err := kv.WatchTree(ctx, dir+"/rooms", nil)
	if err != nil {
		return err
	}
	rooms := []string{"hall", "kitchen", "attic"}
	for state := range states {
		var names []string
		for _, pair := range state {
			names = append(names, pair.Key[len(dir+"/rooms/"):])
		}
		fmt.Println("WatchTree: rooms", names)
		if len(rooms) == 0 {
			return nil
		}
		if err := kv.Put(ctx, dir+"/rooms/"+rooms[0], []byte("empty"), nil); err != nil {
			return err
		}
		rooms = rooms[1:]
	}
	return errors.New("the watch of the rooms ended early")
}

// events follows each key of a directory. What is there comes first, then
// Synced, then what changes. An error ends it; an outage of the server does not.
func events(ctx context.Context, kv valkeyrie.Store) error {
	for event, err := range kv.Events(ctx, dir+"/rooms", &valkeyrie.WatchOptions{Tree: true}) {
		if err != nil {
			return err
		}
		switch event.Type {
		case valkeyrie.Put:
			fmt.Println("Events: there is", event.Pair.Key)
		case valkeyrie.Synced:
			fmt.Println("Events: that is all there was")
			if err := kv.Delete(ctx, dir+"/rooms/attic"); err != nil {
				return err
			}
		case valkeyrie.Delete:
			fmt.Println("Events: gone is", event.Pair.Key)
			return nil // breaking off ends the watch
		}
	}
	return ctx.Err()
}
