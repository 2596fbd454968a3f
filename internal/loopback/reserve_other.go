//go:build !linux

package loopback

import "net"

// reserve finds a free port. Other systems do not let two sockets share a bound
// port as Linux does, so it is only likely, not certain, to stay free.
func reserve() (*Port, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	number := ln.Addr().(*net.TCPAddr).Port
	return &Port{number: number, release: func() {}}, ln.Close()
}
