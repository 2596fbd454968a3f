package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/kvtools/valkeyrie"
)

// limit is the setting that two people change at once.
const limit = "config/limit"

// configure changes a setting with AtomicPut; of two writers who read the same
// state one loses, sees it, and tries again.
func (d *demo) configure(ctx context.Context) error {
	d.out.step("Configuration changes are never lost")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A create: it does nothing when an earlier run has made the setting.
	_, _, err := d.kv.AtomicPut(ctx, limit, []byte("100"), nil, nil)
	if err != nil && !errors.Is(err, valkeyrie.ErrKeyExists) {
		return err
	}
	watch, err := d.follow(ctx, "config")
	if err != nil {
		return err
	}

	first, err := d.read(ctx, "alice")
	if err != nil {
		return err
	}
	second, err := d.read(ctx, "bob")
	if err != nil {
		return err
	}
	if err := d.add(ctx, "alice", 10, first); err != nil {
		return err
	}
	if err := watch.show(valkeyrie.Put, limit); err != nil {
		return err
	}
	err = d.add(ctx, "bob", 5, second)
	if !errors.Is(err, valkeyrie.ErrKeyModified) {
		return fmt.Errorf("bob's change should have been refused, but: %w", err)
	}
	d.out.line("bob", "is refused (ErrKeyModified): he would undo alice's change; he reads again")
	if second, err = d.read(ctx, "bob"); err != nil {
		return err
	}
	if err := d.add(ctx, "bob", 5, second); err != nil {
		return err
	}
	if err := watch.show(valkeyrie.Put, limit); err != nil {
		return err
	}
	entry := fmt.Sprintf("run %d changed %s from %s, twice", d.run, limit, first.Value)
	return d.kv.Put(ctx, fmt.Sprintf("history/%06d", d.run), []byte(entry), nil)
}

// read reads the setting for somebody.
func (d *demo) read(ctx context.Context, who string) (*valkeyrie.KVPair, error) {
	p, err := d.kv.Get(ctx, limit, nil)
	if err == nil {
		d.out.line(who, "reads  %s", p.Value)
	}
	return p, err
}

// add writes the setting for somebody, if it is still as it was read.
func (d *demo) add(ctx context.Context, who string, n int, seen *valkeyrie.KVPair) error {
	old, err := strconv.Atoi(string(seen.Value))
	if err != nil {
		return fmt.Errorf("%s: %w", limit, err)
	}
	d.out.line(who, "writes %d, if it is still %d", old+n, old)
	_, _, err = d.kv.AtomicPut(ctx, limit, fmt.Append(nil, old+n), seen, nil)
	return err
}
