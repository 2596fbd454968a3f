// Command leader is a process that wants to lead. On a server, start it three
// times, kill the one that leads, and watch another take over:
//
//	go run ./examples/leader -store etcdv3 -endpoints 127.0.0.1:2379 -name a
//	go run ./examples/leader -store etcdv3 -endpoints 127.0.0.1:2379 -name b
//	go run ./examples/leader -store etcdv3 -endpoints 127.0.0.1:2379 -name c
//
// BoltDB and memory serve one process at a time. There, and so without flags, it
// plays all three, and makes the leaders stop one after the other:
//
//	go run ./examples/leader
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/examples/internal/backends"
	"github.com/kvtools/valkeyrie/leadership"
)

const key = "examples/leader"

var (
	name = flag.String("name", fmt.Sprint("process-", os.Getpid()), "the name of this candidate")
	ttl  = flag.Duration("ttl", 5*time.Second, "how long a leader that died is waited for")
)

func main() {
	backends.Main(func(ctx context.Context, target backends.Target) error {
		if target.InProcess() {
			return three(ctx, target)
		}
		fmt.Printf("%s is a candidate. Start more of them, and end the leader with Ctrl-C or kill -9\n", *name)
		return process(ctx, target, *name)
	})
}

// process campaigns, and says who leads, until ctx is done.
func process(ctx context.Context, target backends.Target, name string) error {
	kv, err := target.Open()
	if err != nil {
		return err
	}
	defer kv.Close()
	candidate, err := leadership.NewCandidate(kv, key, name, &leadership.CandidateOptions{TTL: *ttl})
	if err != nil {
		return err
	}
	var following sync.WaitGroup
	following.Go(func() { follow(ctx, kv, name) })
	defer following.Wait()
	return candidate.Run(ctx, func(ctx context.Context, term leadership.Term) error {
		fmt.Printf("%s leads, with token %d\n", name, term.Token)
		for {
			select {
			case <-time.After(time.Second): // the work of the leader
			case <-ctx.Done():
				fmt.Printf("%s leads no more: %v\n", name, context.Cause(ctx))
				return nil
			}
		}
	})
}

// follow says who leads.
func follow(ctx context.Context, kv valkeyrie.Store, name string) {
	for leader, err := range leadership.NewFollower(kv, key, nil).Leaders(ctx) {
		switch {
		case err != nil:
			fmt.Println(name, "cannot follow:", err)
		case leader == "":
			fmt.Println(name, "sees no leader")
		case leader != name:
			fmt.Println(name, "follows", leader)
		}
	}
}

// three plays three processes, and ends the one that leads three times.
func three(ctx context.Context, target backends.Target) error {
	fmt.Printf("On %s one process is alone, so this one plays three. On a server, start it three times:\n", target.Store)
	fmt.Print("  go run ./examples/leader -store etcdv3 -endpoints 127.0.0.1:2379\n\n")
	kv, err := target.Open()
	if err != nil {
		return err
	}
	defer kv.Close()
	stop := make(map[string]context.CancelFunc)
	ended := make(chan error, 3)
	for _, name := range []string{"a", "b", "c"} {
		own, cancel := context.WithCancel(ctx)
		defer cancel()
		stop[name] = cancel
		go func() { ended <- process(own, target, name) }()
	}
	for leader, err := range leadership.NewFollower(kv, key, nil).Leaders(ctx) {
		if err != nil {
			return err
		}
		if leader == "" {
			if len(stop) == 0 {
				fmt.Println("nobody is left")
				return nil
			}
			continue
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		fmt.Println("---", leader, "is told to stop")
		stop[leader]()
		delete(stop, leader)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return ctx.Err()
}
