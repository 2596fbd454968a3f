package boltdb

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/kvtools/valkeyrie/internal/corrupttest"
	"github.com/kvtools/valkeyrie/internal/local"
)

func TestDamagedRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	s, err := New([]string{path}, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })

	// Nobody else can open the file; this shares what New has opened.
	info, err := os.Stat(path)
	require.NoError(t, err)
	f, release, err := files.Acquire(context.Background(), info, func() (*file, error) { return nil, errors.New("it is not open") }, (*file).close)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, release()) })

	whole := encode(local.Record{Revision: 7, Owner: "owner", Value: []byte("v")})
	changed := func(at int, to ...byte) []byte {
		record := append([]byte{}, whole...)
		copy(record[at:], to)
		return record
	}
	damages := make(map[string]func(string))
	for name, record := range map[string][]byte{
		"empty": {}, "cut off": whole[:recordHeader-1], "another layout": changed(0, 0xb2),
		"of no revision":            changed(1, make([]byte, 8)...),
		"expired before all clocks": changed(9, 0xff),
		"the owner cut off":         changed(17, binary.BigEndian.AppendUint16(nil, 500)...),
	} {
		damages[name] = func(key string) {
			require.NoError(t, f.update(func(tx *bbolt.Tx) error {
				return tx.Bucket([]byte(DefaultBucket)).Put([]byte(key), record)
			}))
		}
	}
	corrupttest.Run(t, s, "corrupt", damages)
}
