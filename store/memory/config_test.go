package memory_test

import (
	"testing"

	"github.com/kvtools/valkeyrie/internal/configfuzz"
	"github.com/kvtools/valkeyrie/store/memory"
)

func FuzzConfig(f *testing.F) { configfuzz.Run(f, memory.StoreName, memory.New) }
