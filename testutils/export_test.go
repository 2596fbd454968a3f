package testutils

import "time"

// HurryUp makes the checks give up early, for a process in which they have to fail.
func HurryUp() { patience, soon = 3*time.Second, 2*time.Second }
