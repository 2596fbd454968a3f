// A comparison of the Redis backend with other clients. It is a module of its own
// so that none of them reach users of the library.
module github.com/kvtools/valkeyrie/script/tools/redisbench

go 1.25.0

require (
	github.com/gomodule/redigo v1.9.3
	github.com/kvtools/valkeyrie v0.0.0
	github.com/redis/go-redis/v9 v9.22.0
	github.com/redis/rueidis v1.0.79
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/mna/redisc v1.4.0 // indirect
	go.uber.org/atomic v1.11.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/kvtools/valkeyrie => ../../..
