package leadership_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/leadership"
	"github.com/kvtools/valkeyrie/store/memory"
)

func open() valkeyrie.Store {
	kv, err := memory.New(nil, nil, nil) // a server's, for several processes
	if err != nil {
		log.Fatal(err)
	}
	return kv
}

// The function is called for each term, with a context that ends with it.
func ExampleCandidate_Run() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	kv := open()
	defer kv.Close()
	candidate, err := leadership.NewCandidate(kv, "service/leader", "node-1", nil)
	if err != nil {
		log.Fatal(err)
	}
	err = candidate.Run(ctx, func(ctx context.Context, term leadership.Term) error {
		fmt.Println("leads, with a token:", term.Token > 0)
		stop() // what the signal to stop does to a service
		<-ctx.Done()
		return nil // only now another one can lead
	})
	fmt.Println("stopped:", errors.Is(err, context.Canceled))

	// Output:
	// leads, with a token: true
	// stopped: true
}

// Those who prefer channels are told when a term begins and when it has ended.
func ExampleCandidate_RunForElection() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	kv := open()
	defer kv.Close()
	candidate, err := leadership.NewCandidate(kv, "service/leader", "node-1", nil)
	if err != nil {
		log.Fatal(err)
	}
	elected, errs := candidate.RunForElection(ctx)
	for elected != nil {
		select {
		case leads, more := <-elected:
			if !more { // the campaign is over
				elected = nil
				break
			}
			fmt.Println("leads:", leads)
			stop()
		case err, more := <-errs:
			if more {
				log.Println("goes on after:", err)
			}
		}
	}

	// Output: leads: true
}

// A follower is told who leads now, and then of each change.
func ExampleFollower_Leaders() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	kv := open()
	defer kv.Close()
	candidate, err := leadership.NewCandidate(kv, "service/leader", "node-1", nil)
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	for name, err := range leadership.NewFollower(kv, "service/leader", nil).Leaders(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if name != "" {
			fmt.Println("leader:", name)
			break
		}
		fmt.Println("no leader")
		go func() {
			ended <- candidate.Run(ctx, func(ctx context.Context, _ leadership.Term) error {
				<-ctx.Done()
				return nil
			})
		}()
	}
	stop()
	<-ended

	// Output:
	// no leader
	// leader: node-1
}
