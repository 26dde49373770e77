package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// hosts are the ways in which this machine's kernel can be used: as it is, and as if it had no
// version 2.
func hosts(t *testing.T) map[string]Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("control groups need root")
	}
	real, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]Config{"as the host is": {Name: testName(t)}}
	if strings.Contains(string(real), " - cgroup ") { // a host with version 2 alone has no freezer of version 1
		withoutV2 := filepath.Join(t.TempDir(), "mountinfo")
		lines := slices.DeleteFunc(strings.SplitAfter(string(real), "\n"), func(l string) bool { return strings.Contains(l, " - cgroup2 ") })
		if err := os.WriteFile(withoutV2, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		all["version 1 only"] = Config{Name: testName(t) + "-v1", MountInfo: withoutV2, SelfCgroup: "/proc/self/cgroup"}
	}
	return all
}

func testName(t *testing.T) string {
	return fmt.Sprintf("cloister-cgroup-test-%d-%d", os.Getpid(), time.Now().UnixNano())
}

func newGroup(t *testing.T, c Config) *Group {
	t.Helper()
	h, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Create("group")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(g.Kill(ctx), g.Remove(ctx), h.Close()); err != nil {
			t.Error(err)
		}
		left := g.directories()
		for _, n := range h.parents() {
			if n.prefix == "" {
				left = append(left, n.directory)
			}
		}
		for _, d := range left {
			if _, err := os.Stat(d); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", d, err)
			}
		}
	})
	return g
}

// startIn runs a shell script whose process is in the group before it begins.
func startIn(t *testing.T, g *Group, script string) (*exec.Cmd, io.Reader) {
	t.Helper()
	c := exec.Command("sh", "-c", "read go; "+script)
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if g.Handle() != nil {
		c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(g.Handle().Fd())}
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the group's own cleanup
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := g.Kill(ctx); err != nil {
			t.Error(err)
		}
		c.Wait()
	})
	if err := g.Add(c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
	return c, stdout
}

func TestLimitsAreReadBackFromTheKernel(t *testing.T) {
	for name, config := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, config)
			c, _ := startIn(t, g, "sleep 60")
			l := Limits{MemoryBytes: 128 << 20, CPU: 0.07, Processes: 40}
			if err := g.SetLimits(l); err != nil {
				t.Fatal(err)
			}
			if err := g.CheckLimits(l, c.Process.Pid); err != nil {
				t.Error(err)
			}
			for _, other := range []Limits{
				{MemoryBytes: 129 << 20, CPU: 0.07, Processes: 40},
				{MemoryBytes: 128 << 20, CPU: 0.08, Processes: 40},
				{MemoryBytes: 128 << 20, CPU: 0.07, Processes: 41},
			} {
				if err := g.CheckLimits(other, c.Process.Pid); err == nil {
					t.Errorf("the kernel is said to enforce %+v", other)
				}
			}
			if err := g.CheckLimits(l, os.Getpid()); err == nil {
				t.Error("this process is said to be in the group")
			}
			if err := g.SetCPU(2); err != nil {
				t.Fatal(err)
			}
			l.CPU = 2
			if err := g.CheckLimits(l, c.Process.Pid); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAFrozenGroupStandsStillUntilItIsThawed(t *testing.T) {
	for name, config := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, config)
			c, stdout := startIn(t, g, "while :; do echo x; done")
			buffer := make([]byte, 1<<16)
			if _, err := io.ReadAtLeast(stdout, buffer, 100); err != nil {
				t.Fatal(err)
			}
			if err := g.Freeze(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := processTime(t, c.Process.Pid)
			for range 5 { // make room, so that only the freezing can hold it back
				stdout.(*os.File).SetReadDeadline(time.Now().Add(10 * time.Millisecond))
				stdout.Read(buffer)
			}
			if after := processTime(t, c.Process.Pid); after != before {
				t.Errorf("it ran for %s ticks while frozen", after)
			}
			if err := g.Thaw(); err != nil {
				t.Fatal(err)
			}
			stdout.(*os.File).SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.ReadAtLeast(stdout, buffer, 100); err != nil {
				t.Errorf("it does not run on: %v", err)
			}
		})
	}
}

// processTime returns user and system time of a process in ticks, as text.
func processTime(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(b))[13:15], "+")
}

func TestKillEndsAForkBombAndAFrozenProcess(t *testing.T) {
	for name, config := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, config)
			if err := g.SetLimits(Limits{MemoryBytes: 256 << 20, CPU: 1, Processes: 50}); err != nil {
				t.Fatal(err)
			}
			c, _ := startIn(t, g, `f() { f | f & }; while :; do f 2>/dev/null; done`)
			time.Sleep(50 * time.Millisecond)
			for range 2 {
				if err := g.Kill(t.Context()); err != nil {
					t.Fatal(err)
				}
				if left, err := g.processes(); err != nil || len(left) > 0 {
					t.Errorf("%d processes are left, %v", len(left), err)
				}
				if err := c.Wait(); err == nil {
					t.Error("the process ended well")
				}
				c, _ = startIn(t, g, "sleep 60")
				if err := g.Freeze(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := g.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Without the limit lifted, those who die use their share up again and again.
func TestManyProcessesOfASmallShareDieWithoutWaitingForIt(t *testing.T) {
	for name, config := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, config)
			if err := g.SetLimits(Limits{MemoryBytes: 1 << 30, CPU: 1, Processes: 1000}); err != nil {
				t.Fatal(err)
			}
			_, stdout := startIn(t, g, `for i in $(seq 400); do sleep 1000 & done; echo started; wait`)
			if _, err := io.ReadAtLeast(stdout, make([]byte, 16), 8); err != nil {
				t.Fatal(err)
			}
			if err := g.SetCPU(0.05); err != nil {
				t.Fatal(err)
			}
			waits := func() int64 {
				t.Helper()
				n, err := field(filepath.Join(g.place(cpu), "cpu.stat"), "nr_throttled")
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			before := waits()
			if err := g.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := waits() - before; n > 3 {
				t.Errorf("the dying waited %d times for CPU time", n)
			}
			limit, err := words(filepath.Join(g.place(cpu), map[bool]string{true: "cpu.max", false: "cpu.cfs_quota_us"}[g.hierarchy.inV2[cpu]]))
			if err != nil || limit[0] != "1000" {
				t.Errorf("the limit is %v afterwards, %v", limit, err)
			}
		})
	}
}

