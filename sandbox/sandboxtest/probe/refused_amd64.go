package main

import "golang.org/x/sys/unix"

// machineAttempts are calls that only this machine has.
func machineAttempts(zero uintptr) []attempt {
	return []attempt{
		call("modify_ldt", unix.SYS_MODIFY_LDT, 0, zero, 16),
		call("iopl", unix.SYS_IOPL, 3),
		call("ioperm", unix.SYS_IOPERM, 0, 8, 1),
	}
}
