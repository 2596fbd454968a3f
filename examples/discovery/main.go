// Command discovery shows services that register for as long as they live, and
// a client that always knows which ones do.
//
//	go run ./examples/discovery
//	go run ./examples/discovery -store etcdv3 -endpoints 127.0.0.1:2379
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

const (
	dir = "examples/discovery/web"
	ttl = 2 * time.Second // a real service takes more like 15 s
)

func run(ctx context.Context, target backends.Target) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	kv, err := target.Open()
	if err != nil {
		return err
	}
	defer kv.Close()
	if err := kv.DeleteTree(ctx, dir); err != nil && !errors.Is(err, valkeyrie.ErrKeyNotFound) {
		return err
	}
	instances, err := kv.WatchTree(ctx, dir, nil)
	if err != nil {
		return err
	}

	if err := show(instances, 0); err != nil {
		return err
	}

	// Two instances, each a process with a store of its own.
	first, err := register(ctx, target, "1", "10.0.0.1:8080")
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := register(ctx, target, "2", "10.0.0.2:8080")
	if err != nil {
		return err
	}
	defer second.Close()
	if err := show(instances, 2); err != nil {
		return err
	}

	// Both live on for longer than the TTL, as they renew it.
	time.Sleep(ttl + ttl/2)
	pairs, err := kv.List(ctx, dir, nil)
	if err != nil {
		return err
	}
	fmt.Printf("after %v there are still %d\n", ttl+ttl/2, len(pairs))

	// One dies: it renews nothing, and is gone when its TTL is over.
	fmt.Println("instance 2 dies")
	if err := second.Close(); err != nil {
		return err
	}
	if err := show(instances, 1); err != nil {
		return err
	}

	// One goes in an orderly way: it deletes its key.
	fmt.Println("instance 1 says goodbye")
	if err := first.Delete(ctx, dir+"/1"); err != nil {
		return err
	}
	return show(instances, 0)
}

// register is what an instance does when it starts. Its key is there until it is
// deleted, or nobody renews it any more.
func register(ctx context.Context, target backends.Target, id, address string) (valkeyrie.Store, error) {
	kv, err := target.Open()
	if err != nil {
		return nil, err
	}
	err = kv.Put(ctx, dir+"/"+id, []byte(address), &valkeyrie.WriteOptions{TTL: ttl, KeepAlive: true})
	if err != nil {
		_ = kv.Close()
		return nil, err
	}
	return kv, nil
}

// show prints the instances each time that there is a change, until there are n.
func show(states <-chan []*valkeyrie.KVPair, n int) error {
	for state := range states {
		var addresses []string
		for _, pair := range state {
			addresses = append(addresses, string(pair.Value))
		}
		fmt.Println("instances:", addresses)
		if len(state) == n {
			return nil
		}
	}
	return errors.New("the watch ended early")
}
