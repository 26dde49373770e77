//go:build amd64

package inside

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// decide runs the filter over a call as the kernel would. The virtual machine reads big-endian
// words, as of a packet; the kernel reads the machine's own.
func decide(t *testing.T, vm *bpf.VM, machine uint32, number uint32, arguments ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data, number)
	binary.BigEndian.PutUint32(data[4:], machine)
	for i, a := range arguments {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(a>>32))
	}
	verdict, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

func newFilter(t *testing.T) (*bpf.VM, *arch.Info) {
	t.Helper()
	raw, err := buildFilter()
	if err != nil {
		t.Fatal(err)
	}
	instructions, complete := bpf.Disassemble(raw)
	if !complete {
		t.Fatal("the filter holds unknown instructions")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	machine, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	return vm, machine
}

const (
	allowed       = unix.SECCOMP_RET_ALLOW
	notPermitted  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	unimplemented = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

func TestEveryCallThatIsNotListedIsRefused(t *testing.T) {
	vm, machine := newFilter(t)
	listed := map[uint32]bool{}
	for _, name := range allowedSyscalls {
		if number, ok := machine.SyscallNames[name]; ok {
			listed[uint32(number)] = true
		}
	}
	for _, c := range conditionalSyscalls() {
		listed[uint32(machine.SyscallNames[c.Name])] = true
	}
	const machineID = uint32(unix.AUDIT_ARCH_X86_64)
	for number := range uint32(2048) {
		want := notPermitted
		if number >= firstYoungSyscall {
			want = unimplemented
		}
		if listed[number] {
			continue
		}
		if got := decide(t, vm, machineID, number, ^uint64(0), ^uint64(0), ^uint64(0)); got != want {
			t.Errorf("call %d: %#x, not %#x", number, got, want)
		}
		if got := decide(t, vm, machineID, number, 0, 0, 0); got == allowed {
			t.Errorf("call %d is allowed", number)
		}
	}
}

func TestListedCallsAreAllowedOnThisMachineOnly(t *testing.T) {
	vm, machine := newFilter(t)
	for _, name := range allowedSyscalls {
		number, ok := machine.SyscallNames[name]
		if !ok {
			t.Errorf("%s is not a system call of this machine", name)
			continue
		}
		if got := decide(t, vm, unix.AUDIT_ARCH_X86_64, uint32(number), ^uint64(0)); got != allowed {
			t.Errorf("%s: %#x", name, got)
		}
		for kind, got := range map[string]uint32{
			"x32":     decide(t, vm, unix.AUDIT_ARCH_X86_64, uint32(number)|0x40000000),
			"32 bit":  decide(t, vm, unix.AUDIT_ARCH_I386, uint32(number)),
			"aarch64": decide(t, vm, unix.AUDIT_ARCH_AARCH64, uint32(number)),
		} {
			if got == allowed {
				t.Errorf("%s is allowed as a call of %s", name, kind)
			}
		}
	}
}

func TestTheListNamesEachCallOnceAndNoneThatIsConditional(t *testing.T) {
	sorted := slices.Sorted(slices.Values(allowedSyscalls))
	for i, name := range sorted {
		if i > 0 && sorted[i-1] == name {
			t.Errorf("%s is listed twice", name)
		}
	}
	for _, c := range conditionalSyscalls() {
		if slices.Contains(allowedSyscalls, c.Name) {
			t.Errorf("%s is allowed without its condition", c.Name)
		}
	}
}

func TestConditionsAreExact(t *testing.T) {
	vm, machine := newFilter(t)
	check := func(name string, want uint32, arguments ...uint64) {
		t.Helper()
		if got := decide(t, vm, unix.AUDIT_ARCH_X86_64, uint32(machine.SyscallNames[name]), arguments...); got != want {
			t.Errorf("%s%#x: %#x, not %#x", name, arguments, got, want)
		}
	}
	const threads = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD |
		unix.CLONE_SYSVSEM | unix.CLONE_SETTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID
	check("clone", allowed, threads)
	check("clone", allowed, uint64(unix.SIGCHLD)|unix.CLONE_VFORK|unix.CLONE_VM|unix.CLONE_PIDFD)
	for _, flag := range []uint64{unix.CLONE_NEWNS, unix.CLONE_NEWCGROUP, unix.CLONE_NEWUTS, unix.CLONE_NEWIPC, unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET} {
		check("clone", notPermitted, flag)
		check("clone", notPermitted, flag|threads)
		check("clone", notPermitted, flag|1<<63) // the kernel looks at the lower half only
	}
	check("clone3", unimplemented, 0, 0)
	for family := range uint64(64) {
		want := notPermitted
		if family == unix.AF_UNIX || family == unix.AF_INET || family == unix.AF_INET6 {
			want = allowed
		}
		if family != unix.AF_NETLINK {
			check("socket", want, family, unix.SOCK_STREAM, 0)
		}
		if family != unix.AF_UNIX {
			check("socketpair", notPermitted, family, unix.SOCK_STREAM, 0)
		}
		check("socket", map[bool]uint32{true: allowed, false: notPermitted}[family == unix.NETLINK_ROUTE], unix.AF_NETLINK, unix.SOCK_RAW, family)
		check("socket", notPermitted, family|1<<32, unix.SOCK_STREAM, 0)
	}
	check("socketpair", allowed, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	const some = 1 << 40 // a pointer
	check("setrlimit", allowed, unix.RLIMIT_NOFILE, some)
	check("setrlimit", notPermitted, unix.RLIMIT_CORE, some)
	check("setrlimit", notPermitted, unix.RLIMIT_CORE|1<<32, some)
	check("setrlimit", notPermitted, unix.RLIMIT_NOFILE|1<<32, some)
	check("prlimit64", allowed, 0, unix.RLIMIT_NOFILE, some, 0)
	check("prlimit64", allowed, 0, unix.RLIMIT_CORE, 0, some)
	check("prlimit64", notPermitted, 0, unix.RLIMIT_CORE, some, some)
	check("prlimit64", notPermitted, 0, unix.RLIMIT_CORE|1<<32, some, 0)
	check("personality", allowed, 0xffffffff)
	check("personality", notPermitted, 0x0400000) // READ_IMPLIES_EXEC
}
