package native

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"cloister/internal/cgroup"
	"cloister/lambda"
	"cloister/sandbox"
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

func (c *cell) attach(ctx context.Context, mounts []sandbox.Mount, l sandbox.Limits, first int) error {
	if l.MemoryMiB < 1 || l.CPU <= 0 || l.Processes < 1 || l.OpenFiles < 8 {
		return fmt.Errorf("limits %+v are not usable", l)
	}
	if err := c.acquire(ctx, mounts); err != nil {
		return err
	}
	placed := make(chan error, 1)
	go func() { placed <- c.placeImages(mounts, first) }()
	err := c.group.SetLimits(groupLimits(l))
	if err == nil {
		err = c.group.ResetPeak()
	}
	return errors.Join(err, <-placed)
}

func groupLimits(l sandbox.Limits) cgroup.Limits {
	return cgroup.Limits{MemoryBytes: int64(l.MemoryMiB) << 20, CPU: l.CPU, Processes: l.Processes}
}

// placeImages attaches mounts of the images that acquire has added from first on.
func (c *cell) placeImages(mounts []sandbox.Mount, first int) error {
	if len(mounts) == 0 {
		return nil
	}
	return mount.OnThread(func() error {
		if err := c.backend.images.namespace.Enter(); err != nil {
			return err
		}
		clones, err := cloneImages(mounts, c.images[first:])
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
	})
}

// enter moves the calling thread, which must be one of mount.OnThread, into namespaces of a child.
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
