package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A child is a process that we are the parent of. It is followed by a descriptor, so that a
// signal never meets another process that got the same number, and no thread is spent on
// waiting.
type child struct {
	pid     int
	file    *os.File // pidfd; closed when the process has ended
	done    chan struct{}
	status  unix.WaitStatus // valid once done is closed
	control *net.UnixConn   // our end of the connection; closed by whoever holds the child
}

// startChild forks and executes path with one descriptor, the child's end of a new connection,
// at the given number; the numbers below it are closed. It must be called by the thread whose
// namespaces the child is to have. group, if not nil, is a directory of control groups, version 2,
// that the child is born into.
//
// syscall.StartProcess is used, not os.StartProcess: the latter first starts a process of
// its own to see whether descriptors of processes work. In a new process namespace that one
// would become the first process, end at once, and make every later fork fail.
func startChild(path string, control int, group *os.File) (*child, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	attributes := &syscall.ProcAttr{Files: make([]uintptr, control+1), Env: []string{}, Sys: &syscall.SysProcAttr{}}
	for i := range attributes.Files {
		attributes.Files[i] = ^uintptr(0)
	}
	attributes.Files[control] = theirs.Fd()
	if group != nil {
		attributes.Sys.UseCgroupFD, attributes.Sys.CgroupFD = true, int(group.Fd())
	}
	pidfd := -1
	attributes.Sys.PidFD = &pidfd
	pid, _, err := syscall.StartProcess(path, []string{"-"}, attributes)
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start process: %w", err)
	}
	c := &child{pid: pid, done: make(chan struct{}), control: ours}
	if pidfd < 0 || unix.SetNonblock(pidfd, true) != nil {
		ours.Close()
		return nil, errors.Join(errors.New("start process: the kernel gave no descriptor for it"), unix.Kill(pid, unix.SIGKILL))
	}
	c.file = os.NewFile(uintptr(pidfd), "pidfd")
	go c.await()
	return c, nil
}

// await collects the process when its descriptor says that it has ended. A pidfd is not
// readable in the usual sense: the poller is all that is used.
func (c *child) await() {
	defer close(c.done)
	defer c.file.Close()
	raw, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	// The only possible error is that the file is closed, which nobody but us does.
	_ = raw.Read(func(uintptr) bool {
		pid, err := unix.Wait4(c.pid, &c.status, unix.WNOHANG, nil)
		return pid != 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
}

// kill sends SIGKILL. It does not wait.
func (c *child) kill() error {
	var result error
	raw, err := c.file.SyscallConn()
	if err != nil {
		return nil // closed: it has ended
	}
	err = raw.Control(func(fd uintptr) { result = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	if err != nil || errors.Is(result, unix.ESRCH) {
		return nil
	}
	return result
}

// awaitEnd blocks until the process has ended.
func (c *child) awaitEnd(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("process %d has not ended: %w", c.pid, ctx.Err())
	}
}

// maxHelperWait bounds every wait for a word from a helper, which answers in microseconds
// unless the host is in trouble.
const maxHelperWait = 10 * time.Second

// send gives the helper a message, and files if there are any.
func (c *child) send(ctx context.Context, message []byte, files ...*os.File) error {
	if err := c.control.SetWriteDeadline(deadline(ctx)); err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		descriptors := make([]int, len(files))
		for i, f := range files {
			descriptors[i] = int(f.Fd())
		}
		rights = unix.UnixRights(descriptors...)
	}
	_, _, err := c.control.WriteMsgUnix(message, rights, nil)
	return err
}

// receive returns the helper's next message; an empty one if it has closed the connection.
func (c *child) receive(ctx context.Context) ([]byte, error) {
	if err := c.control.SetReadDeadline(deadline(ctx)); err != nil {
		return nil, err
	}
	buffer := make([]byte, 16)
	n, _, _, _, err := c.control.ReadMsgUnix(buffer, nil)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) { // reset: it ended with a message of ours unread
		return nil, nil
	}
	return buffer[:max(n, 0)], err
}

func deadline(ctx context.Context) time.Time {
	latest := time.Now().Add(maxHelperWait)
	if d, ok := ctx.Deadline(); ok && d.Before(latest) {
		return d
	}
	return latest
}

func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make connection to helper: %w", err)
	}
	theirs = os.NewFile(uintptr(pair[1]), "helper")
	file := os.NewFile(uintptr(pair[0]), "helper")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make connection to helper: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}
