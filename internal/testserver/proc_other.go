//go:build !linux

package testserver

import (
	"os"
	"syscall"
)

// The tests that use servers run on Linux. Elsewhere this package compiles and
// starts servers; they outlive a test binary that is killed.

const (
	stopSignal   = unsupported("stop")
	resumeSignal = unsupported("resume")
)

// unsupported is a signal that every system refuses to send.
type unsupported string

func (u unsupported) String() string { return string(u) }
func (unsupported) Signal()          {}

func childAttr() *syscall.SysProcAttr { return nil }

func killGroup(p *os.Process) error { return p.Kill() }

func stopped(int) bool { return true }

func exited(*os.Process) bool { return false }

func alive(int) bool { return true }
