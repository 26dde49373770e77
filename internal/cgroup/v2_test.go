package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeV2 is a directory that looks like a host with version 2 alone. It shows what is written where,
// not what the kernel makes of it.
func fakeV2(t *testing.T, own string) (root string, c Config) {
	t.Helper()
	root = t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := populate(root); err != nil {
		t.Fatal(err)
	}
	if own != "/" {
		if err := makePopulated(filepath.Join(root, own), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put("mountinfo", fmt.Sprintf("30 20 0:30 / %s rw - cgroup2 cgroup2 rw\n", root))
	put("self", "0::"+own+"\n")
	return root, Config{Name: "owner", MountInfo: root + "/mountinfo", SelfCgroup: root + "/self", MakeDirectory: makePopulated}
}

// populate puts the files into a directory that the kernel would put into a group.
func populate(directory string) error {
	for name, text := range map[string]string{
		"cgroup.controllers": "cpuset cpu io memory hugetlb pids", "cgroup.subtree_control": "", "cgroup.procs": "",
		"cgroup.events": "populated 0\nfrozen 1\n", "cgroup.freeze": "0", "cgroup.kill": "",
		"memory.max": "max", "memory.swap.max": "max", "memory.oom.group": "0", "memory.peak": "7340032\n",
		"memory.events": "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n",
		"cpu.max":       "max 100000", "cpu.weight": "100", "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n", "pids.max": "max",
	} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func makePopulated(directory string, mode os.FileMode) error {
	if err := os.Mkdir(directory, mode); err != nil {
		return err
	}
	return populate(directory)
}

func contents(t *testing.T, directory string, names ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			t.Fatal(err)
		}
		found[name] = string(b)
	}
	return found
}

func TestVersion2LimitsAreWrittenWhereTheKernelReadsThem(t *testing.T) {
	root, config := fakeV2(t, "/")
	h, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Create("group")
	if err != nil {
		t.Fatal(err)
	}
	if g.Handle() == nil {
		t.Error("there is no directory to be born into")
	}
	if err := g.SetLimits(Limits{MemoryBytes: 128 << 20, CPU: 0.5, Processes: 64}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"memory.max": "134217728", "memory.swap.max": "0", "memory.oom.group": "0", "cpu.max": "10000 20000", "cpu.weight": "50", "pids.max": "64",
	}
	if diff := cmp.Diff(want, contents(t, root+"/owner/group", "memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "cpu.weight", "pids.max")); diff != "" {
		t.Errorf("limits (-want +got): %s", diff)
	}
	for _, directory := range []string{root, root + "/owner"} {
		if got := contents(t, directory, "cgroup.subtree_control")["cgroup.subtree_control"]; got != "+memory +cpu +pids" {
			t.Errorf("%s hands on %q", directory, got)
		}
	}
	if got := contents(t, root+"/owner/group", "cgroup.subtree_control")["cgroup.subtree_control"]; got != "" {
		t.Errorf("a group with processes hands on %q: the kernel forbids it", got)
	}
	// Moving a process is not needed, and would not be enough: see Add.
	if err := g.Add(1); err != nil {
		t.Error(err)
	}
	if got := contents(t, root+"/owner/group", "cgroup.procs")["cgroup.procs"]; got != "" {
		t.Errorf("%q was moved", got)
	}
}

func TestVersion2CountersAreRead(t *testing.T) {
	_, config := fakeV2(t, "/")
	h, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Create("group")
	if err != nil {
		t.Fatal(err)
	}
	got, err := g.Usage()
	if diff := cmp.Diff(Usage{MemoryPeakBytes: 7340032, CPU: 1500000, OutOfMemoryKills: 2}, got); diff != "" || err != nil {
		t.Errorf("usage (-want +got): %s %v", diff, err)
	}
}

func TestVersion2KillAndFreezeUseTheGroupsOwnFiles(t *testing.T) {
	root, config := fakeV2(t, "/")
	h, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Create("group")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Freeze(t.Context()); err != nil { // cgroup.events says that it is
		t.Fatal(err)
	}
	if got := contents(t, root+"/owner/group", "cgroup.freeze")["cgroup.freeze"]; got != "1" {
		t.Errorf("cgroup.freeze is %q", got)
	}
	if err := g.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"cgroup.kill": "", "cgroup.freeze": "0"}
	if diff := cmp.Diff(want, contents(t, root+"/owner/group", "cgroup.kill", "cgroup.freeze")); diff != "" {
		t.Errorf("control files (-want +got): %s", diff)
	}
}

func TestADelegatedGroupIsUsedAndABusyOneIsNot(t *testing.T) {
	root, config := fakeV2(t, "/service")
	h, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	if want := root + "/service/owner"; h.unified.directory != want {
		t.Errorf("groups are made in %s, not in %s", h.unified.directory, want)
	}

	root, config = fakeV2(t, "/busy")
	control := filepath.Join(root, "busy", "cgroup.subtree_control")
	if err := os.Remove(control); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(control, 0o700); err != nil { // writing fails, as with EBUSY of the kernel
		t.Fatal(err)
	}
	if h, err = Open(config); err != nil {
		t.Fatal(err)
	}
	if want := root + "/owner"; h.unified.directory != want {
		t.Errorf("groups are made in %s, not in %s", h.unified.directory, want)
	}
	if _, err := os.Stat(root + "/busy/owner"); err == nil {
		t.Error("a directory is left where none can be used")
	}
}

func TestAHostWithVersion2LacksNothingOfVersion1(t *testing.T) {
	_, config := fakeV2(t, "/")
	h, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.v1) != 0 || len(h.parents()) != 1 || !strings.HasSuffix(h.parents()[0].directory, "/owner") {
		t.Errorf("groups lie in %v", h.parents())
	}
}
