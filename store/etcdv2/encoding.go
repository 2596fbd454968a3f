package etcdv2

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kvtools/valkeyrie/store"
)

// Keys. etcd leaves nodes whose name begins with "_" out of lists and watches,
// so such a segment gets a "~" in front, as does one that looks as if it had got
// one already. All others are stored as they are.

// ownValue is where the value of a key is if its node is a directory, which a
// deleted key may have left behind: etcd cannot remove a directory on the
// condition that it still is one, so that it stays and serves as it is.
const ownValue = "/" + store.Reserved

// wirePath returns the path of the node of a key, or of a directory that ends in
// "/" or is empty.
func wirePath(key string) string {
	key = strings.TrimSuffix(key, "/")
	if !strings.ContainsRune(key, '_') {
		return "/" + key
	}
	segments := strings.Split(key, "/")
	for i, s := range segments {
		if marked(s) {
			segments[i] = "~" + s
		}
	}
	return "/" + strings.Join(segments, "/")
}

// marked tells whether a segment begins with "_" after any number of "~".
func marked(segment string) bool { return strings.HasPrefix(strings.TrimLeft(segment, "~"), "_") }

// keyOf returns the key whose value is at a path; false when it cannot be one of
// this library.
func keyOf(path string) (string, bool) {
	key := strings.TrimSuffix(strings.TrimPrefix(path, "/"), ownValue)
	if !strings.ContainsRune(key, '_') {
		return key, true
	}
	segments := strings.Split(key, "/")
	for i, s := range segments {
		switch {
		case strings.HasPrefix(s, "_"):
			return "", false // hidden, so another tool's
		case marked(s):
			segments[i] = s[1:]
		}
	}
	return strings.Join(segments, "/"), true
}

// Values. etcd sends them as JSON, which mangles what is not UTF-8; and a
// renewal changes a node's modifiedIndex, although it is no write. So some values
// are stored with a head:
//
//	!valkeyrie:<revision>:<owner>:t:<the value>
//	!valkeyrie:<revision>:<owner>:b:<the value in base64>
//
// The revision, 16 hexadecimal digits, is there where the TTL is renewed: with
// KeepAlive and for locks; the owner for locks.

const head = "!valkeyrie:"

// ownRevision is the bit that tells revisions stored with the value from etcd's
// indexes, which never get there.
const ownRevision = 1 << 63

// newRevision draws a revision to store with a value.
func newRevision() uint64 { return rand.Uint64() | ownRevision }

// content is what a node holds: a value, and the revision and owner where they
// are stored with it.
type content struct {
	value    []byte
	revision uint64 // 0: the node's modifiedIndex
	owner    string // has no ":"
}

// encode returns the value to store.
func (c content) encode() string {
	text := utf8.Valid(c.value)
	if text && c.revision == 0 && c.owner == "" && !strings.HasPrefix(string(c.value), head) {
		return string(c.value)
	}
	revision := ""
	if c.revision != 0 {
		revision = hexadecimal(c.revision)
	}
	if text {
		return head + revision + ":" + c.owner + ":t:" + string(c.value)
	}
	return head + revision + ":" + c.owner + ":b:" + binary.EncodeToString(c.value)
}

// binary is how values that are no text are written: of one value in one form.
var binary = base64.RawURLEncoding.Strict()

// hexadecimal is a revision as it is written.
func hexadecimal(revision uint64) string { return fmt.Sprintf("%016x", revision) }

// decode returns what is in a stored value. What only looks like an encoded one,
// or is damaged, is not as encode writes it, and then a value of another tool.
func decode(stored string) content {
	plain := func() content { return content{value: []byte(stored)} }
	rest, ok := strings.CutPrefix(stored, head)
	if !ok {
		return plain()
	}
	fields := strings.SplitN(rest, ":", 4)
	if len(fields) != 4 {
		return plain()
	}
	c := content{owner: fields[1]}
	if fields[0] != "" {
		revision, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil || revision&ownRevision == 0 || fields[0] != hexadecimal(revision) {
			return plain()
		}
		c.revision = revision
	}
	switch fields[2] {
	case "t":
		c.value = []byte(fields[3])
		needed := c.revision != 0 || c.owner != "" || strings.HasPrefix(fields[3], head)
		if !needed || !utf8.Valid(c.value) {
			return plain()
		}
	case "b":
		value, err := binary.DecodeString(fields[3])
		if err != nil || binary.EncodedLen(len(value)) != len(fields[3]) || utf8.Valid(value) { // line breaks are ignored
			return plain()
		}
		c.value = value
	default:
		return plain()
	}
	return c
}
