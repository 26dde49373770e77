// Package inside makes the two programs that live inside every native sandbox, and what they are
// told.
//
// The keeper is the first process of a sandbox's process namespace. It mounts /proc (only
// a process inside the namespace can), collects the orphans, and waits for the end of its
// connection to the worker. When it ends, for whatever reason, the kernel ends everything in the
// namespace: that is how a killed worker takes all its sandboxes along. A signal at the worker's
// death (PR_SET_PDEATHSIG) would not do: it is sent when the parent thread ends, and ours end at once.
//
// The starter is the process that becomes the customer's program. It has given everything up
// before it hears what to execute; between that message and execve there is nothing
// but dup3, chdir and a resource limit.
//
// It starts no process; package native does. Invariant: what is given up is given up by the
// process itself, in one order, written down once (privileges.drop). An attacker
// controls path, arguments, variables and directory of a command, and nothing else.
package inside

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cloister/sandbox/native/internal/program"
)

// Descriptors of the helpers' connections to the worker. No other descriptor is open.
const (
	KeeperControl  = 0
	StarterControl = program.ReportTo
)

// Messages between the worker and the helpers.
const (
	Go    = "continue" // to the keeper: the root is in place
	Ready = "r"        // from both: all privileges are gone
)

// maxCommandBytes bounds path, arguments and variables of one process. Lambda allows 4 KiB
// of variables; ours and the runtime's own add little.
const maxCommandBytes = 128 << 10

// commandHeader is what a command begins with: four addresses and the limit of open files.
const commandHeader = 4*8 + 2*8

// A Set is both programs.
type Set struct {
	Keeper, Starter           *program.Builder
	KeeperImage, StarterImage []byte // executables

	command program.Address // where a command lies in a starter's memory
}

// Build makes the programs. keeperUID is a user that owns nothing and runs nothing else.
func Build(keeperUID int) (*Set, error) {
	instructions, err := buildFilter()
	if err != nil {
		return nil, err
	}
	lastCapability, err := readLastCapability()
	if err != nil {
		return nil, err
	}
	p := privileges{filter: encodeFilter(instructions), filterLength: len(instructions), lastCapability: lastCapability}
	s := &Set{}
	s.Keeper = buildKeeper(p, keeperUID)
	s.Starter, s.command = buildStarter(p)
	var keeperErr, starterErr error
	s.KeeperImage, keeperErr = s.Keeper.Image()
	s.StarterImage, starterErr = s.Starter.Image()
	return s, errors.Join(keeperErr, starterErr)
}

// Identity is the message that tells a starter which user to become.
func Identity(uid, gid int) []byte {
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, uint32(uid)), uint32(gid))
}

// FailureOf reads a starter's answer to a command that could not be executed.
func FailureOf(answer []byte) (unix.Errno, bool) {
	if len(answer) != 4 {
		return 0, false
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(answer))), true
}

func buildKeeper(p privileges, uid int) *program.Builder {
	b := new(program.Builder)
	message := b.Reserve(len(Go))
	c := program.Const[int]
	b.Call(program.Exit, "close_range", unix.SYS_CLOSE_RANGE, c(KeeperControl+1), c(1<<32-1), c(0))
	b.Call(program.ExitIfNone, "wait for the root", unix.SYS_READ, c(KeeperControl), program.Pointer(message), c(len(Go)))
	b.Call(program.Exit, "chdir", unix.SYS_CHDIR, b.String("/"))
	name := b.String("proc")
	// hidepid=2: a process sees those of its own user only, so not the keeper.
	b.Call(program.Exit, "mount /proc", unix.SYS_MOUNT, name, b.String("/proc"), name,
		c(unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC), b.String("hidepid=2"))
	// An ignored SIGCHLD makes the kernel collect orphans without waking us.
	b.Call(program.Exit, "ignore SIGCHLD", unix.SYS_RT_SIGACTION, c(int(unix.SIGCHLD)), b.Data(signalAction(1)), c(0), c(8))
	p.drop(b, c(uid), c(uid))
	b.Call(program.Exit, "report ready", unix.SYS_WRITE, c(KeeperControl), b.String(Ready), c(len(Ready)))
	b.Call(program.ExitIfNone, "wait for the end", unix.SYS_READ, c(KeeperControl), program.Pointer(message), c(len(Go)))
	b.Exit(0)
	return b
}

