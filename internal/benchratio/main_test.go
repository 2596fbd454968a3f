package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const output = `goos: linux
pkg: github.com/kvtools/valkeyrie/store/boltdb
BenchmarkBoltDB/Get/goroutines=1/store-2          100	      3000 ns/op	 100 B/op	 2 allocs/op
BenchmarkBoltDB/Get/goroutines=1/native-2         100	      1000 ns/op
BenchmarkBoltDB/Get/goroutines=1/store#01-2       100	      1000 ns/op
BenchmarkBoltDB/Get/goroutines=1/native#01-2      100	      2000 ns/op
BenchmarkBoltDB/Get/goroutines=1/store#02-2       100	      2000.0 ns/op
BenchmarkBoltDB/Get/goroutines=1/native#02-2      100	   9000000 ns/op
BenchmarkBoltDB/WatchTree2000/goroutines=1/store  1000000	 500 after-put-ns/op	 1500000 ns/op
PASS
`

func TestRatioIsThatOfMedians(t *testing.T) {
	var out strings.Builder
	require.NoError(t, run(strings.NewReader(output), &out))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 4)
	require.Equal(t, []string{"boltdb.BoltDB", "Get/goroutines=1", "2µs", "2µs", "1.00"}, strings.Fields(lines[1]))
	require.Equal(t, []string{"boltdb.BoltDB", "WatchTree2000/goroutines=1", "1.5ms", "-", "-"}, strings.Fields(lines[3]))
	require.Equal(t, []string{"boltdb.BoltDB", "WatchTree2000/goroutines=1", "after-put", "500.0ns", "-", "-"}, strings.Fields(lines[2]))
}

func TestFailedBenchmarksAreAnError(t *testing.T) {
	var out strings.Builder
	require.Error(t, run(strings.NewReader(""), &out))
	require.ErrorContains(t, run(strings.NewReader(output+"--- FAIL: BenchmarkBoltDB/Put\n"), &out), "FAIL")
}
