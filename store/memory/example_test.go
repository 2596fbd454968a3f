package memory_test

import (
	"context"
	"fmt"
	"log"

	"github.com/kvtools/valkeyrie/store/memory"
)

// Two stores of one name are two processes at one server.
func ExampleNew() {
	here, err := memory.New([]string{"shared"}, nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer here.Close()
	there, err := memory.New([]string{"shared"}, nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer there.Close()

	ctx := context.Background()
	if err := here.Put(ctx, "config/limit", []byte("100"), nil); err != nil {
		log.Fatal(err)
	}
	pair, err := there.Get(ctx, "config/limit", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s = %s\n", pair.Key, pair.Value)

	// Output: config/limit = 100
}
