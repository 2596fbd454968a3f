package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/consul/api"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// Reads are not made by Consul's client: it reads all of an answer before it
// returns, and Walk hands out what has come.

var (
	// errLeft: who was given the pairs wants no more.
	errLeft = errors.New("no more pairs wanted")

	// errFiltered: the server left out what the token may not read. A part of a
	// directory would look like all of it.
	errFiltered = fmt.Errorf("%w: the server left out keys that the token may not read", valkeyrie.ErrUnauthorized)
)

// listing is a read of all keys with a prefix, or of one key.
type listing struct {
	prefix string
	one    bool // the key prefix, and nothing that begins with it
	stale  bool

	// index and wait make it a blocking query: it is answered when there is a
	// change after the index, or after wait.
	index uint64
	wait  time.Duration
}

// printable is as much of a key as an agent takes in a URL: by default it refuses
// what it cannot print (disable_http_unprintable_char_filter).
func printable(key string) string {
	if i := strings.IndexFunc(key, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		return key[:i]
	}
	return key
}

// mode is the parameter for the consistency of a read. Consul's own default reads
// from a leader that may just have been replaced without knowing it.
func mode(stale bool) string {
	if stale {
		return "stale"
	}
	return "consistent"
}

// query adds the parameters of every request to those of one.
func (d *driver) query(own string) string {
	switch {
	case d.params == "":
		return own
	case own == "":
		return d.params
	}
	return own + "&" + d.params
}

// request makes the request of a listing.
func (d *driver) request(l listing) *http.Request {
	path, query := printable(l.prefix), mode(l.stale)
	if !l.one || path != l.prefix {
		query += "&recurse"
	}
	if l.index != 0 {
		query += "&index=" + strconv.FormatUint(l.index, 10) + "&wait=" + strconv.FormatInt(l.wait.Milliseconds(), 10) + "ms"
	}
	return &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/v1/kv/" + path, RawQuery: d.query(query)}}
}

// list calls yield with every pair of a listing until it returns false, and
// returns the index of the answer. An answer with the index that was asked for
// has nothing new: yield is not called then.
func (d *driver) list(ctx context.Context, l listing, yield func(*api.KVPair) bool) (uint64, error) {
	wait := l.wait
	if l.index == 0 {
		wait = 0
	}
	resp, err := d.transport.send(d.request(l).WithContext(ctx), wait)
	if err != nil {
		return 0, mapError(ctx, err, false)
	}
	defer resp.Body.Close()
	// An index is never less than 1 (developer.hashicorp.com, Blocking Queries).
	index, _ := strconv.ParseUint(resp.Header.Get("X-Consul-Index"), 10, 64)
	index = max(index, 1)
	switch {
	case resp.StatusCode == http.StatusNotFound && resp.Header.Get("X-Consul-Index") == "":
		return 0, foreign(resp.Status)
	case resp.StatusCode == http.StatusNotFound:
		_, _ = io.Copy(io.Discard, resp.Body)
		if l.one {
			return index, nil
		}
		return index, d.mayRead(ctx, l.prefix)
	case resp.Header.Get("X-Consul-Results-Filtered-By-ACLs") == "true":
		return 0, errFiltered
	case l.index == 0 || l.index != index:
		err = eachPair(resp.Body, l, yield)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	}
	if err != nil && !errors.Is(err, errLeft) {
		err = mapError(ctx, err, false)
	}
	return index, err
}

// eachPair reads the pairs of an answer one by one.
func eachPair(body io.Reader, l listing, yield func(*api.KVPair) bool) error {
	dec := json.NewDecoder(body)
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		kv := new(api.KVPair)
		if err := dec.Decode(kv); err != nil {
			return err
		}
		if l.one && kv.Key != l.prefix || !strings.HasPrefix(kv.Key, l.prefix) {
			continue
		}
		if !yield(kv) {
			return errLeft
		}
	}
	_, err := dec.Token()
	return err
}

// mayRead is nil when the token may read below a directory in which nothing was
// found: the server gives the same answer for what it may not see.
func (d *driver) mayRead(ctx context.Context, dir string) error {
	_, err := d.get(ctx, dir+store.Reserved, true)
	if errors.Is(err, valkeyrie.ErrKeyNotFound) {
		return nil
	}
	return err
}

// anyKey returns a key below a directory.
func (d *driver) anyKey(ctx context.Context, dir string) (string, error) {
	keys, meta, err := d.client.KV().Keys(printable(dir), "", (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	switch {
	case err != nil:
		return "", mapError(ctx, err, false)
	case meta.ResultsFilteredByACLs:
		return "", errFiltered
	}
	for _, key := range keys {
		if strings.HasPrefix(key, dir) {
			return key, nil
		}
	}
	if err := d.mayRead(ctx, dir); err != nil {
		return "", err
	}
	return "", valkeyrie.ErrKeyNotFound
}
