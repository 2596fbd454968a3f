// Package examples runs the examples as a user does, on every backend. Each is a
// package of its own below this one.
package examples

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestMain(m *testing.M) { testserver.Main(m) }

// stores is every backend, and the flags that say where its server is; nil for
// one that has no server.
var stores = []struct {
	name  string
	flags func(t testing.TB) []string
}{
	{"boltdb", nil},
	{"memory", nil},
	{"etcdv3", func(t testing.TB) []string { return at(testserver.EtcdV3(t).Endpoints...) }},
	{"etcdv2", func(t testing.TB) []string { return at(testserver.EtcdV2(t).Endpoints...) }},
	{"consul", func(t testing.TB) []string { return at(testserver.ConsulServer(t).Endpoints...) }},
	{"zookeeper", func(t testing.TB) []string { return at(testserver.ZooKeeper(t).Endpoints...) }},
	{"redis", func(t testing.TB) []string { return at(testserver.Redis(t).Endpoints...) }},
	{"dynamodb", func(t testing.TB) []string {
		return append(at(testserver.DynamoDB(t)), "-username", "test", "-password", "test")
	}},
}

func at(endpoints ...string) []string { return []string{"-endpoints", strings.Join(endpoints, ",")} }

// programs is every example that ends by itself, and lines that it prints, in
// this order.
var programs = map[string][]string{
	"basics": {
		"examples/basics/colour = green", "no shape yet: true", "the colour exists: true", "examples/basics/colour = blue",
		"it is not green any more: true", "listed: examples/basics/sizes/odd/tiny", "keys altogether: 4", "nothing is left: true",
	},
	"watch": {
		"Watch: no door", "Watch: the door is open", "Watch: the door is shut", "Watch: no door",
		"WatchTree: rooms []", "WatchTree: rooms [attic hall kitchen]",
		"Events: there is examples/watch/rooms/kitchen", "Events: that is all there was", "Events: gone is examples/watch/rooms/attic",
	},
	"lock": {
		"ada has the lock and adds 10: balance 10", "ben cannot have it now", "ben has the lock and adds 5: balance 15",
		"ada goes on as if nothing had happened: refused: somebody who got the lock later was here",
		"ada notices that the lock is lost", "the balance is 15",
	},
	"discovery": {
		"instances: []", "instances: [10.0.0.1:8080 10.0.0.2:8080]", "after 3s there are still 2",
		"instance 2 dies", "instances: [10.0.0.1:8080]", "instance 1 says goodbye", "instances: []",
	},
	"config": {
		`loaded: limit 100, message "hello"`, `loaded: limit 150, message "hello"`, "refused: limit is 0; it must be positive",
		`loaded: limit 200, message "hi"`, "deleted: the old settings stay", "the service still has a limit of 200",
	},
}

func TestExamples(t *testing.T) {
	bin := build(t)
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			args := []string{"-store", s.name}
			if s.flags != nil {
				args = append(args, s.flags(t)...)
			}
			for name, lines := range programs {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					for range 2 { // what the first run leaves does not disturb the second
						contains(t, output(t, filepath.Join(bin, name), args...), lines)
					}
				})
			}
			t.Run("leader", func(t *testing.T) {
				t.Parallel()
				if s.flags == nil {
					contains(t, output(t, filepath.Join(bin, "leader"), args...), []string{
						"this one plays three", " leads, with token ", " is told to stop", " leads, with token ",
						" is told to stop", " leads, with token ", " is told to stop", "nobody is left",
					})
					return
				}
				leaders(t, filepath.Join(bin, "leader"), args)
			})
		})
	}
}

func TestWhatTheDefaultsAre(t *testing.T) {
	out, err := exec.Command(filepath.Join(build(t), "basics")).Output() // no flags: a file of its own
	require.NoError(t, err)
	contains(t, string(out), programs["basics"])
}

// build compiles the examples, as the test itself was compiled, so that what
// they import is compiled once.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir() + string(filepath.Separator)
	args := []string{"build", "-o", dir}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" {
				args = append(args, "-race")
			}
		}
	}
	out, err := exec.Command("go", append(args, "./...")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// output runs a program and returns what it printed.
func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), "%s\n%s", &out, &errs)
	require.Empty(t, errs.String())
	return out.String()
}

// contains checks that texts appear in this order.
func contains(t *testing.T, out string, texts []string) {
	t.Helper()
	rest := out
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		require.True(t, found, "%q does not appear, or too early, in:\n%s", text, out)
		rest = after
	}
}

// leaders starts the program three times, kills the one that leads, and waits
// for another to take over, until one is left.
func leaders(t *testing.T, program string, args []string) {
	type said struct{ name, line string }
	lines := make(chan said, 1000)
	running := make(map[string]*exec.Cmd)
	for _, name := range []string{"a", "b", "c"} {
		cmd := exec.CommandContext(t.Context(), program, slices.Concat(args, []string{"-name", name, "-ttl", "2s"})...)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		running[name] = cmd
		read := make(chan struct{})
		go func() {
			defer close(read)
			for scan := bufio.NewScanner(out); scan.Scan(); {
				lines <- said{name, scan.Text()}
			}
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			<-read
			_ = cmd.Wait()
		})
	}
	timeout := time.After(2 * time.Minute)
	var last uint64
	for len(running) > 0 {
		var s said
		select {
		case s = <-lines:
			t.Log(s.line)
		case <-timeout:
			require.FailNow(t, "no leader")
		}
		var token uint64
		if _, err := fmt.Sscanf(s.line, s.name+" leads, with token %d", &token); err != nil || running[s.name] == nil {
			continue
		}
		require.Greater(t, token, last)
		last = token
		t.Log("kill", s.name)
		require.NoError(t, running[s.name].Process.Kill())
		delete(running, s.name)
	}
}
