package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kvtools/valkeyrie/internal/loopback"
)

// startTimeout is how long a server may take until it answers. It is meant for
// several servers that start at once on a busy machine with two cores.
const startTimeout = 2 * time.Minute

// command says how to start a server and how to see that it is up.
type command struct {
	name  string // for messages, and for its directory
	path  string // the program
	args  []string
	env   []string // added to the environment
	dir   string   // the working directory; the server's output goes there, too
	ports []*loopback.Port

	// check returns nil once the server answers as it should.
	check func(ctx context.Context) error
}

// Server is one process of a server. Its methods are safe for concurrent use.
type Server struct {
	// Addrs are the host:port that clients connect to. They never change.
	Addrs []string

	cmd     command
	session *session

	mu     sync.Mutex
	proc   *os.Process // nil when it does not run
	closed bool
}

// Addr returns the first of Addrs.
func (s *Server) Addr() string { return s.Addrs[0] }

// servers implements group.
func (s *Server) servers() []*Server { return []*Server{s} }

// Log returns the path of the file with all output of the server so far.
func (s *Server) Log() string { return filepath.Join(s.cmd.dir, "output.log") }

// reserve returns so many free ports.
func reserve(n int) ([]*loopback.Port, error) {
	var ports []*loopback.Port
	for range n {
		p, err := loopback.Reserve()
		if err != nil {
			release(ports)
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// release gives ports back.
func release(ports []*loopback.Port) {
	for _, p := range ports {
		p.Release()
	}
}

// mkdir makes an empty directory for a server.
func (s *session) mkdir(name string) (string, error) {
	return os.MkdirTemp(s.dir, name+"-")
}

// newServer makes a Server of a command without starting it. It owns the ports.
func (s *session) newServer(c command, addrs ...string) *Server {
	server := &Server{Addrs: addrs, cmd: c, session: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[server] = struct{}{}
	return server
}

// launch starts the servers at once and waits until all answer. After an error
// none of them is left.
func launch(servers ...*Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.spawn())
	}
	if errors.Join(errs...) == nil {
		for _, s := range servers {
			errs = append(errs, s.ready(ctx))
		}
	}
	err := errors.Join(errs...)
	if err != nil {
		for _, s := range servers {
			s.close()
		}
	}
	return err
}

// spawn starts the process.
func (s *Server) spawn() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fmt.Errorf("%s: the test that it belonged to has ended", s.cmd.name)
	case s.proc != nil:
		return fmt.Errorf("%s: runs already", s.cmd.name)
	}
	out, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own
	s.proc, err = s.session.spawner.start(s.cmd, out)
	return err
}

// ready waits until the server answers.
func (s *Server) ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// One attempt is short: a server that starts may accept and say nothing.
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := s.cmd.check(attempt)
		cancel()
		if err == nil {
			return nil
		}
		s.mu.Lock()
		died := s.proc == nil || exited(s.proc)
		s.mu.Unlock()
		if died {
			return fmt.Errorf("%s ended before it answered%s", s.cmd.name, s.tail())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s did not answer within %v: %w%s", s.cmd.name, startTimeout, err, s.tail())
		}
	}
}

// tail returns the last lines of the server's output, for an error.
func (s *Server) tail() string {
	b, err := os.ReadFile(s.Log())
	if err != nil {
		return "; no output: " + err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	const last = 30
	if len(lines) > last {
		lines = lines[len(lines)-last:]
	}
	return fmt.Sprintf("\n  command: %s %s\n  output:\n    %s",
		s.cmd.path, strings.Join(s.cmd.args, " "), strings.Join(lines, "\n    "))
}

// Kill ends the process at once, with SIGKILL, and waits until it is gone.
// Killing a server that does not run does nothing.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kill()
}

// kill is Kill with s.mu held.
func (s *Server) kill() error {
	if s.proc == nil {
		return nil
	}
	if err := killGroup(s.proc); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: kill: %w", s.cmd.name, err)
	}
	_, err := s.proc.Wait()
	s.proc = nil
	return err
}

// Restart kills the process if it runs, starts it again on its data and its
// ports, and waits until it answers.
func (s *Server) Restart() error {
	if err := s.Kill(); err != nil {
		return err
	}
	if err := s.spawn(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return s.ready(ctx)
}

// Stop suspends the process with SIGSTOP: its connections stay open and silent.
// It returns when the process has stopped.
func (s *Server) Stop() error {
	pid, err := s.signal("stop", stopSignal)
	for end := time.Now().Add(stopPatience); err == nil && !stopped(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			err = fmt.Errorf("%s: has not stopped within %v", s.cmd.name, stopPatience)
		}
	}
	return err
}

// stopPatience is how long a process may take to stop.
const stopPatience = 5 * time.Second

// Resume lets a stopped process go on.
func (s *Server) Resume() error {
	_, err := s.signal("resume", resumeSignal)
	return err
}

// signal sends a signal to the process and returns its id.
func (s *Server) signal(what string, sig os.Signal) (pid int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return 0, fmt.Errorf("%s: %s: it does not run", s.cmd.name, what)
	}
	if err := s.proc.Signal(sig); err != nil {
		return 0, fmt.Errorf("%s: %s: %w", s.cmd.name, what, err)
	}
	return s.proc.Pid, nil
}

// close kills the process for good and gives back what it had.
func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	if err := s.kill(); err != nil {
		fmt.Fprintln(os.Stderr, "testserver:", err)
	}
	release(s.cmd.ports)
	_ = os.RemoveAll(s.cmd.dir)
	s.session.mu.Lock()
	defer s.session.mu.Unlock()
	delete(s.session.running, s)
}

// own starts servers for one test, which stops them at its end.
func own(t testing.TB, servers ...*Server) {
	t.Helper()
	if err := launch(servers...); err != nil {
		t.Fatalf("testserver: %v", err)
	}
	t.Cleanup(func() {
		for _, s := range servers {
			s.close()
		}
	})
}
