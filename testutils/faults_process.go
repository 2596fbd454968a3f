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

// holderVariable makes RunFaults be the holder of a lock in a child process. Its
// value is the server's address, the key and the TTL.
const holderVariable = "VALKEYRIE_FAULTS_HOLDER"

// holderPrefix begins the lines of the holder that are meant for its parent.
const holderPrefix = "holder: "

// beHolder takes the lock and then answers each line from its parent with one:
//
//	write     the token with which it locked; it writes to what the lock guards,
//	          without looking whether it still holds the lock
//	lost      whether lost is closed within a few seconds
//	unlock    what Unlock returns
func beHolder(t *testing.T, h Harness, role string) {
	var addr, key string
	var ttl time.Duration
	fields := strings.Fields(role)
	require.Len(t, fields, 3, holderVariable)
	addr, key = fields[0], fields[1]
	ttl, err := time.ParseDuration(fields[2])
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := h.Faults.Open(t, addr, &valkeyrie.Config{})
	defer s.Close()
	l, err := s.NewLock(ctx, key, &valkeyrie.LockOptions{TTL: ttl, Value: []byte("holder")})
	require.NoError(t, err)
	lost, err := l.Lock(ctx)
	require.NoError(t, err)
	token := l.Token()
	fmt.Printf("%slocked %d\n", holderPrefix, token)

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
		fmt.Println(holderPrefix + answer)
	}
}

// holder is the child process.
type holder struct {
	r       *rig
	process *os.Process
	in      io.Writer
	answers chan string
}

// startHolder starts the calling test again as the holder of a lock.
func (r *rig) startHolder(key string, ttl time.Duration) *holder {
	r.Helper()
	test, _, _ := strings.Cut(r.Name(), "/")
	cmd := exec.Command(os.Args[0], "-test.run=^"+regexp.QuoteMeta(test)+"$", "-test.timeout=2m", "-test.count=1")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", holderVariable, r.server.Addr, key, ttl))
	cmd.SysProcAttr = dieWithParent()
	in, err := cmd.StdinPipe()
	require.NoError(r, err)
	out, err := cmd.StdoutPipe()
	require.NoError(r, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(r, cmd.Start())

	h := &holder{r: r, process: cmd.Process, in: in, answers: make(chan string, 100)}
	read := make(chan struct{})
	var rest strings.Builder // what else it printed
	go func() {
		defer close(read)
		defer close(h.answers)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if answer, ok := strings.CutPrefix(lines.Text(), holderPrefix); ok {
				h.answers <- answer
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
			r.Logf("the holder printed:%s", rest.String())
		}
	})
	return h
}

// ask sends a line and returns the answer.
func (h *holder) ask(what string) string {
	h.r.Helper()
	_, err := io.WriteString(h.in, what+"\n")
	require.NoError(h.r, err)
	return receive(h.r.env, h.answers, "the holder's answer to "+what)
}

// askToken is ask for an answer that is a token.
func (h *holder) askToken(answer string) uint64 {
	h.r.Helper()
	token, err := strconv.ParseUint(answer, 10, 64)
	require.NoError(h.r, err)
	require.Positive(h.r, token)
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
	old := r.startHolder(key, ttl)
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
