package testutils

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// childVariable makes RunFaults be a client in a child process. Its value is the
// role, the server's address, a key and a TTL, and what else the role needs.
const childVariable = "VALKEYRIE_FAULTS_CHILD"

// childPrefix begins the lines of a child that are meant for its parent.
const childPrefix = "child: "

// tell sends a line to the parent.
func tell(format string, args ...any) { fmt.Printf(childPrefix+format+"\n", args...) }

// beChild opens a store and plays a role until its parent closes its input.
func beChild(t *testing.T, h Harness, role string) {
	fields := strings.Fields(role)
	require.GreaterOrEqual(t, len(fields), 4, childVariable)
	ttl, err := time.ParseDuration(fields[3])
	require.NoError(t, err)
	play := map[string]func(*testing.T, kvstore, string, time.Duration, []string){
		"holder": beHolder, "candidate": beCandidate,
	}[fields[0]]
	require.NotNil(t, play, "no role %q", fields[0])
	s := h.Faults.Open(t, fields[1], &valkeyrie.Config{})
	defer s.Close()
	play(t, s, fields[2], ttl, fields[4:])
}

// beHolder takes the lock and then answers each line from its parent with one:
//
//	write     the token with which it locked; it writes to what the lock guards,
//	          without looking whether it still holds the lock
//	lost      whether lost is closed within a few seconds
//	unlock    what Unlock returns
func beHolder(t *testing.T, s kvstore, key string, ttl time.Duration, _ []string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := s.NewLock(ctx, key, &valkeyrie.LockOptions{TTL: ttl, Value: []byte("holder")})
	require.NoError(t, err)
	lost, err := l.Lock(ctx)
	require.NoError(t, err)
	token := l.Token()
	tell("locked %d", token)

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		answer := "?"
		switch lines.Text() {
		case "write":
			answer = strconv.FormatUint(token, 10)
		case "lost":
			answer = "still held"
			select {
			case <-lost:
				answer = "lost"
			case <-time.After(soon):
			}
		case "unlock":
			err := l.Unlock(ctx)
			answer = fmt.Sprint(err)
			if errors.Is(err, valkeyrie.ErrLockNotHeld) {
				answer = "not held"
			}
		}
		tell("%s", answer)
	}
}

// child is a child process.
type child struct {
	r       *rig
	process *os.Process
	in      io.WriteCloser
	answers chan string
}

// startChild starts the calling test again, to play a role on the server.
func (r *rig) startChild(role, key string, ttl time.Duration, more ...string) *child {
	r.Helper()
	test, _, _ := strings.Cut(r.Name(), "/")
	cmd := exec.Command(os.Args[0], "-test.run=^"+regexp.QuoteMeta(test)+"$", "-test.timeout=2m", "-test.count=1")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %s %s",
		childVariable, role, r.server.Addr, key, ttl, strings.Join(more, " ")))
	cmd.SysProcAttr = dieWithParent()
	in, err := cmd.StdinPipe()
	require.NoError(r, err)
	out, err := cmd.StdoutPipe()
	require.NoError(r, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(r, cmd.Start())

	c := &child{r: r, process: cmd.Process, in: in, answers: make(chan string, 100)}
	read := make(chan struct{})
	var rest strings.Builder // what else it printed
	go func() {
		defer close(read)
		defer close(c.answers)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if answer, ok := strings.CutPrefix(lines.Text(), childPrefix); ok {
				c.answers <- answer
			} else {
				rest.WriteString("\n" + lines.Text())
			}
		}
	}()
	r.Cleanup(func() {
		_ = cmd.Process.Kill() // also ends one that is stopped
		<-read
		_ = cmd.Wait()
		if r.Failed() {
			r.Logf("a child printed:%s", rest.String())
		}
	})
	return c
}

// ask sends a line and returns the answer.
func (c *child) ask(what string) string {
	c.r.Helper()
	_, err := io.WriteString(c.in, what+"\n")
	require.NoError(c.r, err)
	return receive(c.r.env, c.answers, "the child's answer to "+what)
}

// askToken is ask for an answer that is a token.
func (c *child) askToken(answer string) uint64 {
	c.r.Helper()
	token, err := strconv.ParseUint(answer, 10, 64)
	require.NoError(c.r, err)
	require.Positive(c.r, token)
	return token
}

// checker is what a lock guards: it refuses a writer whose token is smaller than
// one that it has seen.
type checker struct{ seen uint64 }

// errFenced is the checker's refusal.
var errFenced = errors.New("refused: a later holder has written already")

func (c *checker) write(token uint64) error {
	if token < c.seen {
		return errFenced
	}
	c.seen = token
	return nil
}

func lockOfStoppedHolder(r *rig) {
	lockThread(r)
	key, ttl := r.key("lock"), r.h.LockTTL
	var guarded checker
	old := r.startChild("holder", key, ttl)
	answer, ok := strings.CutPrefix(receive(r.env, old.answers, "the holder's lock"), "locked ")
	require.True(r, ok)
	token := old.askToken(answer)
	require.NoError(r, guarded.write(token))
	r.mustBeHeld(r.kv, key)

	require.NoError(r, suspend(old.process))
	ctx, cancel := context.WithTimeout(r.ctx, ttl+r.h.CrashBound+soon)
	defer cancel()
	next := r.locker(r.kv, key, &valkeyrie.LockOptions{Value: []byte("holder")})
	lost, err := next.Lock(ctx)
	require.NoError(r, err, "the hold of a stopped process ends")
	require.Greater(r, next.Token(), token)
	require.NoError(r, guarded.write(next.Token()))

	require.NoError(r, resume(old.process))
	require.Equal(r, token, old.askToken(old.ask("write")))
	require.ErrorIs(r, guarded.write(token), errFenced)
	require.Equal(r, "lost", old.ask("lost"))
	require.Equal(r, "not held", old.ask("unlock"))
	r.heldFor(lost, key, time.Second)
	require.NoError(r, guarded.write(next.Token()))
	require.NoError(r, next.Unlock(r.ctx))
}
