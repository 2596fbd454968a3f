package boltdb_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/boltdb"
)

// Copies what docker/libkv and valkeyrie up to 1.0 wrote to a BoltDB file: 8 bytes
// of a counter, and the value. The old file stays as it is.
func Example_migrate() {
	dir, err := os.MkdirTemp("", "migrate-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	old := writeOld(filepath.Join(dir, "old.db"), "bucket", "config/limit", "100")
	defer old.Close()

	ctx := context.Background()
	kv, err := boltdb.New([]string{filepath.Join(dir, "new.db")}, nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer kv.Close()
	err = old.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("bucket")).ForEach(func(key, stored []byte) error {
			if len(stored) < 8 {
				return nil // not a pair
			}
			return kv.Put(ctx, string(key), stored[8:], nil)
		})
	})
	if err != nil {
		log.Fatal(err)
	}

	pair, err := kv.Get(ctx, "config/limit", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s = %s\n", pair.Key, pair.Value)

	// Output: config/limit = 100
}

// writeOld writes a pair as those releases did.
func writeOld(path, bucket, key, value string) *bbolt.DB {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		log.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), append(binary.LittleEndian.AppendUint64(nil, 1), value...))
	})
	if err != nil {
		log.Fatal(err)
	}
	return db
}

// A store that is shared by goroutines of one process, and kept in a file.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	kv, err := boltdb.New([]string{filepath.Join(dir, "meta.db")},
		&valkeyrie.Config{Prefix: "app"}, &boltdb.Options{Bucket: "metadata"})
	if err != nil {
		log.Fatal(err)
	}
	defer kv.Close()
	ctx := context.Background()
	if err := kv.Put(ctx, "config/limit", []byte("100"), nil); err != nil {
		log.Fatal(err)
	}
	pair, err := kv.Get(ctx, "config/limit", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s = %s\n", pair.Key, pair.Value)

	// Output: config/limit = 100
}
