package inside

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// newNamespaces are the flags of clone that would make a namespace. CLONE_NEWTIME is not
// among them: in clone its bit belongs to the exit signal; only clone3 and unshare know it.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Software that calls something as young as Linux 5.1 or younger also knows how to do
// without, if it is told ENOSYS; many programs take EPERM for a fatal error. The calls of that age
// have numbers from firstYoungSyscall on, the same on all machines.
const firstYoungSyscall = 424

// conditionalSyscalls are allowed if any of the lists of conditions for a name holds.
func conditionalSyscalls() []seccomp.NameWithConditions {
	argument := func(n uint32, op seccomp.Operation, value uint64) seccomp.Condition {
		return seccomp.Condition{Argument: n, Operation: op, Value: value}
	}
	allow := func(name string, c ...seccomp.Condition) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: c}
	}
	// The limit of core dumps may be read but not changed: see fixedLimits. The kernel takes the
	// lower half of a resource's number only, so what has anything in the upper half is refused.
	const lastResource = 15
	notCore := func(n uint32) []seccomp.Condition {
		return []seccomp.Condition{argument(n, seccomp.LessOrEqual, lastResource), argument(n, seccomp.NotEqual, unix.RLIMIT_CORE)}
	}
	all := []seccomp.NameWithConditions{
		allow("setrlimit", notCore(0)...),
		allow("prlimit64", notCore(1)...),
		allow("prlimit64", argument(2, seccomp.Equal, 0)),
		allow("clone", argument(0, seccomp.BitsNotSet, newNamespaces)),
		allow("socketpair", argument(0, seccomp.Equal, unix.AF_UNIX)),
		allow("socket", argument(0, seccomp.Equal, unix.AF_UNIX)),
		allow("socket", argument(0, seccomp.Equal, unix.AF_INET)),
		allow("socket", argument(0, seccomp.Equal, unix.AF_INET6)),
		// getifaddrs of every libc asks here. The network namespace holds nothing but lo.
		allow("socket", argument(0, seccomp.Equal, unix.AF_NETLINK), argument(2, seccomp.Equal, unix.NETLINK_ROUTE)),
	}
	// Linux, Linux without address randomisation (debuggers, old Lisps), and "tell me".
	for _, v := range []uint64{0, 0x0040000, 0xffffffff} {
		all = append(all, allow("personality", argument(0, seccomp.Equal, v)))
	}
	return all
}

// buildFilter compiles the policy: calls of another machine's numbering (32 bit, x32) and
// all that are not listed are refused.
func buildFilter() ([]bpf.RawInstruction, error) {
	machine, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("build syscall filter: %w", err)
	}
	conditional := conditionalSyscalls()
	known := func(name string) bool {
		return slices.Contains(allowedSyscalls, name) ||
			slices.ContainsFunc(conditional, func(c seccomp.NameWithConditions) bool { return c.Name == name })
	}
	highest := 0
	var young []string
	for name, number := range machine.SyscallNames {
		highest = max(highest, number)
		if number >= firstYoungSyscall && !known(name) {
			young = append(young, name)
		}
	}
	slices.Sort(young)
	allowed := slices.DeleteFunc(slices.Clone(allowedSyscalls), func(name string) bool {
		_, exists := machine.SyscallNames[name]
		return !exists // open, fork and their like exist on older machines only
	})
	policy := seccomp.Policy{
		DefaultAction: seccomp.ActionErrno, // EPERM
		Syscalls: []seccomp.SyscallGroup{
			{Names: allowed, NamesWithCondtions: conditional, Action: seccomp.ActionAllow},
			{Names: young, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)},
		},
	}
	listed, err := policy.Assemble()
	if err != nil {
		return nil, fmt.Errorf("build syscall filter: %w", err)
	}
	// The compiler's table ends somewhere; the kernel's goes on.
	instructions := append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 4}, // the number of the call
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(highest), SkipFalse: 1},
		bpf.RetConstant{Val: uint32(seccomp.ActionErrno) | uint32(unix.ENOSYS)},
	}, listed...)
	raw, err := bpf.Assemble(instructions)
	if err != nil {
		return nil, fmt.Errorf("build syscall filter: %w", err)
	}
	return raw, nil
}

// encodeFilter lays the instructions out as struct sock_filter, in the machine's byte order.
func encodeFilter(instructions []bpf.RawInstruction) []byte {
	var b []byte
	for _, i := range instructions {
		b = binary.NativeEndian.AppendUint16(b, i.Op)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}
