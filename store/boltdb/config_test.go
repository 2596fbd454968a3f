package boltdb_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/configfuzz"
	"github.com/kvtools/valkeyrie/store/boltdb"
)

// FuzzConfig keeps to one directory, whatever the path.
func FuzzConfig(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "files")
	configfuzz.Run(f, boltdb.StoreName, func(endpoints []string, cfg *valkeyrie.Config, opts *boltdb.Options) (valkeyrie.Store, error) {
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil { // what the last call left
			return nil, err
		}
		for i, path := range endpoints {
			if path != "" {
				endpoints[i] = filepath.Join(dir, strings.ReplaceAll(path, "..", "__"))
			}
		}
		return boltdb.New(endpoints, cfg, opts)
	})
}
