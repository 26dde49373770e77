// Package cgroup gives a set of processes limits on memory, CPU time and their number, counts what they use,
// and freezes, continues and kills them as one.
//
// It speaks version 1 of control groups, version 2, and the mixture of both that a host has
// while it moves from one to the other: each controller is used where the host has
// it. It does not start processes and knows nothing of namespaces. Package sandbox/native
// calls it.
//
// Invariant: everything it makes on the host lies in one directory in each hierarchy, named by
// the caller, or beside it with that name and a dot before its own, and it never looks into another. A tenant's processes are inside the groups; they
// cannot see or write the files of this package, but they choose how many they are, how fast
// they fork, and when they die.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Config says where to make groups. Name is required.
type Config struct {
	// Name of the directory that holds all groups of this owner, in each hierarchy.
	Name string

	// MountInfo and SelfCgroup are files of /proc/self; empty means the real ones.
	// Tests name others, to show this package a host with other hierarchies.
	MountInfo, SelfCgroup string

	// MakeDirectory is os.Mkdir if nil. In a test it also makes the files that the kernel
	// would put into a new group.
	MakeDirectory func(path string, mode os.FileMode) error
}

func (c Config) withDefaults() Config {
	if c.MountInfo == "" {
		c.MountInfo, c.SelfCgroup = "/proc/self/mountinfo", "/proc/self/cgroup"
	}
	if c.MakeDirectory == nil {
		c.MakeDirectory = os.Mkdir
	}
	return c
}

// A controller is a kernel facility that lives in exactly one hierarchy.
type controller string

const (
	memory  controller = "memory"
	cpu     controller = "cpu"
	cpuacct controller = "cpuacct" // version 1 only; version 2 has it in cpu
	pids    controller = "pids"
	freezer controller = "freezer" // version 1 only; version 2 has it in every group
)

// A Hierarchy makes groups below one name. Its methods may be called concurrently.
type Hierarchy struct {
	name    string
	v1      map[controller]parent // where our groups lie in the hierarchy of the controller
	unified parent                // the same in version 2; its zero value if the host has none
	inV2    map[controller]bool   // controllers to be used in version 2
	mkdir   func(string, os.FileMode) error
}

// A parent is where our groups lie in a hierarchy: in a directory of ours, or beside the host's own groups, with a
// prefix to their names.
type parent struct{ directory, prefix string }

func (n parent) path(name string) string { return filepath.Join(n.directory, n.prefix+name) }

