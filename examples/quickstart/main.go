// Command quickstart shows in a few seconds what valkeyrie is for: services that
// register and are found, configuration that is changed safely, a lock that
// protects even from those who lost it. It needs no server: everything is in one
// BoltDB file, and is still there the next time.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/kvtools/valkeyrie"
	_ "github.com/kvtools/valkeyrie/store/boltdb"
)

func main() {
	path := flag.String("path", "quickstart.db", "the BoltDB `file`; it is kept for the next run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, newPage(os.Stdout), *path); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// demo is what the steps share.
type demo struct {
	kv  valkeyrie.Store
	out *page
	run int // counted over all runs on this file
}

// run opens the store and goes through the steps.
func run(ctx context.Context, out *page, path string) (err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	// A file that another process has open is waited for only so long.
	kv, err := valkeyrie.NewStore("boltdb", []string{path}, &valkeyrie.Config{ConnectionTimeout: 2 * time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kv.Close()) }()

	d := &demo{kv: kv, out: out}
	out.title("valkeyrie", "one interface to key/value stores; here BoltDB, in "+path)
	for _, step := range []func(context.Context) error{d.remember, d.discover, d.configure, d.lock} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	out.title(fmt.Sprintf("That was run %d, in %.1f s.", d.run, time.Since(began).Seconds()),
		"Run it again: what it wrote is still there. To start over, delete "+path)
	return nil
}

// remember counts the runs, and shows what earlier ones left.
func (d *demo) remember(ctx context.Context) error {
	d.out.step("A store remembers")
	const key = "quickstart/runs"
	var last *valkeyrie.KVPair
	last, err := d.kv.Get(ctx, key, nil)
	switch {
	case errors.Is(err, valkeyrie.ErrKeyNotFound):
		d.out.line("store", "the file is new: this is the first run")
	case err != nil:
		return err
	default:
		if _, err := fmt.Sscan(string(last.Value), &d.run); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	d.run++
	if last != nil {
		d.out.line("store", "welcome back: this is run %d. What the earlier ones left:", d.run)
		history, err := d.kv.List(ctx, "history", nil)
		if err != nil && !errors.Is(err, valkeyrie.ErrKeyNotFound) {
			return err
		}
		for _, p := range history[max(0, len(history)-3):] {
			d.out.line("", "%-16s %s", p.Key, p.Value)
		}
	}
	// With last == nil it is a create. Either way nobody else's count is lost.
	_, _, err = d.kv.AtomicPut(ctx, key, fmt.Append(nil, d.run), last, nil)
	return err
}
