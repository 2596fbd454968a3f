// Package backends is what the examples share: the flags that say on which store
// they run. A service of your own imports the one backend that it uses.
//
//	-store etcdv3 -endpoints 10.0.0.1:2379,10.0.0.2:2379
//
// Without flags an example runs on BoltDB, in a file that is removed at the end.
package backends

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kvtools/valkeyrie"
	_ "github.com/kvtools/valkeyrie/store/boltdb"
	_ "github.com/kvtools/valkeyrie/store/consul"
	_ "github.com/kvtools/valkeyrie/store/dynamodb"
	_ "github.com/kvtools/valkeyrie/store/etcdv2"
	_ "github.com/kvtools/valkeyrie/store/etcdv3"
	_ "github.com/kvtools/valkeyrie/store/memory"
	_ "github.com/kvtools/valkeyrie/store/redis"
	_ "github.com/kvtools/valkeyrie/store/zookeeper"
)

// Target is the store that the flags name.
type Target struct {
	Store     string
	Endpoints []string
	Config    valkeyrie.Config
}

// Open opens the store once more, as another process would.
func (t Target) Open() (valkeyrie.Store, error) {
	return valkeyrie.NewStore(t.Store, t.Endpoints, &t.Config)
}

// InProcess tells whether no other process can use the store at the same time.
func (t Target) InProcess() bool { return t.Store == "boltdb" || t.Store == "memory" }

// Main reads the flags, runs the example until it returns or is interrupted, and
// exits. Errors go to standard error.
func Main(run func(ctx context.Context, target Target) error) {
	var t Target
	flag.StringVar(&t.Store, "store", "boltdb", "the backend: "+strings.Join(valkeyrie.Backends(), ", "))
	endpoints := flag.String("endpoints", "", "host:port,… of the servers, or BoltDB's file (default: the server's usual local address, or a temporary file)")
	flag.StringVar(&t.Config.Prefix, "prefix", "", "what is put before all keys")
	flag.StringVar(&t.Config.Username, "username", "", "where the server has users")
	flag.StringVar(&t.Config.Password, "password", "", "where the server has users")
	flag.StringVar(&t.Config.Token, "token", "", "where the server has tokens")
	flag.Parse()
	if *endpoints != "" {
		t.Endpoints = strings.Split(*endpoints, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := t.run(ctx, run)
	if err != nil && !(ctx.Err() != nil && errors.Is(err, ctx.Err())) { // being interrupted is no failure
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	stop()
}

// run runs an example on a store of its own where no endpoints are given.
func (t Target) run(ctx context.Context, run func(context.Context, Target) error) error {
	if len(t.Endpoints) == 0 && t.InProcess() {
		dir, err := os.MkdirTemp("", "valkeyrie-example-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		t.Endpoints = []string{filepath.Join(dir, "example.db")} // for memory it is just a name
	}
	return run(ctx, t)
}