// Open finds the host's hierarchies and makes our directory in each one. The error names what
// the host lacks.
func Open(c Config) (*Hierarchy, error) {
	if c.Name == "" || strings.ContainsAny(c.Name, "./\n") {
		return nil, fmt.Errorf("control groups: bad name %q", c.Name)
	}
	c = c.withDefaults()
	h := &Hierarchy{name: c.Name, v1: map[controller]parent{}, inV2: map[controller]bool{}, mkdir: c.MakeDirectory}
	mounts, err := readFrom(c.MountInfo, parseMounts)
	if err != nil {
		return nil, err
	}
	if err := h.openV2(mounts.unified, c.SelfCgroup); err != nil {
		return nil, err
	}
	for _, k := range []controller{memory, cpu, pids, cpuacct, freezer} {
		if err := h.openV1(k, mounts.v1[k]); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *Hierarchy) openV1(k controller, mount string) error {
	switch {
	case k == cpuacct && h.inV2[cpu], k == freezer && h.unified.directory != "", h.inV2[k]:
		return nil
	case mount == "":
		return fmt.Errorf("control groups: the host offers no %s controller in version 2 and no mounted version 1 hierarchy of it (mount -t cgroup2 none /sys/fs/cgroup)", k)
	}
	// Groups for CPU time have no parent of ours. The kernel's scheduler walks up from a task for each that it wakes or puts
	// to sleep, and a common parent made it switch twice as often; docs/BENCHMARKS.md has the figures.
	if k == cpu || k == cpuacct && mount == h.v1[cpu].directory {
		h.v1[k] = parent{mount, h.name + "."}
		return nil
	}
	h.v1[k] = parent{directory: filepath.Join(mount, h.name)}
	return h.ensure(h.v1[k].directory)
}

// openV2 decides which controllers are used in version 2. Below our own group is the
// place that a service manager delegates; where that group has processes in it the kernel forbids
// to hand controllers on, and the root of the hierarchy is used instead.
func (h *Hierarchy) openV2(mount, selfCgroup string) error {
	if mount == "" {
		return nil
	}
	own, err := readFrom(selfCgroup, parseOwnGroup)
	if err != nil {
		return err
	}
	wanted := []controller{memory, cpu, pids}
	var failed error
	for _, above := range slices.Compact([]string{filepath.Join(mount, own), mount}) {
		available, err := words(filepath.Join(above, "cgroup.controllers"))
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		var enable []string
		for _, k := range wanted {
			if slices.Contains(available, string(k)) {
				enable = append(enable, "+"+string(k))
			}
		}
		directory := filepath.Join(above, h.name)
		if err := h.handOn(above, directory, enable); err != nil {
			failed = errors.Join(failed, err)
			os.Remove(directory) // empty: we made it, or it is what a failed start left
			continue
		}
		for _, e := range enable {
			h.inV2[controller(e[1:])] = true
		}
		h.unified = parent{directory: directory}
		return nil
	}
	return fmt.Errorf("control groups: version 2: %w", failed)
}

// handOn enables controllers for the groups in directory.
func (h *Hierarchy) handOn(above, directory string, enable []string) error {
	if len(enable) > 0 {
		if err := write(filepath.Join(above, "cgroup.subtree_control"), strings.Join(enable, " ")); err != nil {
			return err
		}
	}
	if err := h.ensure(directory); err != nil {
		return err
	}
	if len(enable) == 0 {
		return nil
	}
	return write(filepath.Join(directory, "cgroup.subtree_control"), strings.Join(enable, " "))
}

func (h *Hierarchy) ensure(directory string) error {
	if err := h.mkdir(directory, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("control groups: %w", err)
	}
	return nil
}

// parents returns each distinct place in which our groups lie.
func (h *Hierarchy) parents() []parent {
	var all []parent
	if h.unified.directory != "" {
		all = append(all, h.unified)
	}
	for _, n := range h.v1 {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b parent) int { return strings.Compare(a.directory, b.directory) })
	return slices.Compact(all) // cpu and cpuacct are often one hierarchy
}

// Groups returns the names of all groups there are, whoever made them.
func (h *Hierarchy) Groups() ([]string, error) {
	var names []string
	for _, n := range h.parents() {
		entries, err := os.ReadDir(n.directory)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list control groups: %w", err)
		}
		for _, e := range entries {
			if name, ours := strings.CutPrefix(e.Name(), n.prefix); ours && e.IsDir() {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Close removes our directories. Groups that still exist keep theirs.
func (h *Hierarchy) Close() error {
	var failed []error
	for _, n := range h.parents() {
		if n.prefix != "" {
			continue // the host's
		}
		if err := os.Remove(n.directory); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("close control groups: %w", err)
	}
	return nil
}

// mounts is where a host has its hierarchies.
type mounts struct {
	v1      map[controller]string
	unified string
}

// parseMounts reads proc_pid_mountinfo(5). Mount points with blanks are escaped there; no
// host mounts its hierarchies at such a place, and one that did would be reported as missing.
func parseMounts(r io.Reader) (mounts, error) {
	found := mounts{v1: map[controller]string{}}
	s := bufio.NewScanner(r)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(rest) < 3 || fields[3] != "/" {
			continue
		}
		switch point, options := fields[4], strings.Split(rest[2], ","); rest[0] {
		case "cgroup2":
			if found.unified == "" {
				found.unified = point
			}
		case "cgroup":
			for _, k := range []controller{memory, cpu, cpuacct, pids, freezer} {
				if found.v1[k] == "" && slices.Contains(options, string(k)) {
					found.v1[k] = point
				}
			}
		}
	}
	return found, s.Err()
}

// parseOwnGroup reads the version 2 line of proc_pid_cgroup(5).
func parseOwnGroup(r io.Reader) (string, error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		if path, ok := strings.CutPrefix(s.Text(), "0::"); ok {
			return path, nil
		}
	}
	return "/", s.Err()
}

func readFrom[T any](path string, parse func(io.Reader) (T, error)) (T, error) {
	file, err := os.Open(path)
	if err != nil {
		var none T
		return none, fmt.Errorf("control groups: %w", err)
	}
	defer file.Close()
	v, err := parse(file)
	if err != nil {
		return v, fmt.Errorf("control groups: read %s: %w", path, err)
	}
	return v, nil
}
