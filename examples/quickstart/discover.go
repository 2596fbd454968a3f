package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kvtools/valkeyrie"
)

// changes is a watch whose events are shown when a step wants to see them.
type changes struct {
	out    *page
	events chan valkeyrie.Event
	failed error // valid once events is closed
}

// follow watches a directory until the context is done. Its first events are
// what exists already; they are not shown.
func (d *demo) follow(ctx context.Context, directory string) (*changes, error) {
	c := &changes{out: d.out, events: make(chan valkeyrie.Event)}
	go func() {
		defer close(c.events)
		for event, err := range d.kv.Events(ctx, directory, &valkeyrie.WatchOptions{Tree: true}) {
			if err != nil {
				c.failed = err
				return
			}
			select {
			case c.events <- event:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		event, err := c.next()
		if err != nil || event.Type == valkeyrie.Synced {
			return c, err
		}
	}
}

// next waits for the next event.
func (c *changes) next() (valkeyrie.Event, error) {
	event, ok := <-c.events
	if !ok {
		return event, fmt.Errorf("the watch ended: %w", c.failed)
	}
	return event, nil
}

// show prints events as they come, until that one has come.
func (c *changes) show(what valkeyrie.EventType, key string) error {
	for {
		event, err := c.next()
		if err != nil {
			return err
		}
		if event.Type == valkeyrie.Delete {
			c.out.line("watch", "- %s", event.Pair.Key)
		} else {
			c.out.line("watch", "+ %-16s %s", event.Pair.Key, event.Pair.Value)
		}
		if event.Type == what && event.Pair.Key == key {
			return nil
		}
	}
}

// discover registers services and shows how one that falls silent disappears.
func (d *demo) discover(ctx context.Context) error {
	d.out.step("Services register, and are gone when they fall silent")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := d.follow(ctx, "services")
	if err != nil {
		return err
	}
	const ttl = time.Second
	silent := time.Now()
	for _, s := range []struct {
		key, address string
		alive        bool
	}{
		{"services/mail/1", "10.0.0.9:2525", false},
		{"services/web/1", "10.0.0.1:8080", true},
		{"services/web/2", "10.0.0.2:8080", true},
	} {
		how := "kept alive"
		if !s.alive {
			how = "not renewed: say, it crashed"
		}
		d.out.line(s.key[len("services/"):], "registers for %v, %s", ttl, how)
		err := d.kv.Put(ctx, s.key, []byte(s.address), &valkeyrie.WriteOptions{TTL: ttl, KeepAlive: s.alive})
		if err != nil {
			return err
		}
		if err := watch.show(valkeyrie.Put, s.key); err != nil {
			return err
		}
	}
	if err := d.find(ctx); err != nil {
		return err
	}
	d.out.line("", "… until mail/1 has not been heard of for %v …", ttl)
	if err := watch.show(valkeyrie.Delete, "services/mail/1"); err != nil {
		return err
	}
	d.out.line("", "%.2f s after it registered", time.Since(silent).Seconds())
	return d.find(ctx)
}

// find lists the services.
func (d *demo) find(ctx context.Context) error {
	pairs, err := d.kv.List(ctx, "services", nil)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range pairs {
		names = append(names, strings.TrimPrefix(p.Key, "services/"))
	}
	d.out.line("list", "%d services: %s", len(names), strings.Join(names, ", "))
	return nil
}
