package boltdb_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/leadership"
	"github.com/kvtools/valkeyrie/store/boltdb"
)

// childEnv makes the test binary play another process.
const (
	childEnv     = "VALKEYRIE_BOLTDB_CHILD"
	childEnvPath = "VALKEYRIE_BOLTDB_CHILD_PATH"
)

// child is the main function of the other process. It prints a line for each
// thing that is done, and goes on until it is killed or its input ends.
func child(role string) int {
	ctx := context.Background()
	s, err := boltdb.New([]string{os.Getenv(childEnvPath)}, &valkeyrie.Config{ConnectionTimeout: 5 * time.Second}, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = s.Close() }() // the process ends
	switch role {
	case "hold":
		fmt.Println("open")
	case "lock":
		l, err := s.NewLock(ctx, "lock", &valkeyrie.LockOptions{TTL: time.Hour})
		if err == nil {
			_, err = l.Lock(ctx)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(l.Token())
	case "lead":
		c, err := leadership.NewCandidate(s, "leader", "node", &leadership.CandidateOptions{TTL: time.Hour})
		if err == nil {
			err = c.Run(ctx, func(_ context.Context, term leadership.Term) error {
				fmt.Println(term.Token)
				_, err := io.Copy(io.Discard, os.Stdin)
				return err
			})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	case "write":
		var mu sync.Mutex
		for g := range 8 {
			go func() {
				for i := 0; ; i++ {
					key, value := fmt.Sprintf("w/%d/%d", g, i%50), fmt.Sprintf("%d-%d", os.Getpid(), i)
					if err := s.Put(ctx, key, []byte(value), nil); err != nil {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
					mu.Lock()
					fmt.Println(key, value)
					mu.Unlock()
				}
			}()
		}
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent does
	return 0
}

// process is a child of the test.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Scanner
}

func startChild(t testing.TB, role, path string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+role, childEnvPath+"="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &process{cmd: cmd, stdin: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // has ended already, unless the test failed
	return p
}

// line waits for the next line that the child prints.
func (p *process) line(t testing.TB) string {
	t.Helper()
	require.True(t, p.out.Scan(), "the other process has ended")
	return p.out.Text()
}

// kill kills the child with SIGKILL and returns what it had printed besides.
func (p *process) kill(t testing.TB) (rest []string) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Kill())
	for p.out.Scan() {
		rest = append(rest, p.out.Text())
	}
	_ = p.cmd.Wait() // says that it was killed
	_ = p.stdin.Close()
	return rest
}

func parseToken(t testing.TB, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	require.NoError(t, err)
	return n
}

func TestKilledProcessLosesNothing(t *testing.T) {
	ctx, path := testContext(t), filepath.Join(t.TempDir(), "meta.db")
	const rounds, lines = 6, 400
	revisions := map[uint64]string{}
	for round := range rounds {
		p := startChild(t, "write", path)
		acknowledged := map[string]string{}
		note := func(line string) {
			if key, value, ok := strings.Cut(line, " "); ok && strings.Contains(value, "-") {
				acknowledged[key] = value
			}
		}
		for range lines + 37*round { // in the middle of whatever it does then
			note(p.line(t))
		}
		rest := p.kill(t)
		for i, line := range rest {
			if i < len(rest)-1 { // the last one may be cut off
				note(line)
			}
		}

		s := open(t, path, nil)
		for key, value := range acknowledged {
			got, err := s.Get(ctx, key, nil)
			require.NoError(t, err, "%s was written", key)
			want, have := sequence(t, value), sequence(t, string(got.Value))
			require.GreaterOrEqual(t, have, want, "%s went back", key)
		}
		pairs, err := s.List(ctx, "w", nil)
		require.NoError(t, err)
		for _, pair := range pairs {
			mark := pair.Key + "=" + string(pair.Value)
			if was, seen := revisions[pair.LastIndex]; seen {
				require.Equal(t, was, mark, "revision %d was given twice", pair.LastIndex)
			}
			revisions[pair.LastIndex] = mark
		}
		require.NoError(t, s.Close())
	}

	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			require.NoError(t, err, "bbolt finds the file in order")
		}
		return nil
	}))
	require.NoError(t, db.Close())
}

// sequence is the number of a write in a value of the child that wrote it.
func sequence(t testing.TB, value string) int {
	t.Helper()
	_, n, _ := strings.Cut(value, "-")
	i, err := strconv.Atoi(n)
	require.NoError(t, err)
	return i
}

func TestSecondProcess(t *testing.T) {
	ctx, path := testContext(t), filepath.Join(t.TempDir(), "meta.db")
	first := startChild(t, "hold", path)
	first.line(t)

	const timeout = 200 * time.Millisecond
	begun := time.Now()
	_, err := boltdb.New([]string{path}, &valkeyrie.Config{ConnectionTimeout: timeout}, nil)
	took := time.Since(begun)
	require.ErrorIs(t, err, valkeyrie.ErrNotReachable)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "another process has the file open")
	require.Less(t, took, timeout+time.Second)

	// One that waits gets the file when it is free.
	opened := make(chan error, 1)
	go func() {
		s, err := boltdb.New([]string{path}, nil, nil)
		if err == nil {
			err = s.Put(ctx, "k", nil, nil)
			_ = s.Close() // the put has told whether it works
		}
		opened <- err
	}()
	first.kill(t)
	require.NoError(t, <-opened)
}

// The file goes on to the next process with all that is in it: five that want to
// lead, each killed when it does.
func TestKilledLeadersAreFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	var last uint64
	for range 5 {
		p := startChild(t, "lead", path)
		token := parseToken(t, p.line(t)) // within 5 s, for which it waits for the file, and not after the TTL
		require.Greater(t, token, last)
		last = token
		require.Empty(t, p.kill(t))
	}
}
