// Command basics shows the calls for reading and writing, and their errors.
//
//	go run ./examples/basics
//	go run ./examples/basics -store etcdv3 -endpoints 127.0.0.1:2379
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

const dir = "examples/basics"

func run(ctx context.Context, target backends.Target) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	kv, err := target.Open() // valkeyrie.NewStore(name, endpoints, config)
	if err != nil {
		return err
	}
	defer kv.Close()
	if err := kv.DeleteTree(ctx, dir); err != nil && !errors.Is(err, valkeyrie.ErrKeyNotFound) {
		return err // what an earlier run may have left
	}

	// A write, and what it has written. Keys are paths.
	if err := kv.Put(ctx, dir+"/colour", []byte("green"), nil); err != nil {
		return err
	}
	pair, err := kv.Get(ctx, dir+"/colour", nil)
	if err != nil {
		return err
	}
	fmt.Printf("%s = %s\n", pair.Key, pair.Value)

	// A key that is not there is an error that can be told from others.
	_, err = kv.Get(ctx, dir+"/shape", nil)
	fmt.Println("no shape yet:", errors.Is(err, valkeyrie.ErrKeyNotFound))

	// Without a previous pair AtomicPut creates: of many only one succeeds.
	_, _, err = kv.AtomicPut(ctx, dir+"/colour", []byte("red"), nil, nil)
	fmt.Println("the colour exists:", errors.Is(err, valkeyrie.ErrKeyExists))

	// With one it writes only if nobody has written since: no change is lost.
	_, changed, err := kv.AtomicPut(ctx, dir+"/colour", []byte("blue"), pair, nil)
	if err != nil {
		return err
	}
	fmt.Printf("%s = %s\n", changed.Key, changed.Value)
	_, _, err = kv.AtomicPut(ctx, dir+"/colour", []byte("red"), pair, nil)
	fmt.Println("it is not green any more:", errors.Is(err, valkeyrie.ErrKeyModified))

	// A directory is whatever begins with its name and a slash, at any depth.
	for _, name := range []string{"sizes/small", "sizes/large", "sizes/odd/tiny"} {
		if err := kv.Put(ctx, dir+"/"+name, []byte(name), nil); err != nil {
			return err
		}
	}
	pairs, err := kv.List(ctx, dir+"/sizes", nil)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		fmt.Println("listed:", p.Key)
	}

	// Walk yields the same, as it arrives: a large directory needs no memory.
	n := 0
	for _, err := range kv.Walk(ctx, dir, &valkeyrie.ReadOptions{KeysOnly: true}) {
		if err != nil {
			return err
		}
		n++
	}
	fmt.Println("keys altogether:", n)

	if err := kv.Delete(ctx, dir+"/colour"); err != nil {
		return err
	}
	if err := kv.DeleteTree(ctx, dir); err != nil {
		return err
	}
	_, err = kv.List(ctx, dir, nil)
	fmt.Println("nothing is left:", errors.Is(err, valkeyrie.ErrKeyNotFound))
	return nil
}