func buildStarter(p privileges) (*program.Builder, program.Address) {
	b := new(program.Builder)
	c := program.Const[int]
	identity := b.Reserve(8) // uid, gid

	b.Call(program.Exit, "close on exec", unix.SYS_FCNTL, c(StarterControl), c(unix.F_SETFD), c(unix.FD_CLOEXEC))
	b.Call(program.Exit, "close_range", unix.SYS_CLOSE_RANGE, c(StarterControl+1), c(1<<32-1), c(0))
	// The worker moves us into the sandbox's control groups before it answers.
	b.Call(program.ExitIfNone, "wait for the identity", unix.SYS_READ, c(StarterControl), program.Pointer(identity), c(8))
	// From here on /proc/self/cgroup says "/".
	b.Call(program.Exit, "unshare cgroup", unix.SYS_UNSHARE, c(unix.CLONE_NEWCGROUP))
	b.Call(program.Exit, "setsid", unix.SYS_SETSID)
	b.Call(program.Exit, "umask", unix.SYS_UMASK, c(0o022))
	defaultAction := b.Data(signalAction(0))
	for s := 1; s <= 64; s++ { // a worker that was started with nohup ignores some, and other parents real-time ones
		if s != int(unix.SIGKILL) && s != int(unix.SIGSTOP) {
			b.Call(program.Exit, "default signal", unix.SYS_RT_SIGACTION, c(s), defaultAction, c(0), c(8))
		}
	}
	b.Call(program.Exit, "unblock signals", unix.SYS_RT_SIGPROCMASK, c(unix.SIG_SETMASK), b.Data(make([]byte, 8)), c(0), c(8))
	// The sandbox's own null device, so that no descriptor leads to a file of the host.
	b.Call(program.Exit, "open /dev/null", unix.SYS_OPENAT, c(unix.AT_FDCWD), b.String("/dev/null"), c(unix.O_RDWR), c(0)) // is 0, for it was closed
	b.Call(program.Exit, "null as standard output", unix.SYS_DUP3, c(0), c(1), c(0))
	b.Call(program.Exit, "null as standard error", unix.SYS_DUP3, c(0), c(2), c(0))
	for _, l := range fixedLimits {
		value := l.value
		// Where the host allows less, less it is: raising a limit is a privilege.
		if current := (unix.Rlimit{}); unix.Getrlimit(l.resource, &current) == nil {
			value = min(value, current.Max)
		}
		b.Call(program.Exit, "set limit", unix.SYS_PRLIMIT64, c(0), c(l.resource), b.Data(encodeLimit(value, value)), c(0))
	}
	b.Call(program.Exit, "set timer slack", unix.SYS_PRCTL, c(unix.PR_SET_TIMERSLACK), c(int(timerSlack)), c(0), c(0), c(0))
	// A function has its share of the processors, but its waking takes none away from whoever runs: on a full machine
	// the service first finishes what it is at, and hands over several events at a time.
	b.Call(program.Exit, "schedule as a batch", unix.SYS_SCHED_SETSCHEDULER, c(0), c(unix.SCHED_BATCH), b.Data(make([]byte, 4)))
	p.drop(b, program.Word(identity), program.Word(identity+4))
	b.Call(program.Exit, "report ready", unix.SYS_WRITE, c(StarterControl), b.String(Ready), c(len(Ready)))
	return b, appendCommandLoop(b)
}

// appendCommandLoop adds the part of the starter that runs when the command comes, and returns
// where the command will lie. It runs without any privilege.
func appendCommandLoop(b *program.Builder) program.Address {
	c := program.Const[int]
	const controlSize = unix.SizeofCmsghdr + 8 // two descriptors
	control := b.Reserve(controlSize)
	vector := b.Reserve(16) // struct iovec
	header := b.Reserve(56) // struct msghdr
	command := b.Reserve(maxCommandBytes)
	b.Store(vector, uint32(command))
	b.Store(vector+8, maxCommandBytes)
	b.Store(header+16, uint32(vector))
	b.Store(header+24, 1)
	b.Store(header+32, uint32(control))
	b.Store(header+40, controlSize)
	b.Call(program.ExitIfNone, "wait for the command", unix.SYS_RECVMSG, c(StarterControl), program.Pointer(header), c(unix.MSG_CMSG_CLOEXEC))
	descriptors := control + unix.SizeofCmsghdr
	b.Call(program.ReportErrno, "standard output", unix.SYS_DUP3, program.Word(descriptors), c(1), c(0))
	b.Call(program.ReportErrno, "standard error", unix.SYS_DUP3, program.Word(descriptors+4), c(2), c(0))
	b.Call(program.ReportErrno, "limit open files", unix.SYS_PRLIMIT64, c(0), c(unix.RLIMIT_NOFILE), program.Pointer(command+32), c(0))
	b.Call(program.ReportErrno, "chdir", unix.SYS_CHDIR, program.Quad(command+24))
	b.Call(program.ReportErrno, "execve", unix.SYS_EXECVE, program.Quad(command), program.Quad(command+8), program.Quad(command+16))
	return command
}

// timerSlack is how much later than asked for a function may be woken, unless it asks for less itself. Go's runtime looks
// after its threads every 20 µs; with the kernel's 50 µs of slack those wake-ups, four for each warm
// invocation, took a twentieth of a full machine.
const timerSlack = 250 * time.Microsecond

