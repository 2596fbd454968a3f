package redis

import (
	"testing"

	"github.com/kvtools/valkeyrie/internal/configfuzz"
)

func FuzzConfig(f *testing.F) {
	configfuzz.Run(f, StoreName, New)
}
