package zookeeper

import (
	"strings"
	"unicode/utf8"

	"github.com/kvtools/valkeyrie/store"
)

// ZooKeeper refuses some characters in paths (its PathUtils.validatePath, which
// sees UTF-16): U+E000 to U+F8FF, U+FFF0 to U+FFFF, and surrogates, which is
// every character above U+FFFF. It keeps its own at /zookeeper. A segment of a
// key that has any of that is written as ".valkeyrie%" and the segment with each
// byte of such characters, and each "%", as % and two digits; so is a segment
// that could be taken for one that was. All others are written as they are.

// escaped begins a segment that is written in another way. It is not the
// segment that is reserved for the library itself.
const escaped = store.Reserved + "%"

// system is the segment that is ZooKeeper's own at the root.
const system = "zookeeper"

// pathOf returns the path of a key's node.
func pathOf(key string) string {
	if !suspicious(key) {
		return "/" + key
	}
	segments := strings.Split(key, "/")
	for i, s := range segments {
		segments[i] = escape(s, i == 0)
	}
	return "/" + strings.Join(segments, "/")
}

// dirOf returns the path of the node of a directory, which is empty or ends in
// "/".
func dirOf(dir string) string {
	if dir == "" {
		return "/"
	}
	return pathOf(dir[:len(dir)-1])
}

// suspicious tells whether some segment of a key may have to be escaped. Below
// U+E000 the first byte of a character is at most 0xED.
func suspicious(key string) bool {
	for i := range len(key) {
		if key[i] >= 0xee {
			return true
		}
	}
	return strings.HasPrefix(key, system) || strings.Contains(key, escaped)
}

// escape returns a segment as it is written.
func escape(segment string, first bool) string {
	plain := !strings.HasPrefix(segment, escaped) && !(first && segment == system)
	if plain && strings.IndexFunc(segment, refused) < 0 {
		return segment
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.WriteString(escaped)
	for i, r := range segment {
		size := utf8.RuneLen(r)
		if r != '%' && !refused(r) {
			b.WriteString(segment[i : i+size])
			continue
		}
		for _, c := range []byte(segment[i : i+size]) {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}

// refused tells whether ZooKeeper refuses a character.
func refused(r rune) bool {
	return r >= 0xe000 && r <= 0xf8ff || r >= 0xfff0
}

// unescape returns the segment of a node's name; false for names that are no
// segment of a key: the library's own, ZooKeeper's own, and forms that escape
// does not make.
func unescape(name string, first bool) (string, bool) {
	rest, special := strings.CutPrefix(name, escaped)
	if !special {
		return name, name != store.Reserved && !(first && name == system)
	}
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		if rest[i] != '%' {
			b.WriteByte(rest[i])
			continue
		}
		if i+2 >= len(rest) {
			return "", false
		}
		high, low := digit(rest[i+1]), digit(rest[i+2])
		if high < 0 || low < 0 {
			return "", false
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	segment := b.String()
	return segment, utf8.ValidString(segment) && escape(segment, first) == name
}

func digit(c byte) int {
	return strings.IndexByte("0123456789ABCDEF", c)
}

// child returns the path of a child of a node.
func child(path, name string) string {
	if path == "/" {
		return "/" + name
	}
	return path + "/" + name
}

// below returns the path and the key of a node's child; the key of the root is
// empty. False when it cannot be a key.
func below(path, key, name string) (childPath, childKey string, ok bool) {
	segment, ok := unescape(name, path == "/")
	if key != "" {
		segment = key + "/" + segment
	}
	return child(path, name), segment, ok
}

// parent returns the path of a node's parent.
func parent(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}
