package testserver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Signals that suspend a process and let it go on.
const (
	stopSignal   = syscall.SIGSTOP
	resumeSignal = syscall.SIGCONT
)

// childAttr makes the kernel kill a server when the test binary dies, however it
// dies, and keeps an interrupt at the terminal, which goes to the whole process
// group, from stopping servers before the tests have ended.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// killGroup kills a process and what it started.
func killGroup(p *os.Process) error {
	err := syscall.Kill(-p.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// exited tells whether a child has ended and waits for os.Process.Wait.
func exited(p *os.Process) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
	if err != nil {
		return true
	}
	// "pid (name) state …", where the name may hold anything.
	_, after, ok := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	return ok && strings.HasPrefix(after, "Z")
}

// alive tells whether there is a process with that id.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
