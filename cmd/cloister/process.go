package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// File descriptors that a child process inherits from serve, after the standard three.
const (
	orderFD  = 3 // order from serve, then the word to drain; open as long as serve lives
	reportFD = 4 // reports to serve
	firstFD  = 5 // listeners
)

// A child is a front or worker process of this installation.
type child struct {
	name    string
	process *os.Process
	order   *os.File // the other end of orderFD: the child drains when told, and ends when it closes
	pipe    *os.File // the other end of reportFD
	reports *json.Decoder
	exited  chan struct{} // closed when the process has ended; state is set
	state   *os.ProcessState
}

// spawn starts this same binary in another role. order is its configuration, sent through a pipe
// because it holds secrets, which must not stand in arguments or environment. prepare runs on
// the thread that will fork, so that the child inherits what it changes: namespaces, privileges.
func spawn(name string, order any, prepare func() error, attributes *syscall.SysProcAttr, inherited ...*os.File) (*child, error) {
	orderRead, orderWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer orderRead.Close()
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		orderWrite.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer reportWrite.Close()
	files := append([]*os.File{nil, os.Stderr, os.Stderr, orderRead, reportWrite}, inherited...)
	process, err := startOnThread(prepare, "/proc/self/exe", []string{"cloister", name}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
		Files: files,
		Sys:   attributes,
	})
	if err != nil {
		orderWrite.Close()
		reportRead.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, process: process, order: orderWrite, pipe: reportRead, reports: json.NewDecoder(reportRead), exited: make(chan struct{})}
	go func() {
		c.state, _ = process.Wait()
		close(c.exited)
	}()
	if err := json.NewEncoder(orderWrite).Encode(order); err != nil {
		c.stop(0)
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// startOnThread forks from a thread of its own that prepare has changed and that ends with
// the goroutine, so that no other goroutine ever runs on it.
func startOnThread(prepare func() error, path string, args []string, attributes *os.ProcAttr) (process *os.Process, err error) {
	var done sync.WaitGroup
	done.Go(func() {
		if prepare != nil {
			runtime.LockOSThread() // never unlocked: the thread is thrown away
			if err = prepare(); err != nil {
				return
			}
		}
		process, err = os.StartProcess(path, args, attributes)
	})
	done.Wait()
	return process, err
}

// drainWord follows the order in its pipe when the child is to drain and end.
const drainWord = "\"drain\"\n"

// stop asks the child to drain and end, waits, and ends it for certain.
func (c *child) stop(patience time.Duration) {
	c.order.WriteString(drainWord) // fails if the child has ended already
	c.order.Close()
	select {
	case <-c.exited:
	case <-time.After(patience):
		c.process.Kill()
		<-c.exited
	}
	c.pipe.Close()
}

// errAbandoned is the cause with which a child's context ends if serve is gone without a word.
var errAbandoned = errors.New("the serve process is gone")

// receiveOrder is the child's side: it reads its configuration. The context ends when serve says so or
// is gone, however it ended, and its cause tells which. That and no signal is the order to drain, because
// a signal to the whole service (systemd sends one) reaches front and worker at once, and the worker must
// outlast the calls that the front drains.
func receiveOrder(ctx context.Context, order any) (_ context.Context, report func(any) error, err error) {
	if err := hardenProcess(); err != nil {
		return nil, nil, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(orderFD, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, nil, errors.New("this command is started by \"cloister serve\" and cannot be run by hand")
	}
	// No process that this one starts may inherit what serve gave it. Kernels before 5.11 know the call
	// but not the flag.
	if err := unix.CloseRange(orderFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		for fd := orderFD; fd < 256; fd++ {
			syscall.CloseOnExec(fd)
		}
	}
	unix.Umask(0o077)
	orders := json.NewDecoder(os.NewFile(orderFD, "order"))
	if err := orders.Decode(order); err != nil {
		return nil, nil, fmt.Errorf("read order: %w", err)
	}
	ctx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	go func() {
		var word string
		if orders.Decode(&word) == nil {
			end(nil)
			return
		}
		end(errAbandoned)
	}()
	reports := os.NewFile(reportFD, "reports")
	return ctx, json.NewEncoder(reports).Encode, nil
}

// failureReport is a child's last report: why it ends.
type failureReport struct{ Error string }

// errReported ends a child whose error serve has been told and will print.
var errReported = errors.New("reported to serve")

// runChild is the life of a child: it takes its order, works, and tells serve why it failed.
func runChild[Order any](ctx context.Context, run func(context.Context, Order, func(any) error) error) error {
	var order Order
	ctx, report, err := receiveOrder(ctx, &order)
	if err != nil {
		return err
	}
	go returnMemory(ctx, quietInterval)
	if err = run(ctx, order, report); err != nil && report(failureReport{err.Error()}) == nil {
		return errReported
	}
	return err
}

// hardenProcess keeps the process's memory, which holds keys, out of core dumps and away from
// debuggers of the same user.
func hardenProcess() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

// orphanPatience is how long the processes of a serve that was killed may take to end.
const orphanPatience = workerPatience + 5*time.Second

// awaitOrphans waits until front and worker of an earlier serve, which was killed, have ended: they hold the
// state and the sandboxes.
func (in *installation) awaitOrphans() error {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		open, err := in.socketIsOpen()
		if err != nil || !open {
			return err
		}
		if time.Since(began) > orphanPatience {
			return fmt.Errorf("\"cloister front\" or \"cloister worker\" of an earlier serve on %s does not end: kill it, then start again", in.directory)
		}
	}
}

// socketIsOpen says whether a process has one of the installation's sockets open. The kernel is asked, and not the
// process, which may have stopped answering.
func (in *installation) socketIsOpen() (bool, error) {
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false, fmt.Errorf("look for processes of an earlier serve: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if path := fields[len(fields)-1]; path == in.socket("front") || path == in.socket("worker") {
			return true, nil
		}
	}
	return false, nil
}

// listenUnix opens a socket in the installation's run directory.
func (in *installation) listenUnix(name string, uid int) (*os.File, error) {
	path := in.socket(name)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		f.Close()
		return nil, fmt.Errorf("open socket %s: %w", path, err)
	}
	// Only root and the front may connect at all; who they are the certificates prove.
	err = errors.Join(os.Chown(path, uid, uid), os.Chmod(path, 0o600), unix.Listen(fd, 512))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open socket %s: %w", path, err)
	}
	return f, nil
}

func (in *installation) socket(name string) string { return filepath.Join(in.run, name+".sock") }