// fixedLimits hold for every process. Processes and memory are limited by control groups.
var fixedLimits = []struct {
	resource int
	value    uint64
}{
	// A core dump would hand memory with secrets to the host. 0 does not prevent it where the host
	// pipes dumps into a program of its own; 1 does both (Linux fs/coredump.c). The filter
	// keeps a function from changing it.
	{unix.RLIMIT_CORE, 1},
	{unix.RLIMIT_MEMLOCK, 64 << 10}, // as in Lambda
	{unix.RLIMIT_MSGQUEUE, 819200},  // the kernel's default
	{unix.RLIMIT_NICE, 0},
	{unix.RLIMIT_RTPRIO, 0},
	{unix.RLIMIT_SIGPENDING, 4096},
}

// privileges is what both helpers give up, in which order, and with what.
type privileges struct {
	filter         []byte
	filterLength   int
	lastCapability int
}

// drop gives everything up. The order matters: capabilities leave the bounding set while we
// still may take them out; groups go before the user, for afterwards we could not; the filter is last,
// because it refuses some of the calls before it, and needs no_new_privs.
func (p privileges) drop(b *program.Builder, uid, gid program.Operand) {
	c := program.Const[int]
	for capability := range p.lastCapability + 1 {
		b.Call(program.Exit, "drop capability "+strconv.Itoa(capability), unix.SYS_PRCTL, c(unix.PR_CAPBSET_DROP), c(capability), c(0), c(0), c(0))
	}
	b.Call(program.Exit, "clear ambient capabilities", unix.SYS_PRCTL, c(unix.PR_CAP_AMBIENT), c(unix.PR_CAP_AMBIENT_CLEAR_ALL), c(0), c(0), c(0))
	b.Call(program.Exit, "setgroups", unix.SYS_SETGROUPS, c(0), c(0))
	b.Call(program.Exit, "setresgid", unix.SYS_SETRESGID, gid, gid, gid)
	b.Call(program.Exit, "setresuid", unix.SYS_SETRESUID, uid, uid, uid)
	capabilityHeader := binary.NativeEndian.AppendUint32(nil, unix.LINUX_CAPABILITY_VERSION_3)
	b.Call(program.Exit, "capset", unix.SYS_CAPSET, b.Data(append(capabilityHeader, make([]byte, 4)...)), b.Data(make([]byte, 24)))
	// A kernel without keyrings has nothing to leave behind.
	b.Call(program.Ignore, "new session keyring", unix.SYS_KEYCTL, c(unix.KEYCTL_JOIN_SESSION_KEYRING), c(0))
	b.Call(program.Exit, "no_new_privs", unix.SYS_PRCTL, c(unix.PR_SET_NO_NEW_PRIVS), c(1), c(0), c(0), c(0))
	filter := binary.NativeEndian.AppendUint64(nil, uint64(p.filterLength)) // struct sock_fprog
	filter = binary.NativeEndian.AppendUint64(filter, b.Data(p.filter).Value())
	b.Call(program.Exit, "seccomp", unix.SYS_SECCOMP, c(unix.SECCOMP_SET_MODE_FILTER), c(0), b.Data(filter))
}

// signalAction is the kernel's struct sigaction with nothing but a handler: 0 default, 1 ignore.
func signalAction(handler uint64) []byte {
	return append(binary.NativeEndian.AppendUint64(nil, handler), make([]byte, 24)...)
}

func encodeLimit(soft, hard uint64) []byte {
	return binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, soft), hard)
}

// A Command is what a starter executes.
type Command struct {
	Path        string
	Arguments   []string // with the name of the program first
	Environment []string
	Directory   string
	OpenFiles   int
}

// Command encodes a command for a starter: everything in it that points, points into the
// starter's memory. The error is EINVAL for a string that holds a NUL byte, E2BIG above
// maxCommandBytes.
func (s *Set) Command(c Command) ([]byte, error) {
	if slices.ContainsFunc(slices.Concat([]string{c.Path, c.Directory}, c.Arguments, c.Environment), func(s string) bool {
		return strings.IndexByte(s, 0) >= 0
	}) {
		return nil, unix.EINVAL
	}
	argumentVector := uint64(s.command) + commandHeader
	environmentVector := argumentVector + uint64(8*(len(c.Arguments)+1))
	next := environmentVector + uint64(8*(len(c.Environment)+1))
	var texts []byte
	place := func(s string) uint64 {
		at := next
		texts = append(append(texts, s...), 0)
		next += uint64(len(s)) + 1
		return at
	}
	word := binary.NativeEndian.AppendUint64
	b := word(nil, place(c.Path))
	b = word(b, argumentVector)
	b = word(b, environmentVector)
	b = word(b, place(c.Directory))
	b = append(b, encodeLimit(uint64(c.OpenFiles), uint64(c.OpenFiles))...)
	for _, list := range [][]string{c.Arguments, c.Environment} {
		for _, s := range list {
			b = word(b, place(s))
		}
		b = word(b, 0)
	}
	if b = append(b, texts...); len(b) > maxCommandBytes {
		return nil, unix.E2BIG
	}
	return b, nil
}

func readLastCapability() (int, error) {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, fmt.Errorf("find the last capability: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 || n > 63 {
		return 0, fmt.Errorf("find the last capability: %q is not a number from 0 to 63", b)
	}
	return n, nil
}
