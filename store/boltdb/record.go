package boltdb

import (
	"encoding/binary"
	"errors"

	"github.com/kvtools/valkeyrie/internal/local"
)

// What stands under a key, integers in big endian:
//
//	byte  0      recordMagic, which is also the version of this layout
//	bytes 1-8    revision, not 0
//	bytes 9-16   expiry in nanoseconds since 1970 UTC, 0: never
//	bytes 17-18  length of the owner
//	then         the owner, empty unless the record is the hold of a lock
//	then         the value, to the end
const (
	recordMagic  = 0xb1
	recordHeader = 1 + 8 + 8 + 2
	maxOwner     = 1<<16 - 1
)

// errRecord says that bytes are not a record.
var errRecord = errors.New("not a record of this library")

// encode returns the bytes of a record. The owner is not longer than maxOwner.
func encode(r local.Record) []byte {
	b := make([]byte, 0, recordHeader+len(r.Owner)+len(r.Value))
	b = append(b, recordMagic)
	b = binary.BigEndian.AppendUint64(b, r.Revision)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Expires))
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Owner)))
	b = append(b, r.Owner...)
	return append(b, r.Value...)
}

// decode reads the bytes of a record. The value is a part of b.
func decode(b []byte) (local.Record, error) {
	if len(b) < recordHeader || b[0] != recordMagic {
		return local.Record{}, errRecord
	}
	r := local.Record{
		Revision: binary.BigEndian.Uint64(b[1:]),
		Expires:  int64(binary.BigEndian.Uint64(b[9:])),
	}
	owner := recordHeader + int(binary.BigEndian.Uint16(b[17:]))
	if r.Revision == 0 || r.Expires < 0 || owner > len(b) {
		return local.Record{}, errRecord
	}
	if owner > recordHeader {
		r.Owner = string(b[recordHeader:owner])
	}
	r.Value = b[owner:]
	return r, nil
}
