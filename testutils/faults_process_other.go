//go:build !linux

package testutils

import (
	"errors"
	"os"
	"syscall"
)

// lockThread skips the check where a child would outlive a test that was killed.
func lockThread(r *rig) { r.Skip("processes are stopped on Linux only") }

func dieWithParent() *syscall.SysProcAttr { return nil }

func suspend(*os.Process) error { return errors.ErrUnsupported }

func resume(*os.Process) error { return errors.ErrUnsupported }
