package native

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cloister/lambda"
	"cloister/sandbox"
	"cloister/sandbox/native/internal/inside"
)

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
	command, err := c.backend.helpers.Command(inside.Command{Path: p.Path, Arguments: arguments, Environment: p.Env, Directory: directory, OpenFiles: openFiles})
	if err != nil {
		return nil, notExecutable(p.Path, err)
	}
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
	return c.confirm(ctx, running, p.Path)
}

// confirm waits until a starter has become the program.
func (c *cell) confirm(ctx context.Context, running *process, path string) (sandbox.Running, error) {
	answer, err := running.child.receive(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start process: %w", err), running.child.abandon(ctx))
	}
	if errno, failed := inside.FailureOf(answer); failed {
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
