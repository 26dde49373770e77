package native

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cloister/internal/loop"
	"cloister/sandbox"
	"cloister/sandbox/native/internal/inside"
	"cloister/sandbox/native/internal/mount"
	"cloister/sandbox/native/internal/program"
)

// hostname inside. It resolves wherever localhost does.
const hostname = "localhost"

// oomScore makes the host's own out-of-memory killer take functions before the worker.
const oomScore = 800

// maxUndo bounds the removal of a half-built sandbox.
const maxUndo = 30 * time.Second

// Park makes a sandbox without customer code: everything that takes time.
func (b *Backend) Park(ctx context.Context, class sandbox.Class) (sandbox.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("park sandbox: %w", err)
	}
	uid, err := b.takeUID()
	if err != nil {
		return nil, err
	}
	c := &cell{backend: b, id: newID(), uid: uid}
	if err := c.park(ctx, class); err != nil {
		// What is there is taken down in the usual way; a context that has ended must
		// not keep us from it.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxUndo)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("park sandbox: %w", err), c.Destroy(undo))
	}
	return c, nil
}

func (c *cell) park(ctx context.Context, class sandbox.Class) (err error) {
	if c.group, err = c.backend.groups.Create(c.id); err != nil {
		return err
	}
	mounts := append([]sandbox.Mount{{Target: "/", Image: class.Root}}, class.Mounts...)
	if err := c.acquire(ctx, mounts); err != nil {
		return err
	}
	// /tmp takes as long as all the rest, mostly waiting: make it meanwhile.
	ephemeral := c.beginEphemeral(ctx, class.EphemeralMiB)
	err = mount.OnThread(func() error { return c.build(ctx, mounts, ephemeral) })
	if fs, ephemeralErr := ephemeral(); ephemeralErr == nil {
		fs.Close()       // it is attached, or not needed
		c.device.Close() // the mount keeps it
	}
	if err != nil {
		return err
	}
	return c.prepare(ctx, c.waiting)
}

// beginEphemeral makes /tmp in the background. The function it returns waits for the unattached
// mount; c.device is set when it has returned.
func (c *cell) beginEphemeral(ctx context.Context, sizeMiB int) func() (*os.File, error) {
	type result struct {
		device *loop.Device
		fs     *os.File
		err    error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		if r.device, r.err = c.backend.ephemeral.make(ctx, c.id, sizeMiB); r.err == nil {
			r.err = mount.OnThread(func() (err error) {
				if err := c.backend.images.namespace.Enter(); err != nil {
					return err
				}
				r.fs, err = mountEphemeral(r.device, c.uid)
				return err
			})
		}
		done <- r
	}()
	return sync.OnceValues(func() (*os.File, error) {
		r := <-done
		c.device = r.device
		return r.fs, r.err
	})
}

// acquire has the images of the mounts mounted, in order, and remembers to release them.
func (c *cell) acquire(ctx context.Context, mounts []sandbox.Mount) error {
	for _, m := range mounts {
		if !strings.HasPrefix(m.Target, "/") {
			return fmt.Errorf("mount target %q is not absolute", m.Target)
		}
		i, err := c.backend.images.acquire(ctx, m.Image)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.images = append(c.images, i)
		c.mu.Unlock()
	}
	return nil
}

// build makes the namespaces and the first two processes. The thread it runs on is inside
// afterwards and must end.
func (c *cell) build(ctx context.Context, mounts []sandbox.Mount, ephemeral func() (*os.File, error)) (err error) {
	if c.runtimeAPI, c.services, err = makeNetwork(); err != nil {
		return err
	}
	m, err := c.collectMounts(mounts)
	defer m.close()
	if err != nil {
		return err
	}
	// From a namespace with next to nothing in it there is next to nothing to be copied.
	if err := c.backend.empty.Enter(); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := errors.Join(unix.Sethostname([]byte(hostname)), unix.Setdomainname([]byte("(none)"))); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	// Both are executed from the old root; pivot_root then moves them to the new one with us.
	if c.keeper, err = startChild(keeperPath, inside.KeeperControl, nil); err != nil {
		return err
	}
	if c.waiting, err = startChild(starterPath, inside.StarterControl, c.group.Handle()); err != nil {
		return err
	}
	// The kernel's grace period passes while we mount.
	added := make(chan error, 1)
	go func() { added <- c.group.Add(c.waiting.pid) }()
	return errors.Join(c.furnish(ctx, m, ephemeral), <-added)
}

// furnish makes the root and all that is in it.
func (c *cell) furnish(ctx context.Context, m *mountSet, ephemeral func() (*os.File, error)) (err error) {
	if err := m.makeDevices(); err != nil {
		return err
	}
	if m.ephemeral, err = ephemeral(); err != nil {
		return err
	}
	if err := m.assemble(); err != nil {
		return err
	}
	if err := c.keeper.send(ctx, []byte(inside.Go)); err != nil {
		return fmt.Errorf("tell first process: %w", err)
	}
	if err := c.awaitReady(ctx, c.keeper, "first process", c.backend.helpers.Keeper); err != nil {
		return err
	}
	return m.maskProc()
}

// spawn makes another starter in a sandbox that is complete, and moves it into the control groups.
func (c *cell) spawn() (starter *child, err error) {
	// The path is looked up by the new process, whose /proc is that of the sandbox.
	path := "/proc/self/fd/" + strconv.Itoa(int(c.backend.starter.Fd()))
	err = mount.OnThread(func() error {
		const all = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
		err := c.keeper.enter(all)
		if err == nil {
			starter, err = startChild(path, inside.StarterControl, c.group.Handle())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return starter, c.group.Add(starter.pid)
}

// prepare has a starter give up everything.
func (c *cell) prepare(ctx context.Context, starter *child) error {
	if err := os.WriteFile("/proc/"+strconv.Itoa(starter.pid)+"/oom_score_adj", []byte(strconv.Itoa(oomScore)), 0); err != nil {
		return err
	}
	if err := starter.send(ctx, inside.Identity(c.uid, c.uid)); err != nil {
		return fmt.Errorf("tell starter: %w", err)
	}
	return c.awaitReady(ctx, starter, "starter", c.backend.helpers.Starter)
}

// awaitReady blocks until a helper reports that it has given up its privileges.
func (c *cell) awaitReady(ctx context.Context, p *child, name string, steps *program.Builder) error {
	message, err := p.receive(ctx)
	if err != nil {
		return fmt.Errorf("wait for %s: %w", name, err)
	}
	if len(message) > 0 {
		return nil
	}
	if err := p.awaitEnd(ctx); err != nil {
		return err
	}
	if p.status.Signaled() {
		return fmt.Errorf("%s was killed by signal %d", name, p.status.Signal())
	}
	return fmt.Errorf("%s ended at step %q", name, steps.StepName(p.status.ExitStatus()))
}

func newID() string {
	random := make([]byte, 8)
	rand.Read(random) // never fails
	return hex.EncodeToString(random)
}
