package native

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cloister/artifact/erofs"
	"cloister/sandbox"
	"cloister/sandbox/native/internal/program"
)

const (
	nonceBytes      = 32
	selfTestDone    = 254 // exit status of the program when it has come to its end
	selfTestTimeout = 30 * time.Second
	selfTestPath    = "/selftest"
)

// SelfTest runs a program in a sandbox like any other. It fetches a nonce from one listener, takes
// it through a file in /tmp and gives it to the other; on the way it tries what must not succeed.
// Meanwhile we ask the kernel what the process may do and which limits it has.
func (b *Backend) SelfTest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, selfTestTimeout)
	defer cancel()
	if err := b.selfTest(ctx); err != nil {
		return fmt.Errorf("self-test of the native sandbox: %w", err)
	}
	return nil
}

func (b *Backend) selfTest(ctx context.Context) (err error) {
	test := selfTestProgram()
	image, err := selfTestImage(ctx, test)
	if err != nil {
		return err
	}
	defer image.File.Close()
	s, err := b.Park(ctx, sandbox.Class{Root: image, EphemeralMiB: minEphemeralMiB})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Destroy(context.WithoutCancel(ctx))) }()
	c := s.(*cell)
	limits := sandbox.Limits{MemoryMiB: 64, CPU: 0.5, Processes: 16, OpenFiles: 64}
	if err := s.Attach(ctx, nil, limits); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	// Whatever goes wrong below, the listeners do not wait for ever.
	stop := context.AfterFunc(ctx, func() { s.RuntimeAPI().Close(); s.Services().Close() })
	defer stop()
	process, err := s.Start(ctx, sandbox.Process{Path: selfTestPath, Stdout: null, Stderr: null})
	if err != nil {
		return err
	}
	c.mu.Lock()
	pid := c.processes[0].child.pid
	c.mu.Unlock()
	go func() { // a program that ends too early does not connect any more
		if process.Wait().Code != selfTestDone {
			s.RuntimeAPI().Close()
			s.Services().Close()
		}
	}()
	talk := exchangeNonce(s, func() error { return c.inspect(pid, limits) })
	if exit := process.Wait(); exit.Code != selfTestDone {
		return errors.Join(fmt.Errorf("the program ended at %q (%+v)", test.StepName(exit.Code), exit), talk)
	}
	return talk
}

// selfTestProgram is what runs inside, as any customer's program would.
func selfTestProgram() *program.Builder {
	b := new(program.Builder)
	c := program.Const[int]
	nonce, null, here := b.Reserve(nonceBytes), c(0), c(unix.AT_FDCWD)
	b.Call(program.ExitIfAllowed, "file in the root", unix.SYS_OPENAT, here, b.String("/file"), c(unix.O_CREAT|unix.O_WRONLY), c(0o600))
	b.Call(program.ExitIfAllowed, "mount", unix.SYS_MOUNT, b.String("none"), b.String("/tmp"), b.String("tmpfs"), null, null)
	b.Call(program.ExitIfAllowed, "unshare user namespace", unix.SYS_UNSHARE, c(unix.CLONE_NEWUSER))
	b.Call(program.ExitIfAllowed, "clone user namespace", unix.SYS_CLONE, c(unix.CLONE_NEWUSER|int(unix.SIGCHLD)), null, null, null, null)
	b.Call(program.ExitIfAllowed, "setuid", unix.SYS_SETUID, c(0))
	b.Call(program.ExitIfAllowed, "chroot", unix.SYS_CHROOT, b.String("/tmp"))
	b.Call(program.ExitIfAllowed, "ptrace", unix.SYS_PTRACE, c(unix.PTRACE_TRACEME), null, null, null)
	b.Call(program.ExitIfAllowed, "bpf", unix.SYS_BPF, null, null, null)
	b.Call(program.ExitIfAllowed, "kill first process", unix.SYS_KILL, c(1), c(int(unix.SIGKILL)))
	b.Call(program.ExitIfAllowed, "vsock", unix.SYS_SOCKET, c(unix.AF_VSOCK), c(unix.SOCK_STREAM), c(0))
	b.Call(program.ExitIfAllowed, "write to /proc/sys", unix.SYS_OPENAT, here, b.String("/proc/sys/kernel/hostname"), c(unix.O_WRONLY), null)

	api := connect(b, "runtime API", runtimeAPIAddress)
	b.Call(program.ExitIfNone, "receive nonce", unix.SYS_READ, program.Word(api), program.Pointer(nonce), c(nonceBytes))
	file := b.Reserve(4)
	b.Call(program.Exit, "open file in /tmp", unix.SYS_OPENAT, here, b.String("/tmp/nonce"), c(unix.O_CREAT|unix.O_RDWR), c(0o600))
	b.Keep(file)
	b.Call(program.ExitIfNone, "write to /tmp", unix.SYS_PWRITE64, program.Word(file), program.Pointer(nonce), c(nonceBytes), null)
	copied := b.Reserve(nonceBytes)
	b.Call(program.ExitIfNone, "read from /tmp", unix.SYS_PREAD64, program.Word(file), program.Pointer(copied), c(nonceBytes), null)
	services := connect(b, "services", servicesAddress)
	b.Call(program.ExitIfNone, "send nonce", unix.SYS_WRITE, program.Word(services), program.Pointer(copied), c(nonceBytes))
	b.Exit(selfTestDone)
	return b
}

