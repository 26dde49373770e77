package service

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cloister/internal/loop"
)

// A Footprint is what a running service takes of its host, its sandboxes included.
type Footprint struct {
	Processes     int // of the service and in its sandboxes
	Namespaces    int // distinct ones that these processes are in
	Mounts        int // that front, worker and supervisor see
	ControlGroups int
	LoopDevices   int
	Descriptors   int   // open in front, worker and supervisor
	Memory        int64 // bytes that these three do not share with files
}

// Footprint measures the service. What ends meanwhile is not counted.
func (s *Service) Footprint() (Footprint, error) {
	var f Footprint
	own := map[string]bool{strconv.Itoa(s.PID()): true}
	namespaces, mounts := map[string]bool{}, map[string]bool{}
	statuses, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return f, err
	}
	for range 2 { // parents may come after their children
		for _, path := range statuses {
			if b, err := os.ReadFile(path); err == nil {
				if fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(fields) > 1 && fields[1] == strconv.Itoa(s.PID()) {
					own[filepath.Base(filepath.Dir(path))] = true
				}
			}
		}
	}
	for _, path := range statuses {
		process := filepath.Dir(path)
		groups, _ := os.ReadFile(filepath.Join(process, "cgroup"))
		ours := own[filepath.Base(process)]
		if !ours && !bytes.Contains(groups, []byte(s.ID)) {
			continue
		}
		f.Processes++
		links, _ := filepath.Glob(filepath.Join(process, "ns/*"))
		for _, l := range links {
			if name, err := os.Readlink(l); err == nil {
				namespaces[name] = true
			}
		}
		if !ours {
			continue
		}
		if err := f.measure(process, mounts); err != nil {
			return f, err
		}
	}
	f.Namespaces, f.Mounts = len(namespaces), len(mounts)
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, s.ID) {
			f.ControlGroups++
		}
		return nil
	})
	loops, err := loop.Names("cloister-" + s.ID)
	f.LoopDevices = len(loops)
	return f, err
}

// measure adds what one process of the service's own holds.
func (f *Footprint) measure(process string, mounts map[string]bool) error {
	descriptors, err := os.ReadDir(filepath.Join(process, "fd"))
	if err != nil {
		return err
	}
	f.Descriptors += len(descriptors)
	seen, err := os.ReadFile(filepath.Join(process, "mountinfo"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(seen)) {
		mounts[line] = true
	}
	status, err := os.ReadFile(filepath.Join(process, "status"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return err
			}
			f.Memory += kib << 10
		}
	}
	return nil
}

// Beyond lists what f has more of than base and what is allowed on top.
func (f Footprint) Beyond(base, allowed Footprint) []string {
	var grown []string
	for _, c := range []struct {
		what             string
		now, then, spare int64
	}{
		{"processes", int64(f.Processes), int64(base.Processes), int64(allowed.Processes)},
		{"namespaces", int64(f.Namespaces), int64(base.Namespaces), int64(allowed.Namespaces)},
		{"mounts", int64(f.Mounts), int64(base.Mounts), int64(allowed.Mounts)},
		{"control groups", int64(f.ControlGroups), int64(base.ControlGroups), int64(allowed.ControlGroups)},
		{"loop devices", int64(f.LoopDevices), int64(base.LoopDevices), int64(allowed.LoopDevices)},
		{"descriptors", int64(f.Descriptors), int64(base.Descriptors), int64(allowed.Descriptors)},
		{"bytes of memory", f.Memory, base.Memory, allowed.Memory},
	} {
		if c.now > c.then+c.spare {
			grown = append(grown, fmt.Sprintf("%s: %d, before %d", c.what, c.now, c.then))
		}
	}
	return grown
}
