package store

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kvtools/valkeyrie"
)

const (
	// maxKey is the length in bytes of the longest key, in its normal form and
	// without prefix.
	maxKey = 1024

	// Reserved is the segment below which backends keep what is theirs, such as
	// the queue of a lock. Users cannot name it and the front never shows it.
	Reserved = ".valkeyrie"
)

// normalKey returns the key in its normal form: segments joined by single
// slashes, none at the ends. The root is "". A key that is in that form already
// costs no allocation. Errors unwrap to valkeyrie.ErrInvalidKey.
func normalKey(key string) (string, error) {
	start, ascii := 0, true
	for i := 0; i <= len(key); i++ {
		if i < len(key) && key[i] != '/' {
			switch c := key[i]; {
			case c >= utf8.RuneSelf:
				ascii = false
			case c < ' ' || c == 0x7f:
				return "", invalid("has a control character")
			}
			continue
		}
		switch segment := key[start:i]; segment {
		case "":
			if key == "" {
				return "", nil
			}
			return normalKey(joinSegments(key))
		case ".", "..":
			return "", invalid("has a segment %q", segment)
		case Reserved:
			return "", invalid("has the segment %q, which is the library's own", segment)
		}
		start = i + 1
	}
	if len(key) > maxKey {
		return "", invalid("is %d bytes long, more than %d", len(key), maxKey)
	}
	if !ascii {
		if !utf8.ValidString(key) {
			return "", invalid("is not valid UTF-8")
		}
		if strings.IndexFunc(key, unicode.IsControl) >= 0 {
			return "", invalid("has a control character")
		}
	}
	return key, nil
}

// joinSegments drops the slashes that mean nothing.
func joinSegments(key string) string {
	return strings.Join(strings.FieldsFunc(key, func(r rune) bool { return r == '/' }), "/")
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: it %s", valkeyrie.ErrInvalidKey, fmt.Sprintf(format, args...))
}

// wireKey returns a user's key as the driver gets it, and in its normal form.
func (s *front) wireKey(key string) (wire, normal string, err error) {
	normal, err = normalKey(key)
	if err != nil {
		return "", "", err
	}
	if normal == "" {
		return "", "", invalid("is empty")
	}
	return s.prefix + normal, normal, nil
}

// wireDir returns what the keys below a user's directory begin with on the wire.
func (s *front) wireDir(dir string) (wire, normal string, err error) {
	normal, err = normalKey(dir)
	if err != nil || normal == "" {
		return s.prefix, "", err
	}
	return s.prefix + normal + "/", normal, nil
}

// userKey returns the user's form of a key from the wire; false for keys that
// are not the user's: those of the library itself, and those that other tools
// wrote in a form that no key of ours has, which nobody could address.
func (s *front) userKey(wire string) (string, bool) {
	key, ok := strings.CutPrefix(wire, s.prefix)
	if !ok {
		return "", false
	}
	normal, err := normalKey(key)
	return key, err == nil && normal == key && key != ""
}