// connect appends a connection to an IPv4 address and returns where its descriptor is.
func connect(b *program.Builder, name string, to netip.AddrPort) program.Address {
	c := program.Const[int]
	address := []byte{unix.AF_INET, 0, byte(to.Port() >> 8), byte(to.Port())} // struct sockaddr_in
	address = append(address, to.Addr().AsSlice()...)
	address = append(address, make([]byte, unix.SizeofSockaddrInet4-len(address))...)
	fd := b.Reserve(4)
	b.Call(program.Exit, "socket for "+name, unix.SYS_SOCKET, c(unix.AF_INET), c(unix.SOCK_STREAM), c(0))
	b.Keep(fd)
	b.Call(program.Exit, "connect to "+name, unix.SYS_CONNECT, program.Word(fd), b.Data(address), c(len(address)))
	return fd
}

// selfTestImage puts the program into a root image. The caller closes the file.
func selfTestImage(ctx context.Context, test *program.Builder) (sandbox.Image, error) {
	executable, err := test.Image()
	if err != nil {
		return sandbox.Image{}, err
	}
	fd, err := unix.MemfdCreate("selftest", unix.MFD_CLOEXEC)
	if err != nil {
		return sandbox.Image{}, err
	}
	file := os.NewFile(uintptr(fd), "selftest")
	size, err := erofs.Build(ctx, file, []erofs.Entry{
		{Path: "dev", Mode: fs.ModeDir | 0o755}, {Path: "proc", Mode: fs.ModeDir | 0o755}, {Path: "tmp", Mode: fs.ModeDir | 0o755},
		{Path: selfTestPath[1:], Mode: 0o755, Size: int64(len(executable)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(executable)), nil }},
	})
	if err != nil {
		return sandbox.Image{}, errors.Join(err, file.Close())
	}
	return sandbox.Image{Key: "selftest-" + newID(), File: file, Size: size}, nil
}

// exchangeNonce is the worker's side of the test. inspect is called while the program waits.
func exchangeNonce(s sandbox.Sandbox, inspect func() error) error {
	nonce, answer := make([]byte, nonceBytes), make([]byte, nonceBytes)
	rand.Read(nonce) // never fails
	accept := func(l net.Listener) (net.Conn, error) {
		conn, err := l.Accept()
		if err == nil {
			err = conn.SetDeadline(time.Now().Add(selfTestTimeout))
		}
		return conn, err
	}
	api, err := accept(s.RuntimeAPI())
	if err != nil {
		return err
	}
	defer api.Close()
	inspected := inspect()
	if _, err := api.Write(nonce); err != nil {
		return errors.Join(inspected, err)
	}
	services, err := accept(s.Services())
	if err != nil {
		return errors.Join(inspected, err)
	}
	defer services.Close()
	if _, err := io.ReadFull(services, answer); err != nil {
		return errors.Join(inspected, err)
	}
	if !bytes.Equal(nonce, answer) {
		return errors.Join(inspected, errors.New("the answer is not the nonce"))
	}
	return inspected
}

// inspect asks the kernel about a process of the sandbox.
func (c *cell) inspect(pid int, limits sandbox.Limits) error {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return err
	}
	uid, none := strconv.Itoa(c.uid), strings.Repeat("0", 16)
	want := map[string]string{
		"Uid": strings.Join([]string{uid, uid, uid, uid}, " "), "Gid": strings.Join([]string{uid, uid, uid, uid}, " "), "Groups": "",
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2",
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		if w, asked := want[key]; asked && w == strings.Join(strings.Fields(value), " ") {
			delete(want, key)
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("/proc/%d/status does not say %v", pid, want)
	}
	return c.group.CheckLimits(groupLimits(limits), pid)
}
