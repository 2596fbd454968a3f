package store

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/kvtools/valkeyrie"
)

// badEndpoint makes the *valkeyrie.InvalidConfigError of an endpoint. The reason
// goes on after the endpoint, as in "has no host: give host:port".
func badEndpoint(backend, endpoint, reason string, err error) error {
	return &valkeyrie.InvalidConfigError{Backend: backend, Field: "endpoints", Reason: strconv.Quote(endpoint) + " " + reason, Err: err}
}

// HostPorts returns the endpoints as host:port. A host without a port gets the
// server's usual one; no endpoints mean this machine. What cannot be meant is an
// *valkeyrie.InvalidConfigError.
func HostPorts(backend string, endpoints []string, port int) ([]string, error) {
	if len(endpoints) == 0 {
		return []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}, nil
	}
	addrs := make([]string, 0, len(endpoints))
	for _, e := range endpoints {
		addr, err := hostPort(backend, e, port)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// hostPort returns one endpoint as host:port.
func hostPort(backend, endpoint string, usual int) (string, error) {
	bad := func(reason string) (string, error) { return "", badEndpoint(backend, endpoint, reason, nil) }
	switch {
	case strings.TrimSpace(endpoint) == "":
		return bad("is empty: give host:port")
	case strings.ContainsRune(endpoint, ','):
		return bad("is several: give each server as an endpoint of its own")
	}
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil { // no port
		host, port = endpoint, strconv.Itoa(usual)
		if inner, ok := strings.CutPrefix(endpoint, "["); ok && strings.HasSuffix(inner, "]") {
			host = strings.TrimSuffix(inner, "]")
		}
	}
	switch {
	case host == "":
		return bad("has no host: give host:port")
	case !isHost(host):
		return bad("is not host:port")
	case !isPort(port):
		return bad(fmt.Sprintf("has the port %q: give one from 1 to 65535", port))
	}
	return net.JoinHostPort(host, port), nil
}

// isHost tells whether something can be an IP address or a name. What a name may
// be in all is the resolver's business.
func isHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return !strings.ContainsAny(host, ":/?#@[]% ") && !strings.ContainsFunc(host, unicode.IsControl)
}

// isPort tells whether something is the number of a port.
func isPort(s string) bool {
	number, err := strconv.ParseUint(s, 10, 16)
	return err == nil && number != 0
}

// HTTP says what the endpoints of a server with an HTTP API are.
type HTTP struct {
	Port int  // the server's usual one
	TLS  bool // Config.TLS is set
	Path bool // a path may belong to an endpoint, as with reverse proxies
}

// URLs returns the endpoints, each a host:port or an http or https URL, as URLs.
// Without a scheme they are https with TLS and http without it; an http URL with
// TLS is refused, as nothing may go out unencrypted then. Otherwise it does what
// HostPorts does.
func URLs(backend string, endpoints []string, api HTTP) ([]*url.URL, error) {
	if len(endpoints) == 0 {
		endpoints = []string{"127.0.0.1"}
	}
	urls := make([]*url.URL, 0, len(endpoints))
	for _, e := range endpoints {
		u, err := parseURL(backend, e, api)
		if err != nil {
			return nil, err
		}
		urls = append(urls, u)
	}
	return urls, nil
}

// parseURL returns one endpoint as a URL.
func parseURL(backend, endpoint string, api HTTP) (*url.URL, error) {
	bad := func(reason string, err error) (*url.URL, error) {
		return nil, badEndpoint(backend, endpoint, reason, err)
	}
	if !strings.Contains(endpoint, "://") {
		addr, err := hostPort(backend, endpoint, api.Port)
		if err != nil {
			return nil, err
		}
		return &url.URL{Scheme: map[bool]string{true: "https", false: "http"}[api.TLS], Host: addr}, nil
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return bad("is no URL: give host:port, http://host:port or https://host:port", err)
	case u.Scheme != "http" && u.Scheme != "https":
		return bad("begins with neither http:// nor https://: give one of these, or host:port", nil)
	case u.Scheme == "http" && api.TLS:
		return bad("is not a TLS address, although Config.TLS is set: give https:// or host:port", nil)
	case !isHost(u.Hostname()) || u.Hostname() == "":
		return bad("has no host: give host:port", nil)
	case u.Port() != "" && !isPort(u.Port()):
		return bad(fmt.Sprintf("has the port %q: give one from 1 to 65535", u.Port()), nil)
	case u.User != nil:
		return bad("holds a user: set Config.Username and Password", nil)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	if u.RawQuery != "" || u.Fragment != "" || u.Path != "" && !api.Path {
		return bad("is more than an address: give host:port", nil)
	}
	return u, nil
}
