package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const errBusy = unix.EBUSY

// Freeze stops every process of the group and returns when all of them stand still. A process
// that is born meanwhile is stopped too.
func (g *Group) Freeze(ctx context.Context) error {
	if err := g.freeze(ctx); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	return nil
}

// Thaw lets the processes run on. It does not wait for the first one to do so.
func (g *Group) Thaw() error {
	if err := g.write(thaw); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	return nil
}

type freezing bool

const (
	freeze freezing = true
	thaw   freezing = false
)

// write asks the kernel to freeze or thaw, without waiting for it.
func (g *Group) write(f freezing) error {
	if g.unified == "" {
		return write(filepath.Join(g.v1[freezer], "freezer.state"), map[freezing]string{freeze: "FROZEN", thaw: "THAWED"}[f])
	}
	return write(filepath.Join(g.unified, "cgroup.freeze"), map[freezing]string{freeze: "1", thaw: "0"}[f])
}

func (g *Group) freeze(ctx context.Context) error {
	if g.unified == "" {
		return poll(ctx, g.freezeV1)
	}
	if err := g.write(freeze); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		frozen, err := field(filepath.Join(g.unified, "cgroup.events"), "frozen")
		return err != nil || frozen == 1, err
	})
}

// freezeV1 makes one attempt. In version 1 a process that waits for the child it made with vfork cannot
// be frozen once that child is; the group then stays half frozen for ever, unless all of it
// may run on for a moment.
func (g *Group) freezeV1() (bool, error) {
	if err := g.write(freeze); err != nil {
		return true, err
	}
	b, err := os.ReadFile(filepath.Join(g.v1[freezer], "freezer.state"))
	if err != nil {
		return true, err
	}
	if strings.TrimSpace(string(b)) == "FROZEN" {
		return true, nil
	}
	return false, g.write(thaw)
}

// Kill ends every process of the group, those too that are born meanwhile, and returns when none
// is left. The group is thawed.
//
// It freezes first, so that a fork bomb cannot outrun it: what is born into a frozen group stands still.
// cgroup.kill of version 2 would do it in one write, but on Linux 6.18 every
// process that is later born into the group by CLONE_INTO_CGROUP is killed as well (the kernel compares
// the group's count of kills with that of the parent's group).
//
// Dying takes CPU time: a thousand processes that may use a fifteenth of a CPU would take seconds, and
// hold their memory meanwhile. So the limit is lifted until they are gone.
func (g *Group) Kill(ctx context.Context) error {
	err := g.write(freeze)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the group is gone, or was only half made
	}
	restore, unlimitErr := g.unlimitCPU()
	if err = errors.Join(err, unlimitErr); err == nil {
		err = poll(ctx, g.killPass)
		err = errors.Join(err, restore())
	}
	if err = errors.Join(err, g.write(thaw)); err != nil {
		return fmt.Errorf("kill control group: %w", err)
	}
	return nil
}

// killPass kills what it finds and says whether nothing is left. A frozen process of version 2
// dies at once; one of version 1 when it is thawed, so there each pass lets go for a moment.
func (g *Group) killPass() (bool, error) {
	if err := g.killListed(); err != nil {
		return true, err
	}
	if g.unified == "" {
		if err := g.write(thaw); err != nil {
			return true, err
		}
	}
	empty, err := g.empty()
	if err == nil && !empty && g.unified == "" {
		err = g.write(freeze)
	}
	return empty || err != nil, err
}

// killListed kills the processes that are in the group now. That a number was given to
// another process between the reading and the signal would take a full turn of the kernel's
// counter in that moment, and the group stands still.
func (g *Group) killListed() error {
	processes, err := g.processes()
	for _, pid := range processes {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return err
}

func (g *Group) empty() (bool, error) {
	if g.unified == "" {
		processes, err := g.processes()
		return err != nil || len(processes) == 0, err
	}
	populated, err := field(filepath.Join(g.unified, "cgroup.events"), "populated")
	return err != nil || populated == 0, err
}

func (g *Group) processes() ([]int, error) {
	directory := g.unified
	if directory == "" {
		directory = g.v1[freezer]
	}
	w, err := words(filepath.Join(directory, "cgroup.procs"))
	var found []int
	for _, s := range w {
		pid, err := strconv.Atoi(s)
		if err != nil {
			return nil, err
		}
		if pid != 0 { // 0 is a process of another pid namespace that we cannot see
			found = append(found, pid)
		}
	}
	return found, err
}