func TestAGroupFreezesWhileItsProcessesFork(t *testing.T) {
	for name, config := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, config)
			startIn(t, g, "while :; do env true; done")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for range 50 {
				if err := g.Freeze(ctx); err != nil {
					t.Fatal(err)
				}
				if err := g.Thaw(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func TestAProcessCanBeBornIntoAGroupThatWasKilled(t *testing.T) {
	for name, config := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, config)
			for range 3 {
				startIn(t, g, "sleep 60")
				if err := g.Kill(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if c, _ := startIn(t, g, "exit 7"); c.Wait() == nil || c.ProcessState.ExitCode() != 7 {
				t.Errorf("it ended with %s", c.ProcessState)
			}
		})
	}
}

func TestUsageGrowsWithTheWork(t *testing.T) {
	for name, config := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, config)
			c, _ := startIn(t, g, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
			if err := c.Wait(); err != nil {
				t.Fatal(err)
			}
			u, err := g.Usage()
			if err != nil {
				t.Fatal(err)
			}
			if u.CPU <= 0 || u.MemoryPeakBytes <= 0 || u.OutOfMemoryKills != 0 {
				t.Errorf("usage %+v", u)
			}
			if err := g.ResetPeak(); err != nil {
				t.Fatal(err)
			}
			if again, err := g.Usage(); err != nil || again.MemoryPeakBytes > u.MemoryPeakBytes {
				t.Errorf("after the reset the peak is %d, was %d, %v", again.MemoryPeakBytes, u.MemoryPeakBytes, err)
			}
		})
	}
}

func TestWhatAKilledProcessLeftIsFoundByName(t *testing.T) {
	for name, config := range hosts(t) {
		t.Run(name, func(t *testing.T) {
			newGroup(t, config)
			again, err := Open(config)
			if err != nil {
				t.Fatal(err)
			}
			names, err := again.Groups()
			if diff := cmp.Diff([]string{"group"}, names); diff != "" || err != nil {
				t.Errorf("groups (-want +got): %s %v", diff, err)
			}
			other := config
			other.Name += "-other"
			stranger, err := Open(other)
			if err != nil {
				t.Fatal(err)
			}
			defer stranger.Close()
			if names, err := stranger.Groups(); len(names) > 0 || err != nil {
				t.Errorf("another owner sees %v, %v", names, err)
			}
		})
	}
}

func TestMountsAreFoundInEveryArrangement(t *testing.T) {
	const v1 = `25 20 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:22 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
27 25 0:23 / /sys/fs/cgroup/memory rw,relatime - cgroup none rw,memory
28 25 0:23 /part /elsewhere rw,relatime - cgroup none rw,pids
`
	const v2 = "30 20 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
	for _, c := range []struct {
		name, text string
		want       mounts
	}{
		{"nothing", "20 1 254:1 / / rw - ext4 /dev/vda rw\ngarbage\n", mounts{v1: map[controller]string{}}},
		{"two controllers in one hierarchy", v1, mounts{v1: map[controller]string{
			cpu: "/sys/fs/cgroup/cpu,cpuacct", cpuacct: "/sys/fs/cgroup/cpu,cpuacct", memory: "/sys/fs/cgroup/memory"}}},
		{"version 2", v2, mounts{v1: map[controller]string{}, unified: "/sys/fs/cgroup/unified"}},
	} {
		got, err := parseMounts(strings.NewReader(c.text))
		for k, v := range got.v1 {
			if v == "" {
				delete(got.v1, k)
			}
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(mounts{})); diff != "" || err != nil {
			t.Errorf("%s (-want +got): %s %v", c.name, diff, err)
		}
	}
}

func TestAHostWithoutAControllerIsToldWhichOne(t *testing.T) {
	directory := t.TempDir()
	info := filepath.Join(directory, "mountinfo")
	write := fmt.Sprintf("27 25 0:23 / %s rw - cgroup none rw,memory\n", directory)
	if err := os.WriteFile(info, []byte(write), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Config{Name: "x", MountInfo: info, SelfCgroup: os.DevNull})
	if err == nil || !strings.Contains(err.Error(), "no cpu controller") {
		t.Errorf("error %v", err)
	}
}

func TestANameThatLeavesItsDirectoryIsRefused(t *testing.T) {
	for _, name := range []string{"", "..", "a/b", ".hidden", "a\nb"} {
		if _, err := Open(Config{Name: name}); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}
