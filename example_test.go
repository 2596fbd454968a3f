package valkeyrie_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/kvtools/valkeyrie"
	_ "github.com/kvtools/valkeyrie/store/memory"
)

// A service registers, is found, and changes a setting that others may change at
// the same time. With another name, endpoints and import the same code runs on
// another backend.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	kv, err := valkeyrie.NewStore("memory", nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer kv.Close()

	// The key lives as long as this process renews it.
	err = kv.Put(ctx, "services/web/1", []byte("10.0.0.1:8080"),
		&valkeyrie.WriteOptions{TTL: 15 * time.Second, KeepAlive: true})
	if err != nil {
		log.Fatal(err)
	}
	services, err := kv.List(ctx, "services/web", nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range services {
		fmt.Println(s.Key, "is at", string(s.Value))
	}

	// Only the first of those who create it succeeds; only who has seen the
	// latest state changes it.
	_, limit, err := kv.AtomicPut(ctx, "config/limit", []byte("100"), nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, _, err := kv.AtomicPut(ctx, "config/limit", []byte("200"), limit, nil); err != nil {
		log.Fatal(err)
	}
	_, _, err = kv.AtomicPut(ctx, "config/limit", []byte("300"), limit, nil)
	fmt.Println("modified by somebody else:", errors.Is(err, valkeyrie.ErrKeyModified))

	// Output:
	// services/web/1 is at 10.0.0.1:8080
	// modified by somebody else: true
}

// A watch begins with what is there and goes on with what changes, whatever
// happens to the connection, until its context is done or the loop breaks off.
func ExampleStore_events() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	kv, err := valkeyrie.NewStore("memory", nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer kv.Close()
	if err := kv.Put(ctx, "services/web/1", []byte("10.0.0.1:8080"), nil); err != nil {
		log.Fatal(err)
	}

	for event, err := range kv.Events(ctx, "services", &valkeyrie.WatchOptions{Tree: true}) {
		switch {
		case err != nil:
			log.Fatal(err)
		case event.Type == valkeyrie.Synced: // that was all; now something changes
			if err := kv.Delete(ctx, "services/web/1"); err != nil {
				log.Fatal(err)
			}
			continue
		}
		fmt.Println(event.Type, event.Pair.Key)
		if event.Type == valkeyrie.Delete {
			break
		}
	}

	// Output:
	// Put services/web/1
	// Delete services/web/1
}

// A lock is held until Unlock, or until lost is closed. Its token lets what it
// guards refuse those who held it before.
func ExampleStore_newLock() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	kv, err := valkeyrie.NewStore("memory", nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer kv.Close()

	lock, err := kv.NewLock(ctx, "locks/reports", &valkeyrie.LockOptions{Value: []byte("worker 1")})
	if err != nil {
		log.Fatal(err)
	}
	lost, err := lock.Lock(ctx)
	if err != nil {
		log.Fatal(err)
	}
	token := lock.Token() // goes along with every write to what the lock guards

	select {
	case <-lost:
		log.Fatal("lost the lock: stop")
	default:
		fmt.Println("working, with a token:", token > 0)
	}
	if err := lock.Unlock(ctx); err != nil {
		log.Fatal(err)
	}

	// Output: working, with a token: true
}
