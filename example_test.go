package valkeyrie_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
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

// open opens a store that lives in this process.
func open() (context.Context, valkeyrie.Store) {
	kv, err := valkeyrie.NewStore("memory", nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	return context.Background(), kv
}

// must is for the errors that these examples do not expect.
func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A missing key is an error that can be told from others; Exists has none.
func ExampleStore_get() {
	ctx, kv := open()
	defer kv.Close()
	must(kv.Put(ctx, "config/limit", []byte("100"), nil))
	pair, err := kv.Get(ctx, "/config//limit/", nil) // the same key
	must(err)
	fmt.Printf("%s = %s\n", pair.Key, pair.Value)

	must(kv.Delete(ctx, "config/limit"))
	exists, err := kv.Exists(ctx, "config/limit", nil)
	must(err)
	_, err = kv.Get(ctx, "config/limit", nil)
	fmt.Println(exists, errors.Is(err, valkeyrie.ErrKeyNotFound))

	// Output:
	// config/limit = 100
	// false true
}

// Every error says which call on which backend and key went wrong.
func ExampleOpError() {
	ctx, kv := open()
	defer kv.Close()
	_, err := kv.Get(ctx, "config/limit", nil)
	fmt.Println(err)
	var failed *valkeyrie.OpError
	fmt.Println(errors.As(err, &failed), failed.Op, failed.Key)

	// Output:
	// memory: Get "config/limit": key not found
	// true Get config/limit
}

// Walk needs no memory for a directory however large; List has it sorted.
func ExampleStore_walk() {
	ctx, kv := open()
	defer kv.Close()
	for _, key := range []string{"users/ada", "users/ben", "users/ben/keys/1", "usersettings"} {
		must(kv.Put(ctx, key, []byte("…"), nil))
	}
	n := 0
	for _, err := range kv.Walk(ctx, "users", &valkeyrie.ReadOptions{KeysOnly: true}) {
		must(err)
		n++
	}
	fmt.Println(n, "keys below users/")
	pairs, err := kv.List(ctx, "users", nil)
	must(err)
	for _, p := range pairs {
		fmt.Println(p.Key)
	}
	must(kv.DeleteTree(ctx, "users"))
	left, err := kv.Exists(ctx, "usersettings", nil)
	must(err)
	fmt.Println("usersettings is left:", left)

	// Output:
	// 3 keys below users/
	// users/ada
	// users/ben
	// users/ben/keys/1
	// usersettings is left: true
}

// A counter that several processes share: read, change, and write if nobody was
// faster, otherwise again. Who finds no key creates it.
func ExampleStore_atomicPut() {
	ctx, kv := open()
	defer kv.Close()
	for range 3 {
		must(increment(ctx, kv, "visitors"))
	}
	pair, err := kv.Get(ctx, "visitors", nil)
	must(err)
	fmt.Printf("%s visitors\n", pair.Value)

	// Output: 3 visitors
}

func increment(ctx context.Context, kv valkeyrie.Store, key string) error {
	for {
		n := 0
		previous, err := kv.Get(ctx, key, nil) // nil when there is no key
		if err == nil {
			n, err = strconv.Atoi(string(previous.Value))
		} else if errors.Is(err, valkeyrie.ErrKeyNotFound) {
			err = nil
		}
		if err != nil {
			return err
		}
		_, _, err = kv.AtomicPut(ctx, key, []byte(strconv.Itoa(n+1)), previous, nil)
		switch {
		case errors.Is(err, valkeyrie.ErrKeyModified), // somebody else wrote it,
			errors.Is(err, valkeyrie.ErrKeyExists),   // created it,
			errors.Is(err, valkeyrie.ErrKeyNotFound): // deleted it: again
		default:
			return err // with ErrAmbiguous nobody knows whether it counts: not again
		}
	}
}

// A key with a TTL expires unless it is renewed.
func ExampleStore_put() {
	ctx, kv := open()
	defer kv.Close()
	must(kv.Put(ctx, "sessions/1", []byte("ada"), &valkeyrie.WriteOptions{TTL: 50 * time.Millisecond}))
	states, err := kv.Watch(ctx, "sessions/1", nil)
	must(err)
	fmt.Printf("%s\n", (<-states).Value)
	fmt.Println("there:", (<-states).Value != nil)

	// Output:
	// ada
	// there: false
}

// A key is taken away only by who has seen its latest state.
func ExampleStore_atomicDelete() {
	ctx, kv := open()
	defer kv.Close()
	_, job, err := kv.AtomicPut(ctx, "jobs/1", []byte("resize"), nil, nil) // creates
	must(err)
	must(kv.Put(ctx, "jobs/1", []byte("resize, urgently"), nil)) // by somebody else
	_, err = kv.AtomicDelete(ctx, "jobs/1", job)
	fmt.Println("changed meanwhile:", errors.Is(err, valkeyrie.ErrKeyModified))
	job, err = kv.Get(ctx, "jobs/1", nil)
	must(err)
	deleted, err := kv.AtomicDelete(ctx, "jobs/1", job)
	must(err)
	fmt.Println("deleted:", deleted)

	// Output:
	// changed meanwhile: true
	// deleted: true
}

// The first state is the one now; a key that is not there has no value.
func ExampleStore_watch() {
	ctx, kv := open()
	defer kv.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	states, err := kv.Watch(ctx, "config/limit", nil)
	must(err)
	fmt.Println("there:", (<-states).Value != nil)
	must(kv.Put(ctx, "config/limit", []byte("100"), nil))
	fmt.Printf("now: %s\n", (<-states).Value)
	stop()
	for range states { // is closed soon
	}

	// Output:
	// there: false
	// now: 100
}

// Each state is the whole directory, sorted.
func ExampleStore_watchTree() {
	ctx, kv := open()
	defer kv.Close()
	states, err := kv.WatchTree(ctx, "services/web", nil)
	must(err)
	fmt.Println(len(<-states), "instances")
	must(kv.Put(ctx, "services/web/1", []byte("10.0.0.1:8080"), nil))
	for _, p := range <-states {
		fmt.Printf("%s at %s\n", p.Key, p.Value)
	}

	// Output:
	// 0 instances
	// services/web/1 at 10.0.0.1:8080
}

// TryLock does not wait. Who has the lock can be read from its key.
func ExampleLocker_tryLock() {
	ctx, kv := open()
	defer kv.Close()
	first, err := kv.NewLock(ctx, "locks/reports", &valkeyrie.LockOptions{Value: []byte("worker 1")})
	must(err)
	second, err := kv.NewLock(ctx, "locks/reports", &valkeyrie.LockOptions{Value: []byte("worker 2")})
	must(err)
	_, err = first.TryLock(ctx)
	must(err)
	if _, err := second.TryLock(ctx); errors.Is(err, valkeyrie.ErrLockHeld) {
		holder, err := kv.Get(ctx, "locks/reports", nil)
		must(err)
		fmt.Printf("held by %s\n", holder.Value)
	}
	must(first.Unlock(ctx))
	_, err = second.TryLock(ctx)
	fmt.Println("now it is free:", err == nil)

	// Output:
	// held by worker 1
	// now it is free: true
}

// The error of a backend that is not imported says what to do.
func ExampleNewStore_unknown() {
	_, err := valkeyrie.NewStore("etcdv3", []string{"10.0.0.1:2379"}, nil)
	fmt.Println(err)

	// Output:
	// valkeyrie: unknown backend "etcdv3": add the import _ "github.com/kvtools/valkeyrie/store/etcdv3" (imported: memory)
}
