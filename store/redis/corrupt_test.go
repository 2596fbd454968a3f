package redis

import (
	"testing"

	"github.com/kvtools/valkeyrie/internal/corrupttest"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestDamagedKeys(t *testing.T) {
	endpoints := testserver.Redis(t).Endpoints
	c := raw(t, endpoints[0])
	damages := make(map[string]func(string))
	for name, stored := range map[string]string{
		"cut off": magic + "\x01123", "of no revision": magic + "\x01\x00\x00\x00\x00\x00\x00\x00\x00v",
		"of a later version": magic + "\x0312345678v", "a hold's revision": magic + "\x01\x80" + "2345678v",
		"a hold without owner": magic + "\x02\x80" + "2345678\x09ow",
	} {
		damages[name] = func(key string) { do(t, c, "SET", key, stored) }
	}
	corrupttest.Run(t, open(t, endpoints, nil, nil), "corrupt", damages)
}
