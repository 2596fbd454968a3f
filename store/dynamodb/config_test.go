package dynamodb

import (
	"testing"

	"github.com/kvtools/valkeyrie/internal/configfuzz"
)

func FuzzConfig(f *testing.F) {
	f.Setenv("AWS_REGION", "eu-west-1")
	f.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	configfuzz.Run(f, StoreName, New)
}
