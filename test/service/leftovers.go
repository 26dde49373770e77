package service

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cloister/internal/loop"
)

// Leftovers lists what an installation with this id still has on the host: mounts, cgroups, loop
// devices, its directory for sockets, processes in its cgroups, and a front or worker, which is known by the
// mounts that it sees or the sockets' directory that it has.
func Leftovers(id string) []string {
	var left []string
	add := func(kind, what string) { left = append(left, kind+" "+what) }

	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, id) {
				add("mount", strings.TrimSpace(line))
			}
		}
	}
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), id) {
			add("cgroup", path)
			return filepath.SkipDir
		}
		return nil
	})
	loops, err := loop.Names("cloister-" + id) // the name we gave each; its file has none
	if err != nil {
		add("unknown loop devices:", err.Error())
	}
	for _, name := range loops {
		add("loop device", name)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		command, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if status, _ := os.ReadFile(filepath.Join(p, "status")); bytes.Contains(status, []byte("\nState:\tZ")) {
			continue // ended; the host's first process has not collected it yet
		}
		groups, _ := os.ReadFile(filepath.Join(p, "cgroup"))
		mounts, _ := os.ReadFile(filepath.Join(p, "mountinfo"))
		ours := bytes.HasPrefix(command, []byte("cloister\x00")) && bytes.Contains(mounts, []byte("/run/cloister/"+id))
		if ours || bytes.Contains(groups, []byte(id)) {
			add("process", p+" "+string(bytes.ReplaceAll(command, []byte{0}, []byte{' '})))
		}
	}
	if _, err := os.Stat("/run/cloister/" + id); err == nil {
		add("directory", "/run/cloister/"+id)
	}
	return left
}
