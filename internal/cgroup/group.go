package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Period is the time over which CPU time is limited: a group with half a CPU runs for half of each period and
// then waits for the next one. Functions on AWS observe the same 20 ms. A group of many threads takes
// all CPUs for a part of each period, so a long one would hold its neighbours up for long.
const Period = 20 * time.Millisecond

// The weight of a group for each CPU of its limit, in version 1 and 2: where CPUs are short, each group gets of
// them in proportion to its limit.
const sharesOfCPU, weightOfCPU = 1024, 100

// Limits of a group, for all its processes together.
type Limits struct {
	MemoryBytes int64
	CPU         float64 // 1 is one CPU
	Processes   int     // processes and threads
}

// Usage of a group since it was made, or since ResetPeak.
type Usage struct {
	MemoryPeakBytes  int64
	CPU              time.Duration
	OutOfMemoryKills int64
}

// A Group is a control group in every hierarchy that we use. Its methods may be called
// concurrently; the file system serialises them.
type Group struct {
	hierarchy *Hierarchy
	name      string
	v1        map[controller]string
	unified   string   // "" if the host has no version 2
	handle    *os.File // the directory in version 2
	peak      peakFile
}

// Create makes a group without limits and without processes.
func (h *Hierarchy) Create(name string) (*Group, error) {
	g := h.group(name)
	if err := g.make(); err != nil {
		return nil, errors.Join(fmt.Errorf("create control group: %w", err), g.removeDirectories())
	}
	return g, nil
}

// Existing returns the group of that name as an earlier process left it, to be killed and
// removed.
func (h *Hierarchy) Existing(name string) *Group { return h.group(name) }

func (h *Hierarchy) group(name string) *Group {
	g := &Group{hierarchy: h, name: name, v1: map[controller]string{}}
	for k, n := range h.v1 {
		g.v1[k] = n.path(name)
	}
	if h.unified.directory != "" {
		g.unified = h.unified.path(name)
	}
	return g
}

