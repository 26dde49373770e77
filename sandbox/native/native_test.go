package native

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/internal/cgroup"
	"cloister/internal/loop"
	"cloister/sandbox/sandboxtest"
)

func TestConformance(t *testing.T) {
	images := sandboxtest.Build(t)
	t.Run("as the host is", func(t *testing.T) { sandboxtest.Run(t, newBackend(t), images) })
	real, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(real), " - cgroup ") {
		return // a host with version 2 of control groups only can be used in one way
	}
	// A host that has no version 2 freezes, kills and moves in other ways.
	lines := slices.DeleteFunc(strings.SplitAfter(string(real), "\n"), func(l string) bool { return strings.Contains(l, " - cgroup2 ") })
	info := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(info, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("control groups of version 1 only", func(t *testing.T) {
		b := newBackend(t)
		if err := b.groups.Close(); err != nil {
			t.Fatal(err)
		}
		b.groups, err = cgroup.Open(cgroup.Config{Name: "cloister-" + b.installation, MountInfo: info, SelfCgroup: "/proc/self/cgroup"})
		if err != nil {
			t.Fatal(err)
		}
		sandboxtest.Run(t, b, images)
	})
}

// newBackend makes a backend of an installation of its own, and checks at the end of
// the test that nothing of it is left on the host.
func newBackend(t testing.TB) *Backend {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the native sandbox needs root")
	}
	config := testConfig(t)
	before := hostState(t, config)
	b, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, config, before)
	})
	return b
}

func testConfig(t testing.TB) Config {
	t.Helper()
	directory := t.TempDir()
	if err := os.Chmod(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 4)
	rand.Read(id)
	// Tests of several checkouts may run at a time; their ranges hardly meet.
	first := 1<<20 + (int(id[0])<<8+int(id[1]))*1000
	return Config{Installation: hex.EncodeToString(id), Directory: directory, FirstUID: first, UIDs: 1000}
}

// state is what of the host a backend could leave something in.
type onHost struct {
	Mounts, Descriptors []string
	Threads             int
}

func hostState(t testing.TB, c Config) onHost {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var s onHost
	for line := range strings.Lines(string(mounts)) {
		// Tests of other packages run at the same time and mount below their own directories.
		point := strings.Fields(line)[4]
		if !strings.HasPrefix(point, filepath.Join(os.TempDir(), "Test")) || strings.HasPrefix(point, filepath.Dir(c.Directory)) {
			s.Mounts = append(s.Mounts, line)
		}
	}
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && !strings.HasPrefix(target, "anon_inode:[event") {
			s.Descriptors = append(s.Descriptors, strings.Split(target, ":[")[0])
		}
	}
	slices.Sort(s.Descriptors)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	s.Threads = len(threads)
	return s
}

func checkNothingLeft(t testing.TB, c Config, before onHost) {
	t.Helper()
	mark := "cloister-" + c.Installation
	if names, err := loop.Names(mark); err != nil || len(names) > 0 {
		t.Errorf("loop devices are left: %v %v", names, err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/" + mark, "/sys/fs/cgroup/*/" + mark, "/sys/fs/cgroup/*/*/" + mark} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("control groups are left: %v %v", left, err)
		}
	}
	if files, err := os.ReadDir(c.Directory); err != nil || len(files) > 0 {
		t.Errorf("files are left: %v %v", files, err)
	}
	if pids := processesOf(t, c); len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
	}
	deadline := time.Now().Add(5 * time.Second)
	after := hostState(t, c)
	for after.Threads > before.Threads+20 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
		after = hostState(t, c)
	}
	// The Go runtime keeps threads that it made for blocking calls; sandboxes' own threads end.
	if after.Threads > before.Threads+20 {
		t.Errorf("there were %d threads, there are %d", before.Threads, after.Threads)
	}
	after.Threads = before.Threads
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("mounts or descriptors (-before +after): %s", diff)
	}
}

// processesOf returns the processes that run as a user of the range.
func processesOf(t testing.TB, c Config) []string {
	t.Helper()
	statuses, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range statuses {
		b, _ := os.ReadFile(path) // it may have ended
		for line := range strings.Lines(string(b)) {
			var uid int
			if _, err := fmt.Sscanf(line, "Uid:\t%d", &uid); err == nil && uid >= c.FirstUID && uid < c.FirstUID+c.UIDs {
				found = append(found, path)
			}
		}
	}
	return found
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), sandboxtest.Timeout)
	t.Cleanup(cancel)
	return ctx
}
