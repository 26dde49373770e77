package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// File descriptors that a child process inherits from serve, after the standard three.
const (
	configFD = 3 // configuration from serve, then the word to drain; open as long as serve lives
	reportFD = 4 // reports to serve
	firstFD  = 5 // listeners
)

// A child is a front or worker process of this installation.
type child struct {
	name    string
	process *os.Process
	words   *os.File // the other end of configFD: the child drains when told, and ends when it closes
	pipe    *os.File // the other end of reportFD
	reports *json.Decoder
	exited  chan struct{} // closed when the process has ended; state is set
	state   *os.ProcessState
}

// spawn starts this same binary in another role. Its configuration is sent through a pipe
// because it holds secrets, which must not stand in arguments or environment. prepare runs on
// the thread that will fork, so that the child inherits what it changes: namespaces, privileges.
func spawn(name string, config any, prepare func() error, attributes *syscall.SysProcAttr, inherited ...*os.File) (*child, error) {
	configRead, configWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer configRead.Close()
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		configWrite.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer reportWrite.Close()
	files := append([]*os.File{nil, os.Stderr, os.Stderr, configRead, reportWrite}, inherited...)
	process, err := startOnThread(prepare, "/proc/self/exe", []string{"cloister", name}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
		Files: files,
		Sys:   attributes,
	})
	if err != nil {
		configWrite.Close()
		reportRead.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, process: process, words: configWrite, pipe: reportRead, reports: json.NewDecoder(reportRead), exited: make(chan struct{})}
	go func() {
		c.state, _ = process.Wait()
		close(c.exited)
	}()
	if err := json.NewEncoder(configWrite).Encode(config); err != nil {
		c.stop(0)
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// timerSlack is how much later than asked for a child may be woken. The Go scheduler has a thread that looks after the
// others every 20 µs after each change of load; with the kernel's 50 µs of slack it woke once for every warm
// invocation and took a tenth of the service's time.
const timerSlack = 500 * time.Microsecond

// startOnThread forks from a thread of its own that prepare has changed and that ends with
// the goroutine, so that no other goroutine ever runs on it.
func startOnThread(prepare func() error, path string, args []string, attributes *os.ProcAttr) (process *os.Process, err error) {
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread is thrown away
		if err = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err != nil {
			err = fmt.Errorf("set timer slack: %w", err)
			return
		}
		if err = prepare(); err != nil {
			return
		}
		process, err = os.StartProcess(path, args, attributes)
	})
	done.Wait()
	return process, err
}

// drainWord follows the configuration in its pipe when the child is to drain and end.
const drainWord = "\"drain\"\n"

// stop asks the child to drain and end, waits, and ends it for certain.
func (c *child) stop(patience time.Duration) {
	c.words.WriteString(drainWord) // fails if the child has ended already
	c.words.Close()
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

// receiveConfig is the child's side: it reads its configuration. The context ends when serve says so or
// is gone, however it ended, and its cause tells which. That and no signal is the order to drain, because
// a signal to the whole service (systemd sends one) reaches front and worker at once, and the worker must
// outlast the calls that the front drains.
func receiveConfig(ctx context.Context, config any) (_ context.Context, report func(any) error, err error) {
	if err := hardenProcess(); err != nil {
		return nil, nil, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(configFD, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, nil, errors.New("this command is started by \"cloister serve\" and cannot be run by hand")
	}
	// No process that this one starts may inherit what serve gave it. Kernels before 5.11 know the call
	// but not the flag.
	if err := unix.CloseRange(configFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		for fd := configFD; fd < 256; fd++ {
			syscall.CloseOnExec(fd)
		}
	}
	unix.Umask(0o077)
	words := json.NewDecoder(os.NewFile(configFD, "configuration"))
	if err := words.Decode(config); err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	ctx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	go func() {
		var word string
		if words.Decode(&word) == nil {
			end(nil)
			return
		}
		end(errAbandoned)
	}()
	reports := os.NewFile(reportFD, "reports")
	return ctx, json.NewEncoder(reports).Encode, nil
}

// receiveReport waits for the next report of a child.
func receiveReport[T any](ctx context.Context, c *child, report *T) error {
	failed := make(chan error, 1)
	go func() {
		var line json.RawMessage
		err := c.reports.Decode(&line)
		if err == nil {
			err = json.Unmarshal(line, report)
		}
		var problem failureReport
		if err == nil && json.Unmarshal(line, &problem) == nil && problem.Error != "" {
			err = errors.New(problem.Error)
		}
		failed <- err
	}()
	select {
	case err := <-failed:
		if errors.Is(err, io.EOF) {
			<-c.exited
			return fmt.Errorf("the %s process ended while starting: %v", c.name, c.state)
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("the %s process did not start: %w", c.name, context.Cause(ctx))
	}
}

// failureReport is a child's last report: why it ends.
type failureReport struct{ Error string }

// errReported ends a child whose error serve has been told and will print.
var errReported = errors.New("reported to serve")

// runChild is the life of a child: it takes its configuration, works, and tells serve why it failed.
func runChild[Config any](ctx context.Context, run func(context.Context, Config, func(any) error) error) error {
	var config Config
	ctx, report, err := receiveConfig(ctx, &config)
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(collectLess())
	go returnMemory(ctx, quietInterval)
	if err = run(ctx, config, report); err != nil && report(failureReport{err.Error()}) == nil {
		return errReported
	}
	return err
}

// enterFrontView gives the calling thread a mount namespace in which the state directory appears at a
// path that the front's user can reach, and takes from it every way back to privilege. The data
// directory itself may lie below a home directory of mode 0700.
func enterFrontView(state, visible string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(state, visible, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind state directory: %w", err)
	}
	if err := unix.Mount("", visible, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("bind state directory: %w", err)
	}
	for capability := range uintptr(64) {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err == unix.EINVAL {
			break // the kernel knows no more
		} else if err != nil {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	return nil
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
