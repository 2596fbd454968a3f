package testserver

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
)

// spawner starts processes from one thread that lives until close. The kernel
// kills a child with its parent, but by parent it means the thread that started
// it, and Go may end threads.
type spawner struct {
	requests chan func()
	done     sync.WaitGroup
}

// newSpawner starts the thread.
func newSpawner() *spawner {
	s := &spawner{requests: make(chan func())}
	s.done.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range s.requests {
			f()
		}
	})
	return s
}

// close ends the thread's work. Nothing may be started afterwards.
func (s *spawner) close() {
	close(s.requests)
	s.done.Wait()
}

// start starts a command with its output in the file.
func (s *spawner) start(c command, out *os.File) (*os.Process, error) {
	// The output goes to a file and nobody waits for the process in the
	// background, so that it costs no goroutine that a leak check would find.
	cmd := exec.Command(c.path, c.args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = childAttr()
	result := make(chan error)
	s.requests <- func() { result <- cmd.Start() }
	if err := <-result; err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return cmd.Process, nil
}
