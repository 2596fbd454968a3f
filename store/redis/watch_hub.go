package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/gomodule/redigo/redis"

	"github.com/kvtools/valkeyrie"
)

// hub owns the connections over which the watches of a store are told of changes:
// one to each server that has keys.
type hub struct {
	d *driver

	mu      sync.Mutex
	current *feed // nil: none was opened yet
}

// feed is one life of these connections. When one of them breaks, or there are
// other servers, the feed ends and with it every watch; the front starts the
// watches again, and they open the next feed. So no watch goes on with a gap.
type feed struct {
	d       *driver
	opened  chan struct{} // closed when pipes and polled are there, or the feed has ended
	pipes   []*pipe
	polled  bool // notifications are not to be relied on
	over    chan struct{}
	overErr error
	ending  sync.Once

	mu       sync.Mutex
	channels map[string]*channel
}

// channel is a subscription that watches share.
type channel struct {
	name     string
	pattern  bool
	watchers map[*watcher]struct{}
	ready    chan struct{} // closed when all servers have confirmed, or err is set
	err      error
}

// feed returns the feed that there is, or opens one.
func (h *hub) feed(ctx context.Context) (*feed, error) {
	h.mu.Lock()
	f := h.current
	if f == nil || f.ended() {
		f = &feed{d: h.d, opened: make(chan struct{}), over: make(chan struct{}), channels: make(map[string]*channel)}
		if !h.d.running.Go(f.run) {
			h.mu.Unlock()
			return nil, valkeyrie.ErrClosed
		}
		h.current = f
	}
	h.mu.Unlock()
	select {
	case <-f.opened:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.ended() {
		return nil, f.overErr
	}
	return f, nil
}

// reset ends the feed because there may be other servers now.
func (h *hub) reset(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current != nil {
		h.current.end(&noReply{err: why})
	}
}

// ended tells whether the feed is over.
func (f *feed) ended() bool {
	select {
	case <-f.over:
		return true
	default:
		return false
	}
}

// end ends the feed.
func (f *feed) end(err error) {
	f.ending.Do(func() {
		f.overErr = err
		close(f.over)
	})
}

// run opens the connections and looks after them until the feed is over.
func (f *feed) run() {
	ctx, cancel := context.WithTimeout(f.d.ctx, f.d.config.ConnectionTimeout)
	err := f.open(ctx)
	cancel()
	if err != nil {
		f.end(&noReply{err: f.d.late(err)})
	}
	close(f.opened)
	var own sync.WaitGroup
	for _, p := range f.pipes {
		own.Go(func() {
			select {
			case <-p.broken:
				f.end(&noReply{err: fmt.Errorf("the connection for notifications broke: %w", p.err)})
			case <-f.over:
			}
		})
	}
	select {
	case <-f.over:
	case <-f.d.ctx.Done():
		f.end(valkeyrie.ErrClosed)
	}
	own.Wait()
	for _, p := range f.pipes {
		p.fail(f.overErr)
	}
}

// open connects to all servers and sees to it that they notify.
func (f *feed) open(ctx context.Context) error {
	all, _, err := f.d.servers.primaries(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		told, err := f.d.notifications(ctx, s)
		if err != nil {
			return err
		}
		f.polled = f.polled || !told
		l, err := s.dial(ctx)
		if err != nil {
			return err
		}
		p, err := f.d.newPipe(l, f.push)
		if err != nil {
			return err
		}
		f.pipes = append(f.pipes, p)
	}
	return nil
}

// subscribe adds a watcher to a channel and waits until the servers have
// confirmed the subscription: what changes from then on marks the watcher.
func (f *feed) subscribe(ctx context.Context, w *watcher, name string, pattern bool) error {
	f.mu.Lock()
	c := f.channels[name]
	if c == nil {
		c = &channel{name: name, pattern: pattern, watchers: make(map[*watcher]struct{}), ready: make(chan struct{})}
		f.channels[name] = c
		f.command(c, "SUBSCRIBE")
	}
	c.watchers[w] = struct{}{}
	f.mu.Unlock()
	select {
	case <-c.ready:
		return c.err
	case <-f.over:
		return f.overErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unsubscribe takes a watcher off a channel.
func (f *feed) unsubscribe(w *watcher, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.channels[name]
	if c == nil {
		return
	}
	delete(c.watchers, w)
	if len(c.watchers) == 0 {
		delete(f.channels, name)
		f.command(c, "UNSUBSCRIBE")
	}
}

// command sends a command about a channel to all servers; f.mu is held, so that
// the commands about one channel are in order. SUBSCRIBE makes the channel ready.
func (f *feed) command(c *channel, name string) {
	subscribe := name == "SUBSCRIBE"
	if c.pattern {
		name = "P" + name
	}
	var asked []*call
	for _, p := range f.pipes {
		one := newCall(true, name, c.name)
		p.start(one)
		asked = append(asked, one)
	}
	if !subscribe {
		return
	}
	confirm := func() {
		for _, one := range asked {
			<-one.done // comes when the pipe breaks, too
			c.err = errors.Join(c.err, one.err)
		}
		close(c.ready)
	}
	if !f.d.running.Go(confirm) {
		c.err = valkeyrie.ErrClosed
		close(c.ready)
	}
}

// push takes what a subscription delivers: ["message", channel, event] or
// ["pmessage", pattern, channel, event].
func (f *feed) push(message []any) {
	name, _ := message[1].([]byte)
	full := name
	if len(message) > 3 {
		full, _ = message[2].([]byte)
	}
	key, ours := strings.CutPrefix(string(full), f.d.channelOf(""))
	if !ours {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.channels[string(name)]; c != nil {
		for w := range c.watchers {
			w.mark(key)
		}
	}
}

// channelOf is the channel on which Redis tells of changes of a key.
func (d *driver) channelOf(key string) string {
	return fmt.Sprintf("__keyspace@%d__:%s", d.opts.DB, key)
}

// notifications tells whether a server notifies, and makes it do so where that is
// missing and Options.Notifications asks for it.
func (d *driver) notifications(ctx context.Context, s *server) (bool, error) {
	if d.opts.Notifications == TrustNotifications {
		return true, nil
	}
	const setting = "notify-keyspace-events"
	c, err := s.calls.do(ctx, newCall(true, "CONFIG", "GET", setting))
	var set map[string]string
	if err == nil {
		set, err = redis.StringMap(c.reply, nil)
	}
	flags, known := set[setting]
	switch {
	case err == nil && known && missingFlags(flags) == "":
		return true, nil
	case err == nil && known && d.opts.Notifications == AddNotifications:
		_, err = s.calls.do(ctx, newCall(true, "CONFIG", "SET", setting, flags+missingFlags(flags)))
		if err == nil {
			d.log.Info("keyspace notifications switched on", "setting", setting, "was", flags, "added", missingFlags(flags))
			return true, nil
		}
	}
	if lost := (*noReply)(nil); errors.As(err, &lost) {
		return false, err
	}
	d.log.Warn("the server does not notify of changes: watches poll", "interval", d.opts.PollInterval, setting, flags, "error", err)
	return false, nil
}

// neededFlags: K for a channel per key; generic commands, strings, expiry and
// eviction. A stands for all events.
const neededFlags = "Kg$xe"

// missingFlags is what a setting lacks.
func missingFlags(set string) string {
	var lacks strings.Builder
	for _, flag := range neededFlags {
		if !strings.ContainsRune(set, flag) && (flag == 'K' || !strings.ContainsRune(set, 'A')) {
			lacks.WriteRune(flag)
		}
	}
	return lacks.String()
}
