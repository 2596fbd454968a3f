package boltdb_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/boltdb"
)

func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, mode))
		return path
	}
	notBolt := file("text", []byte("hello"), 0o600)
	long := file("long", bytes.Repeat([]byte("foreign "), 1<<14), 0o600)
	locked, refusal := file("locked", nil, 0o400), "allowed to read and write"
	if os.Geteuid() == 0 { // who may write whatever has a mode
		locked, refusal = "/proc/version", ""
	}

	for name, c := range map[string]struct {
		endpoints []string
		cfg       *valkeyrie.Config
		opts      *boltdb.Options
		field     string
		says      string
	}{
		"no path":           {nil, nil, nil, "endpoints", "path is required"},
		"empty path":        {[]string{""}, nil, nil, "endpoints", "path is empty"},
		"two paths":         {[]string{"a", "b"}, nil, nil, "endpoints", "give one path"},
		"missing directory": {[]string{filepath.Join(dir, "no", "x.db")}, nil, nil, "endpoints", "must exist"},
		"file as directory": {[]string{filepath.Join(notBolt, "x.db")}, nil, nil, "endpoints", "must exist"},
		"directory":         {[]string{dir}, nil, nil, "endpoints", "is a directory"},
		"unwritable":        {[]string{locked}, nil, nil, "endpoints", refusal},
		"short foreign":     {[]string{notBolt}, nil, nil, "endpoints", "not a BoltDB file"},
		"long foreign":      {[]string{long}, nil, nil, "endpoints", "not a BoltDB file"},
		"long bucket name":  {[]string{"x"}, nil, &boltdb.Options{Bucket: string(make([]byte, 1<<16))}, "Options.Bucket", "too long"},
		"negative timeout":  {[]string{"x"}, &valkeyrie.Config{ConnectionTimeout: -1}, nil, "Config.ConnectionTimeout", "positive"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := boltdb.New(c.endpoints, c.cfg, c.opts)
			require.Nil(t, s)
			var bad *valkeyrie.InvalidConfigError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, boltdb.StoreName, bad.Backend)
			require.Equal(t, c.field, bad.Field)
			require.ErrorContains(t, err, c.says)
		})
	}
	t.Run("wrong options type", func(t *testing.T) {
		_, err := valkeyrie.NewStore(boltdb.StoreName, []string{"x"}, &valkeyrie.Config{Backend: "options"})
		var bad *valkeyrie.InvalidConfigError
		require.ErrorAs(t, err, &bad)
		require.Equal(t, "Config.Backend", bad.Field)
	})
	kept, err := os.ReadFile(notBolt)
	require.NoError(t, err)
	require.Equal(t, "hello", string(kept), "a foreign file is left as it is")
}

func TestDamagedFile(t *testing.T) {
	ctx := testContext(t)
	const typeAt, leaf = 8, 0x02 // in the header of a page
	for name, damage := range map[string]func(page []byte){
		"all pages but the first two": func(page []byte) { copy(page, bytes.Repeat([]byte{0xff}, len(page))) },
		"the pages with the keys": func(page []byte) {
			if page[typeAt] == leaf {
				copy(page, []byte("not the number of the page"))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "meta.db")
			s := open(t, path, nil)
			for i := range 100 {
				require.NoError(t, s.Put(ctx, fmt.Sprint("k", i), make([]byte, 500), nil))
			}
			require.NoError(t, s.Close())
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			size := os.Getpagesize()
			for page := range slices.Chunk(content[2*size:], size) {
				damage(page)
			}
			require.NoError(t, os.WriteFile(path, content, 0o600))

			_, err = boltdb.New([]string{path}, nil, nil)
			var bad *valkeyrie.InvalidConfigError
			require.ErrorAs(t, err, &bad)
			require.ErrorContains(t, err, "damaged")
		})
	}
}

func TestForeignRecord(t *testing.T) {
	ctx, path := testContext(t), filepath.Join(t.TempDir(), "meta.db")
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte(boltdb.DefaultBucket))
		if err != nil {
			return err
		}
		if _, err := b.CreateBucket([]byte("d/nested")); err != nil {
			return err
		}
		return b.Put([]byte("d/theirs"), []byte("not a record"))
	}))
	require.NoError(t, db.Close())

	s := open(t, path, nil)
	_, err = s.Get(ctx, "d/theirs", nil)
	require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
	require.ErrorContains(t, err, "d/theirs")
	_, err = s.List(ctx, "d", nil)
	require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
	require.ErrorContains(t, err, "d/theirs")
	_, _, err = s.AtomicPut(ctx, "d/theirs", nil, nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrCorrupt, "what cannot be read is not taken for absent")
	_, err = s.Get(ctx, "d/nested", nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	require.ErrorIs(t, s.Put(ctx, "d/nested", nil, nil), valkeyrie.ErrCorrupt)
	require.NoError(t, s.Put(ctx, "d/ours", nil, nil), "the others are not affected")

	require.NoError(t, s.Delete(ctx, "d/theirs"), "it can be deleted")
	list, err := s.List(ctx, "d", nil)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.ErrorIs(t, s.Delete(ctx, "d/theirs"), valkeyrie.ErrKeyNotFound)
}

func TestValueTooLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("needs 2 GiB of address space")
	}
	ctx := testContext(t)
	s := open(t, filepath.Join(t.TempDir(), "meta.db"), nil)
	// Never touched, so it costs no memory: nothing may copy it.
	huge := make([]byte, bbolt.MaxValueSize)
	require.ErrorIs(t, s.Put(ctx, "k", huge, nil), valkeyrie.ErrValueTooLarge)
	_, _, err := s.AtomicPut(ctx, "k", huge, nil, nil)
	require.ErrorIs(t, err, valkeyrie.ErrValueTooLarge)
	ok, err := s.Exists(ctx, "k", nil)
	require.NoError(t, err)
	require.False(t, ok)
}
