package boltdb_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/boltdb"
	"github.com/kvtools/valkeyrie/testutils"
)

// BenchmarkBoltDB compares the store with bbolt as its documentation shows it:
// one Update for each write, one View for each read, default options.
func BenchmarkBoltDB(b *testing.B) {
	path := filepath.Join(b.TempDir(), "store.db")
	testutils.Benchmark(b, testutils.Harness{
		Backend: boltdb.StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			s, err := boltdb.New([]string{path}, cfg, nil)
			require.NoError(t, err)
			return s
		},
		Baseline: raw,
	})
}

var rawBucket = []byte("raw")

// raw is the baseline.
func raw(b testing.TB) testutils.Native {
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "raw.db"), 0o600, nil)
	require.NoError(b, err)
	require.NoError(b, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(rawBucket)
		return err
	}))
	put := func(_ context.Context, key string, value []byte) error {
		return db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(rawBucket).Put([]byte(key), value) })
	}
	return testutils.Native{
		Put: put,
		Get: func(_ context.Context, key string) error {
			var value []byte
			err := db.View(func(tx *bbolt.Tx) error {
				value = bytes.Clone(tx.Bucket(rawBucket).Get([]byte(key)))
				return nil
			})
			if err == nil && value == nil {
				err = valkeyrie.ErrKeyNotFound
			}
			return err
		},
		CreateUpdate: func(_ context.Context, key string, value []byte) error {
			for _, want := range [][]byte{nil, value} {
				err := db.Update(func(tx *bbolt.Tx) error {
					b := tx.Bucket(rawBucket)
					if !bytes.Equal(b.Get([]byte(key)), want) {
						return errors.New("not as it was")
					}
					return b.Put([]byte(key), value)
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
		List: func(_ context.Context, directory string) (int, error) {
			pairs, err := rawList(db, directory)
			return len(pairs), err
		},
		DeleteTree: func(_ context.Context, directory string) error {
			return db.Update(func(tx *bbolt.Tx) error {
				prefix, b := []byte(directory+"/"), tx.Bucket(rawBucket)
				var keys [][]byte
				c := b.Cursor()
				for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
					keys = append(keys, bytes.Clone(k))
				}
				for _, k := range keys {
					if err := b.Delete(k); err != nil {
						return err
					}
				}
				return nil
			})
		},
		Fill: func(_ context.Context, keys []string) error {
			return db.Update(func(tx *bbolt.Tx) error {
				for _, key := range keys {
					if err := tx.Bucket(rawBucket).Put([]byte(key), make([]byte, 100)); err != nil {
						return err
					}
				}
				return nil
			})
		},
		Close: func() { _ = db.Close() }, // the benchmark is over
	}
}

// rawList reads keys and values, which belong to the caller.
func rawList(db *bbolt.DB, directory string) (pairs []*valkeyrie.KVPair, err error) {
	prefix := []byte(directory + "/")
	err = db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(rawBucket).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			pairs = append(pairs, &valkeyrie.KVPair{Key: string(k), Value: bytes.Clone(v)})
		}
		return nil
	})
	return pairs, err
}
