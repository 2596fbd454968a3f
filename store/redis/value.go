package redis

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/kvtools/valkeyrie"
)

// What is stored under a key is a header and the value:
//
//	bytes 0-2   0x9a 'V' 'K'         no UTF-8 text begins with 0x9a
//	byte  3     1, for a lock 2
//	bytes 4-11  the revision, big endian, not 0
//	            of a lock: the length of its owner in one byte, and the owner
//	the rest    the value
//
// The revision is drawn at random by who writes, with the highest bit clear: only
// equality counts, and of 63 random bits no two that anybody compares are ever
// the same. Locks have the highest bit set and their token in the others.
//
// A string without the header was written by another tool. Its revision is the
// first 8 bytes of its SHA-1, which a script can compute too.
const (
	magic      = "\x9aVK"
	plainKind  = 1
	lockKind   = 2
	headerSize = len(magic) + 1 + 8

	// maxValue is Redis' limit for a string (proto-max-bulk-len) less the header
	// and the owner of a lock.
	maxValue = 512<<20 - 64

	// lockBit is set in the revisions of locks.
	lockBit = 1 << 63
)

// newRevision draws a revision.
func newRevision() uint64 {
	for {
		if r := rand.Uint64() &^ lockBit; r != 0 {
			return r
		}
	}
}

// revisionBytes is a revision as it is stored and as scripts take it.
func revisionBytes(revision uint64) []byte {
	return binary.BigEndian.AppendUint64(nil, revision)
}

// encode makes what is stored of a value, and its revision.
func encode(value []byte, plain bool) (stored []byte, revision uint64) {
	if plain && !hasMagic(value) {
		stored = append(make([]byte, 0, len(value)), value...) // the caller may reuse its own
		return stored, foreignRevision(stored)
	}
	revision = newRevision()
	stored = make([]byte, 0, headerSize+len(value))
	stored = append(append(stored, magic...), plainKind)
	stored = binary.BigEndian.AppendUint64(stored, revision)
	return append(stored, value...), revision
}

// hasMagic tells whether something begins as a header does.
func hasMagic(b []byte) bool {
	return len(b) >= len(magic) && string(b[:len(magic)]) == magic
}

// decode takes apart what is stored; the value shares its memory.
func decode(key string, stored []byte) (value []byte, revision uint64, err error) {
	if !hasMagic(stored) {
		return stored, foreignRevision(stored), nil
	}
	if revision, err = decodeHeader(key, stored); err != nil {
		return nil, 0, err
	}
	value = stored[headerSize:]
	if stored[len(magic)] == lockKind {
		if len(value) == 0 || len(value) < 1+int(value[0]) {
			return nil, 0, corrupt(key, "the owner of a lock is cut off")
		}
		value = value[1+int(value[0]):]
	}
	return value, revision, nil
}

// decodeHeader takes apart a header, which is enough to know the revision.
func decodeHeader(key string, head []byte) (revision uint64, err error) {
	if len(head) < headerSize {
		return 0, corrupt(key, "its header is cut off")
	}
	if kind := head[len(magic)]; kind != plainKind && kind != lockKind {
		return 0, corrupt(key, fmt.Sprintf("it is of the kind %d, which this version does not know", kind))
	}
	revision = binary.BigEndian.Uint64(head[len(magic)+1:])
	switch isLock := revision&lockBit != 0; {
	case revision == 0:
		return 0, corrupt(key, "its header has no revision")
	case isLock != (head[len(magic)] == lockKind):
		return 0, corrupt(key, "its revision is not one of its kind")
	}
	return revision, nil
}

// foreignRevision derives the revision of a string that another tool wrote.
func foreignRevision(stored []byte) uint64 {
	sum := sha1.Sum(stored)
	return max(1, binary.BigEndian.Uint64(sum[:]))
}

// corrupt makes the error for a key that cannot be read as a value.
func corrupt(key, why string) error {
	return fmt.Errorf("key %q: %w: %s", key, valkeyrie.ErrCorrupt, why)
}
