package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	// askInterval is how often the sentinels are asked whether the primary is
	// still the one that is connected to.
	askInterval = time.Second

	// askTimeout is how long one sentinel may take to answer.
	askTimeout = 2 * time.Second
)

// sentinels is the primary of a Sentinel group.
type sentinels struct {
	single
	d     *driver
	addrs []string
	links []*link // to the sentinels

	looking sync.Once
	mu      sync.Mutex
	primary string // what was connected to last
	first   int    // the sentinel that answered last
}

func newSentinels(d *driver, addrs []string) *sentinels {
	s := &sentinels{d: d, addrs: addrs}
	s.s = newServer(d, "", s.dial)
	for _, addr := range addrs {
		s.links = append(s.links, &link{d: d, dial: func(ctx context.Context) (*line, error) {
			first := append(auth(d.opts.Sentinel.Username, d.opts.Sentinel.Password), command{name: "PING"})
			l, _, err := d.dialLine(ctx, addr, first)
			return l, err
		}})
	}
	return s
}

// do sends a call to the primary. A server that was made a replica refuses
// writes, which are then sent to the new primary.
func (s *sentinels) do(ctx context.Context, key string, bulk bool, c *call) (*call, error) {
	for attempt := 0; ; attempt++ {
		answered, err := s.single.do(ctx, key, bulk, c)
		if !isCode(err, "READONLY") {
			return answered, err
		}
		s.s.drop(errors.New("connected to a replica")) // not err, which answers one call only
		if attempt == resends {
			return answered, err
		}
		c = answered.again()
	}
}

// dial connects to the primary. A sentinel that was cut off may tell an old one:
// when that does not answer as a primary, another sentinel is asked next time.
func (s *sentinels) dial(ctx context.Context) (*line, error) {
	addr, err := s.ask(ctx)
	if err != nil {
		return nil, err
	}
	l, err := s.dialPrimary(ctx, addr)
	if err != nil {
		s.mu.Lock()
		s.first++
		s.mu.Unlock()
		return nil, err
	}
	s.follow(addr)
	s.looking.Do(func() { s.d.running.Go(s.look) })
	return l, nil
}

// dialPrimary connects to a server that must be a primary.
func (s *sentinels) dialPrimary(ctx context.Context, addr string) (*line, error) {
	l, replies, err := s.d.dialServer(ctx, addr, command{name: "ROLE"})
	if err != nil {
		return nil, err
	}
	if role, err := redis.Values(replies[0], nil); err == nil && len(role) > 0 {
		if is, _ := redis.String(role[0], nil); is != "master" {
			_ = l.socket.Close()
			return nil, fmt.Errorf("%s, the primary according to a sentinel, is a %s", addr, is)
		}
	}
	return l, nil
}

// look follows switches of the primary: one that is cut off from the sentinels
// still answers, and takes writes that will be lost.
func (s *sentinels) look() {
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.d.ctx.Done():
			return
		}
		if addr, err := s.ask(s.d.ctx); err == nil {
			s.follow(addr)
		}
	}
}

// follow takes note of the primary. When it is another one than before, what is
// connected to that is given up.
func (s *sentinels) follow(addr string) {
	s.mu.Lock()
	was := s.primary
	s.primary = addr
	s.mu.Unlock()
	if was == "" || was == addr {
		return
	}
	s.d.log.Info("following a failover", "from", was, "to", addr)
	why := fmt.Errorf("the primary is %s now and no longer %s", addr, was)
	s.s.drop(why)
	s.d.hub.reset(why)
}

// ask asks the sentinels for the primary, the one that answered last first.
func (s *sentinels) ask(ctx context.Context) (string, error) {
	s.mu.Lock()
	first := s.first
	s.mu.Unlock()
	var failures []string
	var refused error
	for i := range s.links {
		n := (first + i) % len(s.links)
		addr, err := s.askOne(ctx, n)
		if err == nil {
			s.mu.Lock()
			s.first = n
			s.mu.Unlock()
			return addr, nil
		}
		if ctx.Err() != nil {
			return "", err
		}
		if saysServer(err) {
			refused = err
		}
		failures = append(failures, s.addrs[n]+": "+err.Error())
	}
	err := errors.New("no sentinel told the primary of " + s.d.opts.Sentinel.MasterName + ": " + strings.Join(failures, "; "))
	if refused != nil {
		return "", fmt.Errorf("%w (%w)", err, refused)
	}
	return "", err
}

// askOne asks one sentinel.
func (s *sentinels) askOne(ctx context.Context, n int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := s.links[n].do(ctx, newCall(true, "SENTINEL", "get-master-addr-by-name", s.d.opts.Sentinel.MasterName))
	if err != nil {
		return "", err
	}
	if c.reply == nil {
		return "", errors.New("it does not know a primary of that name")
	}
	addr, err := redis.Strings(c.reply, nil)
	if err != nil || len(addr) != 2 {
		return "", fmt.Errorf("it answered %v", c.reply)
	}
	return net.JoinHostPort(addr[0], addr[1]), nil
}
