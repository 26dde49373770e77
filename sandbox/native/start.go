package native

import (
"time"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"cloister/internal/cgroup"
	"cloister/lambda"
	"cloister/sandbox"
	"cloister/sandbox/native/internal/helper"
	"cloister/sandbox/native/internal/mount"
)

// Attach mounts the images and sets the limits.
func (c *cell) Attach(ctx context.Context, mounts []sandbox.Mount, l sandbox.Limits) error {
	c.mu.Lock()
	end, err := c.register("attach", parked)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	defer end()
	c.state = attaching
	first := len(c.images)
	c.mu.Unlock()

	err = c.attach(ctx, mounts, l, first)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == destroyed:
		return errors.Join(err, lambda.Errorf(lambda.EnvironmentGone, "attach", "the sandbox has been destroyed"))
	case err != nil:
		c.state = unusable
		return fmt.Errorf("attach: %w", err)
	}
	c.state, c.limits = attached, l
	return nil
}

// SetCPU changes the limit of CPU time.
func (c *cell) SetCPU(vCPUs float64) error {
	end, err := c.begin("set CPU", attached)
	if err != nil {
		return err
	}
	defer end()
	if vCPUs <= 0 {
		return fmt.Errorf("set CPU: %v is not a share", vCPUs)
	}
	return c.group.SetCPU(vCPUs)
}

var tm = map[string]time.Duration{}
var tn int
func (c *cell) attach(ctx context.Context, mounts []sandbox.Mount, l sandbox.Limits, first int) error {
	t0 := time.Now()
	lap := func(n string) { d := time.Now(); tm[n] += d.Sub(t0); t0 = d }
	defer func() { lap("resetpeak"); tn++ }()
	if l.MemoryMiB < 1 || l.CPU <= 0 || l.Processes < 1 || l.OpenFiles < 8 {
		return fmt.Errorf("limits %+v are not usable", l)
	}
	if err := c.group.SetLimits(groupLimits(l)); err != nil {
		return err
	}
	lap("limits")
	if err := c.acquire(ctx, mounts); err != nil {
		return err
	}
	if len(mounts) > 0 {
		if err := mount.OnThread(func() error { return c.placeImages(mounts, c.images[first:]) }); err != nil {
			return err
		}
	}
	lap("thread")
	return c.group.ResetPeak()
}

func groupLimits(l sandbox.Limits) cgroup.Limits {
	return cgroup.Limits{MemoryBytes: int64(l.MemoryMiB) << 20, CPU: l.CPU, Processes: l.Processes}
}

// placeImages runs on a thread of its own.
func (c *cell) placeImages(mounts []sandbox.Mount, images []*image) error {
	if err := c.backend.images.namespace.Enter(); err != nil {
		return err
	}
	clones, err := cloneImages(mounts, images)
	for _, clone := range clones {
		defer clone.mount.Close()
	}
	if err != nil {
		return err
	}
	if err := c.keeper.enter(unix.CLONE_NEWNS); err != nil {
		return err
	}
	for _, clone := range clones {
		if err := mount.Place(clone.mount, clone.target); err != nil {
			return err
		}
	}
	return nil
}

// enter moves the calling thread, which must be one of onThread, into namespaces of a child.
func (c *child) enter(namespaces int) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("enter namespaces: %w", unix.ESRCH)
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = unix.Setns(int(fd), namespaces) }); err != nil {
		result = unix.ESRCH
	}
	if result != nil {
		return fmt.Errorf("enter namespaces: %w", result)
	}
	return nil
}

// process implements sandbox.Running.
type process struct {
	child *child
	cell  *cell
	kills int64 // of the memory limit, before it was started
	done  chan struct{}
	exit  sandbox.Exit // valid once done is closed
}

// Done is closed when the process has ended.
func (p *process) Done() <-chan struct{} { return p.done }

// Wait blocks until the process has ended.
func (p *process) Wait() sandbox.Exit {
	<-p.done
	return p.exit
}

// follow waits for the end and finds its reason.
func (p *process) follow() {
	<-p.child.done
	p.child.control.Close()
	status := p.child.status
	p.exit.Code = status.ExitStatus() // -1 if not exited
	if status.Signaled() {
		p.exit.Signal = int(status.Signal())
	}
	if kills, err := p.cell.group.OutOfMemoryKills(); err == nil {
		p.exit.OutOfMemory = kills > p.kills
	}
	p.cell.mu.Lock()
	p.cell.processes = slices.DeleteFunc(p.cell.processes, func(o *process) bool { return o == p })
	p.cell.mu.Unlock()
	close(p.done)
}

// Start runs a process. A file that cannot be executed is an error of kind
// lambda.InvalidRuntime with the words that Lambda uses.
func (c *cell) Start(ctx context.Context, p sandbox.Process) (sandbox.Running, error) {
	end, err := c.begin("start process", attached)
	if err != nil {
		return nil, err
	}
	defer end()
	c.mu.Lock()
	openFiles := c.limits.OpenFiles
	c.mu.Unlock()
	directory := p.Dir
	if directory == "" {
		directory = "/"
	}
	arguments := p.Args
	if len(arguments) == 0 {
		arguments = []string{p.Path}
	}
	command, err := c.backend.helpers.Command(helper.Command{Path: p.Path, Arguments: arguments, Environment: p.Env, Directory: directory, OpenFiles: openFiles})
	if err != nil {
		return nil, notExecutable(p.Path, err)
	}
	t0 := time.Now()
	lap := func(n string) { d := time.Now(); tm[n] += d.Sub(t0); t0 = d }
	starter, err := c.takeStarter(ctx)
	if err != nil {
		return nil, fmt.Errorf("start process: %w", err)
	}
	running := &process{child: starter, cell: c, done: make(chan struct{})}
	if running.kills, err = c.group.OutOfMemoryKills(); err == nil {
		err = starter.send(ctx, command, p.Stdout, p.Stderr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start process: %w", err), starter.abandon(ctx))
	}
	lap("s send")
	defer lap("s confirm")
	return c.confirm(ctx, running, p.Path)
}

// confirm waits until a starter has become the program.
func (c *cell) confirm(ctx context.Context, running *process, path string) (sandbox.Running, error) {
	answer, err := running.child.receive(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start process: %w", err), running.child.abandon(ctx))
	}
	if errno, failed := helper.FailureOf(answer); failed {
		return nil, errors.Join(notExecutable(path, errno), running.child.abandon(ctx))
	}
	c.mu.Lock()
	c.processes = append(c.processes, running)
	c.mu.Unlock()
	go running.follow()
	return running, nil
}

func notExecutable(path string, err error) error {
	return &lambda.Error{Kind: lambda.InvalidRuntime, Op: "start process", Message: "fork/exec " + path + ": " + err.Error(), Err: err}
}

// takeStarter returns the starter that Park has left, or makes another one.
func (c *cell) takeStarter(ctx context.Context) (*child, error) {
	c.mu.Lock()
	starter := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	if starter != nil {
		return starter, nil
	}
	starter, err := c.spawn()
	if err == nil {
		err = c.prepare(ctx, starter)
	}
	if err != nil && starter != nil {
		err = errors.Join(err, starter.abandon(ctx))
	}
	return starter, err
}

// abandon ends a child that did not become what it should.
func (c *child) abandon(ctx context.Context) error {
	err := c.kill()
	if err == nil {
		err = c.awaitEnd(ctx)
	}
	c.control.Close() // an error says only that it is closed already
	return err
}
