package main

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An attempt is something that a sandbox must not allow.
type attempt struct {
	name string
	do   func() error
}

func call(name string, number uintptr, arguments ...uintptr) attempt {
	return attempt{name, func() error {
		var a [6]uintptr
		copy(a[:], arguments)
		_, _, errno := syscall.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			return errno
		}
		return nil
	}}
}

func pointer(s string) uintptr {
	b, _ := syscall.BytePtrFromString(s)
	pinner.Pin(b)
	return uintptr(unsafe.Pointer(b))
}

var pinner runtime.Pinner

func socket(name string, family, kind, protocol int) attempt {
	return attempt{"socket " + name, func() error {
		_, err := unix.Socket(family, kind, protocol)
		return err
	}}
}

func write(path, text string) attempt {
	return attempt{"write " + path, func() error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(text)
		}
		return err
	}}
}

// cloneInto makes a child in a new namespace that ends at once.
func cloneInto(name string, flag uintptr) attempt {
	return attempt{"clone " + name, func() error {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flag|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		if pid == 0 {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		return nil
	}}
}

// attempts that must fail, whatever the backend. Each one has been part of a way out of a container,
// changes the host, or shows it.
func attempts() []attempt {
	var none [512]byte
	zero := uintptr(unsafe.Pointer(&none))
	all := []attempt{
		call("mount", unix.SYS_MOUNT, pointer("none"), pointer("/tmp"), pointer("tmpfs"), 0, 0),
		call("remount root", unix.SYS_MOUNT, 0, pointer("/"), 0, unix.MS_REMOUNT|unix.MS_BIND, 0),
		call("umount /proc", unix.SYS_UMOUNT2, pointer("/proc"), unix.MNT_DETACH),
		call("fsopen", unix.SYS_FSOPEN, pointer("tmpfs"), 0),
		call("open_tree", unix.SYS_OPEN_TREE, ^uintptr(99), pointer("/"), unix.OPEN_TREE_CLONE),
		call("move_mount", unix.SYS_MOVE_MOUNT, ^uintptr(99), pointer("/proc"), ^uintptr(99), pointer("/tmp"), 0),
		call("pivot_root", unix.SYS_PIVOT_ROOT, pointer("/tmp"), pointer("/tmp")),
		call("chroot", unix.SYS_CHROOT, pointer("/tmp")),
		call("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(99), zero, 0),
		call("name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, ^uintptr(99), pointer("/"), zero, zero+256, 0),
		call("unshare user", unix.SYS_UNSHARE, unix.CLONE_NEWUSER),
		call("unshare mount", unix.SYS_UNSHARE, unix.CLONE_NEWNS),
		call("unshare network", unix.SYS_UNSHARE, unix.CLONE_NEWNET),
		call("unshare time", unix.SYS_UNSHARE, unix.CLONE_NEWTIME),
		call("setns", unix.SYS_SETNS, 0, 0),
		cloneInto("user", unix.CLONE_NEWUSER), cloneInto("network", unix.CLONE_NEWNET), cloneInto("mount", unix.CLONE_NEWNS),
		cloneInto("process", unix.CLONE_NEWPID), cloneInto("group", unix.CLONE_NEWCGROUP),
		call("clone3", unix.SYS_CLONE3, zero, 88),
		call("ptrace", unix.SYS_PTRACE, unix.PTRACE_TRACEME),
		call("ptrace attach", unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1),
		call("process_vm_readv", unix.SYS_PROCESS_VM_READV, 1, zero, 1, zero, 1, 0),
		call("process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, 1, zero, 1, zero, 1, 0),
		call("kcmp", unix.SYS_KCMP, 1, 1, 0, 0, 0),
		call("pidfd_getfd", unix.SYS_PIDFD_GETFD, 0, 0, 0),
		call("kill first process", unix.SYS_KILL, 1, uintptr(unix.SIGKILL)),
		call("bpf", unix.SYS_BPF, 0, zero, 72), call("keyctl", unix.SYS_KEYCTL, 0, ^uintptr(2), 1),
		call("add_key", unix.SYS_ADD_KEY, pointer("user"), pointer("x"), zero, 8, ^uintptr(2)),
		call("request_key", unix.SYS_REQUEST_KEY, pointer("user"), pointer("x"), 0, 0),
		call("userfaultfd", unix.SYS_USERFAULTFD, 1), call("io_uring_setup", unix.SYS_IO_URING_SETUP, 8, zero),
		call("perf_event_open", unix.SYS_PERF_EVENT_OPEN, zero, 0, ^uintptr(0), ^uintptr(0), 0),
		call("fanotify_init", unix.SYS_FANOTIFY_INIT, 0, 0),
		call("init_module", unix.SYS_INIT_MODULE, zero, 16, zero), call("finit_module", unix.SYS_FINIT_MODULE, 0, zero, 0),
		call("delete_module", unix.SYS_DELETE_MODULE, pointer("loop"), 0),
		call("kexec_load", unix.SYS_KEXEC_LOAD, 0, 0, zero, 0), call("kexec_file_load", unix.SYS_KEXEC_FILE_LOAD, 0, 0, 0, 0, 0),
		call("syslog", unix.SYS_SYSLOG, 3, zero, 256), call("acct", unix.SYS_ACCT, 0), call("quotactl", unix.SYS_QUOTACTL, 0, 0, 0, 0),
		call("reboot", unix.SYS_REBOOT, unix.LINUX_REBOOT_MAGIC1, unix.LINUX_REBOOT_MAGIC2, unix.LINUX_REBOOT_CMD_CAD_OFF, 0),
		call("swapon", unix.SYS_SWAPON, pointer("/tmp/x"), 0), call("swapoff", unix.SYS_SWAPOFF, pointer("/tmp/x")),
		call("sethostname", unix.SYS_SETHOSTNAME, pointer("x"), 1), call("setdomainname", unix.SYS_SETDOMAINNAME, pointer("x"), 1),
		call("settimeofday", unix.SYS_SETTIMEOFDAY, zero, 0), call("clock_settime", unix.SYS_CLOCK_SETTIME, 0, zero),
		call("clock_adjtime", unix.SYS_CLOCK_ADJTIME, 0, zero), call("adjtimex", unix.SYS_ADJTIMEX, zero),
		call("vhangup", unix.SYS_VHANGUP), call("lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE, 0, zero, 8), call("mknod device", unix.SYS_MKNODAT, ^uintptr(99), pointer("/tmp/mem"), unix.S_IFCHR|0o666, 0x101),
		call("setuid", unix.SYS_SETUID, 0), call("setgid", unix.SYS_SETGID, 0), call("setresuid", unix.SYS_SETRESUID, 0, 0, 0),
		call("setgroups", unix.SYS_SETGROUPS, 1, zero),
		call("nice", unix.SYS_SETPRIORITY, 0, 0, ^uintptr(19)),
		call("real-time scheduling", unix.SYS_SCHED_SETSCHEDULER, 0, 1, pointer("\x01\x00\x00\x00")),
	}
	return slices.Concat(all, otherAttempts(), machineAttempts(zero))
}

func otherAttempts() []attempt {
	return []attempt{
		{"raise limit of open files", func() error {
			return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1 << 19, Max: 1 << 19})
		}},
		{"change limit of core dumps", func() error {
			return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
		}},
		socket("packet", unix.AF_PACKET, unix.SOCK_RAW, 0), socket("vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0),
		socket("alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0), socket("raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		socket("netfilter", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER),
		socket("audit", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT),
		socket("uevent", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT),
		socket("xdp", unix.AF_XDP, unix.SOCK_RAW, 0), socket("tipc", unix.AF_TIPC, unix.SOCK_STREAM, 0),
		socket("rds", unix.AF_RDS, unix.SOCK_SEQPACKET, 0), socket("bluetooth", unix.AF_BLUETOOTH, unix.SOCK_RAW, 0),
		write("/proc/sysrq-trigger", "h"), write("/proc/sys/kernel/core_pattern", "|/tmp/x"), write("/proc/sys/vm/drop_caches", "1"),
		write("/proc/sys/kernel/hostname", "x"), write("/proc/1/oom_score_adj", "-1000"), write("/proc/self/uid_map", "0 0 1"),
		write("/proc/self/exe", "x"), write("/dev/kmsg", "x"), write("/sys/fs/cgroup/release_agent", "x"),
		{"read environment of first process", func() error { _, err := os.ReadFile("/proc/1/environ"); return err }},
		{"read root of first process", func() error { _, err := os.ReadDir("/proc/1/root/"); return err }},
		{"read kernel memory", func() error {
			b, err := os.ReadFile("/proc/kcore")
			if err == nil && len(b) == 0 {
				err = os.ErrPermission
			}
			return err
		}},
	}
}

// refused makes every attempt and returns those that succeeded.
func refused() any {
	if os.Geteuid() == 0 {
		return "not as root: on a host the attempts would succeed"
	}
	runtime.LockOSThread()
	succeeded := []string{}
	all := attempts()
	for _, a := range all {
		if a.do() == nil {
			succeeded = append(succeeded, a.name)
		}
	}
	return map[string]any{"Succeeded": succeeded, "Tried": len(all)}
}

// numbers makes the system calls with the given numbers, with arguments that no call can do
// anything with, and returns the error of each.
func numbers(a []string) any {
	runtime.LockOSThread()
	all := map[string]string{}
	for _, s := range a {
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return err.Error()
		}
		_, _, errno := syscall.RawSyscall6(uintptr(n), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0), ^uintptr(0))
		all[s] = "succeeded"
		if errno != 0 {
			all[s] = unix.ErrnoName(errno)
		}
	}
	return all
}