func (g *Group) make() error {
	for _, d := range g.directories() {
		if err := g.hierarchy.mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if g.unified != "" {
		handle, err := os.Open(g.unified)
		if err != nil {
			return err
		}
		g.handle = handle
	}
	return apply(g.constants())
}

func (g *Group) directories() []string {
	var all []string
	for _, n := range g.hierarchy.parents() {
		all = append(all, n.path(g.name))
	}
	return all
}

// Handle returns the group's directory in version 2, for clone3 with CLONE_INTO_CGROUP; nil
// if the host has no version 2. It is closed by Remove.
func (g *Group) Handle() *os.File { return g.handle }

// Add moves a process, with all its threads, into the group's version 1 hierarchies. In version 2
// a process is born into its group: see Handle. The move waits for a grace
// period of the kernel, 5 to 20 ms, and charges what the process has used so far to where it was
// before.
func (g *Group) Add(pid int) error {
	for k, d := range g.v1 {
		if k == cpuacct && d == g.v1[cpu] {
			continue
		}
		if err := write(filepath.Join(d, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("move process %d into control group: %w", pid, err)
		}
	}
	return nil
}

// constants are settings that are the same for every group. Swap is never allowed: memory that
// a function thinks is gone must not be on a disk.
func (g *Group) constants() []setting {
	var settings []setting
	if g.hierarchy.inV2[memory] {
		settings = append(settings, setting{g.unified, "memory.swap.max", "0", optional}, setting{g.unified, "memory.oom.group", "0", optional})
	} else {
		settings = append(settings, setting{g.v1[memory], "memory.swappiness", "0", optional})
	}
	if !g.hierarchy.inV2[cpu] {
		settings = append(settings, setting{g.v1[cpu], "cpu.cfs_period_us", strconv.FormatInt(Period.Microseconds(), 10), required})
	}
	return settings
}

// limits are the settings that follow from l.
func (g *Group) limits(l Limits) []setting {
	bytes := strconv.FormatInt(l.MemoryBytes, 10)
	settings := append(g.cpuLimits(l.CPU), setting{g.place(pids), "pids.max", strconv.Itoa(l.Processes), required})
	if g.hierarchy.inV2[memory] {
		return append(settings, setting{g.unified, "memory.max", bytes, required})
	}
	return append(settings,
		setting{g.v1[memory], "memory.limit_in_bytes", bytes, required},
		setting{g.v1[memory], "memory.memsw.limit_in_bytes", bytes, optional}) // absent without swap accounting
}

func (g *Group) cpuLimits(cpus float64) []setting {
	const least = 1000 // that the kernel accepts as a quota
	quota := max(int64(cpus*float64(Period.Microseconds())), least)
	if g.hierarchy.inV2[cpu] {
		weight := min(max(int(cpus*weightOfCPU), 1), 10_000)
		return []setting{
			{g.unified, "cpu.max", fmt.Sprintf("%d %d", quota, Period.Microseconds()), required},
			{g.unified, "cpu.weight", strconv.Itoa(weight), required},
		}
	}
	shares := min(max(int(cpus*sharesOfCPU), 2), 1<<18)
	return []setting{
		{g.v1[cpu], "cpu.cfs_quota_us", strconv.FormatInt(quota, 10), required},
		{g.v1[cpu], "cpu.shares", strconv.Itoa(shares), required},
	}
}

// SetLimits sets all limits.
func (g *Group) SetLimits(l Limits) error { return apply(g.limits(l)) }

// SetCPU changes the limit of CPU time, and the weight with it.
func (g *Group) SetCPU(cpus float64) error { return apply(g.cpuLimits(cpus)) }

// unlimitCPU lifts the limit of CPU time and returns what puts it back.
func (g *Group) unlimitCPU() (restore func() error, err error) {
	s := setting{g.v1[cpu], "cpu.cfs_quota_us", "-1", required}
	if g.hierarchy.inV2[cpu] {
		s = setting{g.unified, "cpu.max", "max", required}
	}
	before, err := words(filepath.Join(s.directory, s.file))
	if errors.Is(err, os.ErrNotExist) { // half made, or half removed
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
	}
	old := s
	old.value = strings.Join(before, " ")
	return func() error { return apply([]setting{old}) }, apply([]setting{s})
}

// CheckLimits reads back from the kernel that the limits are in force and that the process
// is in the group, in every hierarchy.
func (g *Group) CheckLimits(l Limits, pid int) error {
	for _, s := range append(g.constants(), g.limits(l)...) {
		found, err := words(filepath.Join(s.directory, s.file))
		if errors.Is(err, os.ErrNotExist) && s.need == optional {
			continue
		}
		if err != nil {
			return fmt.Errorf("check limits: %w", err)
		}
		if strings.Join(found, " ") != s.value {
			return fmt.Errorf("check limits: %s of %s is %q, not %q", s.file, g.name, strings.Join(found, " "), s.value)
		}
	}
	for _, d := range g.directories() {
		members, err := words(filepath.Join(d, "cgroup.procs"))
		if err != nil {
			return fmt.Errorf("check limits: %w", err)
		}
		if !slices.Contains(members, strconv.Itoa(pid)) {
			return fmt.Errorf("check limits: process %d is not in %s", pid, d)
		}
	}
	return nil
}

func apply(settings []setting) error {
	for _, s := range settings {
		err := write(filepath.Join(s.directory, s.file), s.value)
		if err != nil && (s.need == required || !errors.Is(err, os.ErrNotExist)) {
			return fmt.Errorf("set limits: %w", err)
		}
	}
	return nil
}

type setting struct {
	directory, file, value string
	need                   need
}

type need bool

const (
	required need = true
	optional need = false // a kernel may be built without the file
)

func (g *Group) place(k controller) string {
	if g.hierarchy.inV2[k] {
		return g.unified
	}
	return g.v1[k]
}

// ResetPeak starts the measurement of the memory peak anew. Version 2 cannot: there the peak
// counts from the group's beginning.
func (g *Group) ResetPeak() error {
	if g.hierarchy.inV2[memory] {
		return nil
	}
	return write(filepath.Join(g.v1[memory], "memory.max_usage_in_bytes"), "0")
}

// Usage reads the counters.
func (g *Group) Usage() (Usage, error) {
	var u Usage
	var err error
	if u.OutOfMemoryKills, err = g.OutOfMemoryKills(); err != nil {
		return Usage{}, err
	}
	if u.MemoryPeakBytes, err = g.MemoryPeak(); err != nil {
		return Usage{}, err
	}
	var t int64
	if g.hierarchy.inV2[cpu] {
		t, err = field(filepath.Join(g.unified, "cpu.stat"), "usage_usec")
		t *= int64(time.Microsecond)
	} else {
		t, err = number(filepath.Join(g.v1[cpuacct], "cpuacct.usage"))
	}
	u.CPU = time.Duration(t)
	return u, err
}

// OutOfMemoryKills counts the processes that the memory limit has killed.
func (g *Group) OutOfMemoryKills() (int64, error) {
	if g.hierarchy.inV2[memory] {
		return field(filepath.Join(g.unified, "memory.events"), "oom_kill")
	}
	return field(filepath.Join(g.v1[memory], "memory.oom_control"), "oom_kill")
}

// Remove takes the group away. All its processes must have been killed; those that are
// still on their way out are waited for, within ctx.
func (g *Group) Remove(ctx context.Context) error {
	if g.handle != nil {
		g.handle.Close()
	}
	g.peak.close()
	err := poll(ctx, func() (bool, error) {
		err := g.removeDirectories()
		return !errors.Is(err, errBusy), err
	})
	if err != nil {
		return fmt.Errorf("remove control group: %w", err)
	}
	return nil
}

func (g *Group) removeDirectories() error {
	var failed []error
	for _, d := range g.directories() {
		if err := os.Remove(d); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// poll calls f until it says that it is done: a few times at once, for what takes microseconds, then
// with pauses from 20 µs to 5 ms.
func poll(ctx context.Context, f func() (bool, error)) error {
	const atOnce = 10
	pause := 20 * time.Microsecond
	for attempt := 0; ; attempt++ {
		done, err := f()
		if done {
			return err
		}
		if attempt < atOnce {
			runtime.Gosched()
			continue
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Millisecond)
	}
}

// write puts a value into a control file in one write, as the kernel wants it. The file must exist.
func write(path, value string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(value)
	return errors.Join(err, file.Close())
}

// words reads a file of the kernel's. Usage is asked for after each invocation; os.ReadFile would
// enter each file into the poller and remove it again, which takes longer than reading it.
func words(path string) ([]string, error) {
	fd, err := ignoringInterrupts(func() (int, error) { return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	b := make([]byte, 0, 512)
	for {
		b = slices.Grow(b, 512)
		n, err := ignoringInterrupts(func() (int, error) { return syscall.Read(fd, b[len(b):cap(b)]) })
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return strings.Fields(string(b)), nil
		}
		b = b[:len(b)+n]
	}
}

func ignoringInterrupts(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != syscall.EINTR {
			return n, err
		}
	}
}

func number(path string) (int64, error) {
	w, err := words(path)
	if err != nil {
		return 0, err
	}
	if len(w) != 1 {
		return 0, fmt.Errorf("%s holds %d words, not a number", path, len(w))
	}
	return strconv.ParseInt(w[0], 10, 64)
}

// field returns the number after a key in a file of "key number" lines.
func field(path, key string) (int64, error) {
	w, err := words(path)
	if err != nil {
		return 0, err
	}
	for i := 0; i+1 < len(w); i += 2 {
		if w[i] == key {
			return strconv.ParseInt(w[i+1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, key)
}
