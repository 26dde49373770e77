// Package sandbox is the contract between the worker and the technologies that
// close an execution environment off: native (namespaces, cgroups, seccomp) today, gVisor and
// microVMs behind the same methods later. Package sandbox/sandboxtest is the suite that every
// backend must pass.
//
// It knows processes, file system images and limits. It does not know functions, the Runtime
// API's protocol, artifacts or accounts; package worker does. Only package worker calls it.
//
// Life of a sandbox: Park makes one without customer code (slow, done ahead of demand);
// Attach binds it to one function version, for life; Start runs a process in it; Freeze and
// Thaw stop and continue everything inside; Destroy ends it. What runs inside is hostile from
// its first instruction.
package sandbox

import (
	"context"
	"net"
	"os"
	"time"
)

// Level orders backends by strength. Package cmd compares it with --minimum-isolation.
type Level int

// The isolation levels, weakest first.
const (
	Native Level = iota + 1
	GVisor
	MicroVM
)

// String returns the level as flags and the ready line spell it.
func (l Level) String() string {
	return [...]string{"none", "native", "gvisor", "microvm"}[l]
}

// An Image is a plain EROFS file system image in a file that only this process can
// reach (a sealed memfd, or a cached runtime image). A backend may keep one mount of it and share
// that between sandboxes that name the same Key; a Key of customer code holds the account
// id, so no mount of code is ever shared between accounts.
type Image struct {
	Key  string
	File *os.File // borrowed until Park or Attach returns; the backend keeps its own reference
	Size int64
}

// A Mount puts an image at a directory of the sandbox, read-only, nosuid, nodev.
type Mount struct {
	Target string // absolute; the directory must exist in the root image
	Image  Image
}

// Class is what a parked sandbox is made for.
type Class struct {
	Root         Image // the whole root: minimal user space and runtime. Read-only
	Mounts       []Mount
	EphemeralMiB int // size of /tmp
}

// Limits hold for all processes in the sandbox together, but OpenFiles for each one.
type Limits struct {
	MemoryMiB int
	CPU       float64 // vCPUs; 0.07 = 7 % of one
	Processes int     // processes and threads
	OpenFiles int
}

// Process is a command to start in a sandbox.
type Process struct {
	Path   string // absolute, inside the sandbox
	Args   []string
	Env    []string
	Dir    string
	Stdout *os.File // pipes; borrowed until Start returns
	Stderr *os.File
}

// Exit says how a process ended.
type Exit struct {
	Code        int  // exit status, -1 if killed by a signal
	Signal      int  // 0 if none
	OutOfMemory bool // the sandbox's memory limit killed it or one of its children
}

// Usage is a reading of the sandbox's counters.
type Usage struct {
	MemoryPeakBytes  int64 // greatest since Attach
	CPU              time.Duration
	OutOfMemoryKills int64
}

// Running is a started process.
type Running interface {
	// Wait blocks until the process has ended; it may be called many times.
	Wait() Exit
	// Done is closed when the process has ended.
	Done() <-chan struct{}
}

// Sandbox is one closed environment. Its methods may be called concurrently unless they
// say otherwise. After Destroy every method but Destroy returns an error.
type Sandbox interface {
	// ID names the sandbox in logs and on the host (cgroup, mounts).
	ID() string

	// RuntimeAPI accepts connections made inside to RuntimeAPIAddress; Services those
	// made to ServicesAddress. Nothing else inside can connect to anything. Both are closed
	// by Destroy.
	RuntimeAPI() net.Listener
	RuntimeAPIAddress() string // "169.254.100.1:9001", or "127.0.0.1:9001"
	Services() net.Listener
	ServicesAddress() string

	// Attach mounts the images and sets the limits, which are in force before any process
	// runs. It may be called once.
	Attach(ctx context.Context, mounts []Mount, l Limits) error

	// SetCPU changes the CPU share of Limits from now on. The worker lifts it while a
	// runtime initializes, as AWS does, and sets it back before the first event.
	SetCPU(vCPUs float64) error

	// Start runs a process as the sandbox's own unprivileged user.
	Start(ctx context.Context, p Process) (Running, error)

	// KillAll ends every process that Start has started and their descendants and waits
	// for them; the sandbox, with its /tmp, stays usable. A frozen sandbox is thawed.
	KillAll(ctx context.Context) error

	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	Usage() (Usage, error)
	// MemoryPeak is Usage's MemoryPeakBytes alone, which is read after each invocation.
	MemoryPeak() (int64, error)

	// Destroy ends every process and removes every trace on the host. It is idempotent.
	Destroy(ctx context.Context) error
}

// Backend makes sandboxes of one technology.
type Backend interface {
	Level() Level

	// SelfTest runs a program in a real sandbox whose answer depends on a fresh nonce.
	// The error says what the host lacks and how to get it.
	SelfTest(ctx context.Context) error

	// Park makes a sandbox without customer code.
	Park(ctx context.Context, c Class) (Sandbox, error)

	// Sweep removes what an earlier, killed process of the same installation left behind.
	// It must be called before the first Park.
	Sweep(ctx context.Context) error

	// Close releases shared mounts. All sandboxes must have been destroyed.
	Close() error
}
