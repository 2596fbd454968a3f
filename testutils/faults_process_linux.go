package testutils

import (
	"os"
	"runtime"
	"syscall"
)

// lockThread keeps the check on its thread: the kernel, which kills a child with
// its parent, means by that the thread that started it.
func lockThread(r *rig) {
	runtime.LockOSThread()
	r.Cleanup(runtime.UnlockOSThread)
}

// dieWithParent makes the kernel kill a child when the test ends in whatever way:
// a process that is stopped would stay for ever.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// suspend stops a process, as a hypervisor or a debugger does.
func suspend(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// resume lets it go on.
func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
