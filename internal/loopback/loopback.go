// Package loopback hands out TCP ports of 127.0.0.1 to test servers.
//
// "Listen on port 0, close, use the number" is a race: between the close and the
// server's own bind the port may go to another test, and a server that is
// killed and restarted has that race again. A Port stays reserved in between.
package loopback

import (
	"fmt"
	"net"
	"strconv"
)

// Port is a TCP port of 127.0.0.1 that nobody else gets until Release.
type Port struct {
	number  int
	release func()
}

// Number returns the port's number.
func (p *Port) Number() int { return p.number }

// Addr returns "127.0.0.1:number".
func (p *Port) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

// Release gives the port back. It is called once.
func (p *Port) Release() { p.release() }

// Reserve returns a free port. A server can listen on it, again and again, if
// it sets SO_REUSEADDR, as Go, Java and all servers of our tests do.
func Reserve() (*Port, error) {
	p, err := reserve()
	if err != nil {
		return nil, fmt.Errorf("reserving a port of 127.0.0.1: %w", err)
	}
	return p, nil
}
