package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// reservedWeight is the service's weight for each CPU of the host, in those of a function that has one CPU: where functions
// want all CPUs, and have limits of twice as many, the service still gets two thirds.
const reservedWeight = 4

// A Reserve is a group of the service's own processes, which get their share of CPU time however many functions are
// busy. It limits nothing. It exists in version 1 only: in version 2 a process stays in the group where the host's
// service manager put it, and all functions together weigh as much as one of those.
type Reserve struct{ directory string } // "" in version 2

// OpenReserve makes the group c.Name, or finds the one that a killed process left.
func OpenReserve(c Config) (*Reserve, error) {
	c = c.withDefaults()
	mounts, err := readFrom(c.MountInfo, parseMounts)
	if err != nil || mounts.v1[cpu] == "" {
		return &Reserve{}, err
	}
	r := &Reserve{filepath.Join(mounts.v1[cpu], c.Name)}
	if err := c.MakeDirectory(r.directory, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("reserve CPU time for the service: %w", err)
	}
	shares := min(sharesOfCPU*reservedWeight*runtime.NumCPU(), 1<<18) // the kernel knows no more
	if err := write(filepath.Join(r.directory, "cpu.shares"), strconv.Itoa(shares)); err != nil {
		return nil, errors.Join(fmt.Errorf("reserve CPU time for the service: %w", err), os.Remove(r.directory))
	}
	return r, nil
}

// Enter moves the calling thread into the group, and so the processes that it starts afterwards.
func (r *Reserve) Enter() error {
	if r.directory == "" {
		return nil
	}
	if err := write(filepath.Join(r.directory, "tasks"), strconv.Itoa(unix.Gettid())); err != nil {
		return fmt.Errorf("reserve CPU time for the service: %w", err)
	}
	return nil
}

// Close removes the group once its processes have ended, for which it waits within ctx.
func (r *Reserve) Close(ctx context.Context) error {
	if r.directory == "" {
		return nil
	}
	err := poll(ctx, func() (bool, error) {
		err := os.Remove(r.directory)
		return !errors.Is(err, errBusy), err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("give the service's reserve of CPU time back: %w", err)
	}
	return nil
}
