package testserver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// stopped tells whether every thread of a process has stopped: the signal reaches
// those that run on another processor a little later.
func stopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return true // it is gone
	}
	for _, path := range stats {
		if s := state(path); s != "" && s != "T" && s != "Z" && s != "X" {
			return false
		}
	}
	return true
}

// state returns the letter of a process or thread, empty when it is gone.
func state(path string) string {
	stat, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	// "pid (name) state …", where the name may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) == 0 {
		return ""
	}
	return fields[0]
}

// exited tells whether a child has ended and waits for os.Process.Wait.
func exited(p *os.Process) bool {
	s := state(fmt.Sprintf("/proc/%d/stat", p.Pid))
	return s == "" || s == "Z"
}

// alive tells whether there is a process with that id.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
