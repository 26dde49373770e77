package native

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cloister/internal/loop"
	"cloister/lambda"
	"cloister/sandbox"
	"cloister/sandbox/sandboxtest"
)

// What only the host's kernel can tell.

func parkCell(t testing.TB, b *Backend, class sandbox.Class) *cell {
	t.Helper()
	s, err := b.Park(testContext(t), class)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { destroyCell(t, s.(*cell)) })
	return s.(*cell)
}

func destroyCell(t testing.TB, c *cell) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), sandboxtest.Timeout)
	defer cancel()
	if err := c.Destroy(ctx); err != nil {
		t.Error(err)
	}
}

func attachCell(t testing.TB, b *Backend, images sandboxtest.Images) *cell {
	t.Helper()
	c := parkCell(t, b, images.Class)
	if err := c.Attach(testContext(t), images.Code, sandboxtest.Limits); err != nil {
		t.Fatal(err)
	}
	return c
}

func pids(c *cell) (all []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.processes {
		all = append(all, p.child.pid)
	}
	return all
}

func TestEveryLimitAndLostPrivilegeIsInTheKernelWhileUserCodeRuns(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	c := attachCell(t, b, images)
	// The first process was made ready by Park, the others were not.
	for range 3 {
		sandboxtest.Start(t, c, "wait")
	}
	for _, pid := range pids(c) {
		if err := c.inspect(pid, sandboxtest.Limits); err != nil {
			t.Error(err)
		}
		checkResourceLimits(t, pid)
		if score := fileText(t, pid, "oom_score_adj"); score != fmt.Sprint(oomScore) {
			t.Errorf("oom_score_adj is %s", score)
		}
	}
	if len(pids(c)) != 3 {
		t.Errorf("processes %v", pids(c))
	}
	wrong := sandboxtest.Limits
	wrong.MemoryMiB++
	if err := c.inspect(pids(c)[0], wrong); err == nil {
		t.Error("the inspection does not look at the memory limit")
	}
	if err := c.inspect(os.Getpid(), sandboxtest.Limits); err == nil {
		t.Error("the inspection takes this process for one of the sandbox")
	}
}

func fileText(t testing.TB, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func checkResourceLimits(t testing.TB, pid int) {
	t.Helper()
	got := map[string]string{}
	for line := range strings.Lines(fileText(t, pid, "limits")) {
		name, rest := strings.TrimSpace(line[:26]), strings.Fields(line[26:])
		got[name] = strings.Join(rest[:2], " ")
	}
	for name, want := range map[string]string{
		"Max open files": "128 128", "Max core file size": "1 1", "Max nice priority": "0 0", "Max realtime priority": "0 0", "Max locked memory": "65536 65536",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, not %q", name, got[name], want)
		}
	}
}

func TestNothingOfTheWorkerIsInherited(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	// A worker that was started carelessly: by nohup, from a shell with open files, in groups.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	leaked, err := unix.Dup(int(r.Fd())) // without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leaked)
	groups, err := unix.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setgroups([]int{4, 24}); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setgroups(groups)
	signal.Ignore(unix.SIGHUP, unix.SIGUSR1)
	defer signal.Reset(unix.SIGHUP, unix.SIGUSR1)
	// Package signal leaves this one alone, but another parent may ignore it.
	const realTime = 32
	ignore, before := [4]uint64{1}, [4]uint64{} // struct sigaction: handler, flags, restorer, mask
	setAction(t, realTime, &ignore, &before)
	defer setAction(t, realTime, &before, nil)
	defer unix.Umask(unix.Umask(0))
	t.Setenv("CLOISTER_SECRET", "of the worker")

	c := attachCell(t, b, images)
	for range 2 { // the one from Park, and a fresh one
		sandboxtest.Start(t, c, "serve").Line(t) // its Go runtime has settled
	}
	for _, pid := range pids(c) {
		status := fileText(t, pid, "status")
		for _, line := range []string{"Groups:\t \n", "SigBlk:\t0000000000000000\n", "SigIgn:\t0000000000000000\n", "Umask:\t0022\n"} {
			if !strings.Contains(status, line) {
				t.Errorf("there is no %q in\n%s", line, status)
			}
		}
		if session, err := unix.Getsid(pid); err != nil || session != pid {
			t.Errorf("process %d is in session %d, %v", pid, session, err)
		}
		if environment := fileText(t, pid, "environ"); environment != "" {
			t.Errorf("the environment is %q", environment)
		}
		for _, root := range []string{"root", "cwd"} {
			if target, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, root)); err != nil || root == "root" && target != "/" || root == "cwd" && target != "/var/task" {
				t.Errorf("%s is %s, %v", root, target, err)
			}
		}
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			target, err := os.Readlink(fd)
			// The Go runtime of the probe opens a poller and looks for its CPU limit.
			own := strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "/proc/")
			if number, _ := strconv.Atoi(filepath.Base(fd)); err == nil && number > 2 && !own {
				t.Errorf("descriptor %d is %s", number, target)
			}
		}
	}
}

func TestEveryMountIsAsTightAsItCanBe(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	var i sandboxtest.Identity
	sandboxtest.Start(t, attachCell(t, b, images), "identity").Answer(t, &i)
	want := map[string]string{ // of those that are not "ro nosuid nodev noexec"
		"/": "ro nosuid nodev", "/var/task": "ro nosuid nodev", "/tmp": "rw nosuid nodev", "/dev": "ro nosuid noexec", "/proc": "rw nosuid nodev noexec",
	}
	seen := map[string]bool{}
	for line := range strings.Lines(i.MountInfo) {
		fields := strings.Fields(line)
		target, source := fields[4], fields[len(fields)-2]
		seen[target] = true
		var flags []string
		for _, f := range strings.Split(fields[5], ",") {
			if f != "relatime" {
				flags = append(flags, f)
			}
		}
		expected := cmp.Or(want[target], "ro nosuid nodev noexec")
		if source == "dev" && target != "/dev" && strings.HasSuffix(fields[3], "/null") {
			expected = "ro nosuid noexec" // covered by the null device
		}
		if got := strings.Join(flags, " "); got != expected {
			t.Errorf("%s is %q, not %q", target, got, expected)
		}
		if !slices.Contains([]string{"image", "tmp", "dev", "proc"}, source) {
			t.Errorf("%s shows its source %q", target, source)
		}
	}
	for _, target := range append(slices.Collect(maps.Keys(want)), "/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/cmdline", "/proc/kallsyms", "/proc/keys") {
		if !seen[target] {
			t.Errorf("%s is not a mount", target)
		}
	}
}

func TestAParkedSandboxHoldsNoPrivilege(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	c := parkCell(t, b, images.Class)
	for name, pid := range map[string]int{"starter": c.waiting.pid, "keeper": c.keeper.pid} {
		status := fileText(t, pid, "status")
		for _, line := range []string{"CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(status, line) {
				t.Errorf("the %s does not have %q:\n%s", name, line, status)
			}
		}
		if strings.Contains(status, "Uid:\t0") {
			t.Errorf("the %s is root", name)
		}
		if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err != nil || len(fds) > 4 {
			t.Errorf("the %s has the descriptors %v, %v", name, fds, err)
		}
	}
	if keeper := fileText(t, c.keeper.pid, "status"); strings.Contains(keeper, fmt.Sprintf("Uid:\t%d", c.uid)) {
		t.Error("the keeper runs as the function's user, which could then look into it")
	}
}

func TestOneMountServesAllThatNameTheKey(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	first, second := attachCell(t, b, images), attachCell(t, b, images)
	other := images.Code[0]
	other.Image.Key = "another account's code"
	third := parkCell(t, b, images.Class)
	if err := third.Attach(testContext(t), []sandbox.Mount{other}, sandboxtest.Limits); err != nil {
		t.Fatal(err)
	}
	device := func(c *cell) string {
		var i sandboxtest.Identity
		sandboxtest.Start(t, c, "identity").Answer(t, &i)
		for line := range strings.Lines(i.MountInfo) {
			if fields := strings.Fields(line); fields[4] == "/var/task" {
				return fields[2]
			}
		}
		t.Fatalf("no mount at /var/task in\n%s", i.MountInfo)
		return ""
	}
	if a, b := device(first), device(second); a != b {
		t.Errorf("the same key is mounted twice: %s and %s", a, b)
	}
	if a, b := device(first), device(third); a == b {
		t.Error("the same image under another key shares the mount")
	}
	if n := b.images.mounted(); n != 3 {
		t.Errorf("%d images are mounted", n)
	}
	for _, c := range []*cell{first, second, third} {
		destroyCell(t, c)
	}
	if n := b.images.mounted(); n != 0 {
		t.Errorf("%d images are mounted with no sandbox left", n)
	}
	awaitNoLoops(t, b.mark())
}

func TestUnusedImagesStayMountedAsLongAsThereIsRoom(t *testing.T) {
	images := sandboxtest.Build(t)
	config := testConfig(t)
	code := images.Code[0].Image
	config.IdleImageBytes = images.Class.Root.Size + 2*code.Size
	b, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		c := parkCell(t, b, images.Class)
		code.Key = fmt.Sprint("version ", i)
		if err := c.Attach(testContext(t), []sandbox.Mount{{Target: "/var/task", Image: code}}, sandboxtest.Limits); err != nil {
			t.Fatal(err)
		}
		var files map[string]string
		sandboxtest.Start(t, c, "list", "/var/task").Answer(t, &files)
		if len(files) != 4 {
			t.Errorf("the code is %v", files)
		}
		destroyCell(t, c)
	}
	for key, want := range map[string]bool{"root": true, "version 0": false, "version 1": false, "version 2": true, "version 3": true} {
		if b.images.byKey[key] != nil != want {
			t.Errorf("%s is mounted: %v", key, !want)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	awaitNoLoops(t, b.mark())
}

func awaitNoLoops(t testing.TB, prefix string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		names, err := loop.Names(prefix)
		if err == nil && len(names) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("loop devices %v, %v", names, err)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestASizeThatDoesNotBelongToTheKeyIsRefused(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	attachCell(t, b, images)
	c := parkCell(t, b, images.Class)
	wrong := images.Code[0]
	wrong.Image.Size -= 4096
	if err := c.Attach(testContext(t), []sandbox.Mount{wrong}, sandboxtest.Limits); err == nil {
		t.Error("it was accepted")
	}
}

func TestAUserIsNotUsedAgainBeforeAllOthers(t *testing.T) {
	images := sandboxtest.Build(t)
	config := testConfig(t)
	config.UIDs = 4
	b, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var used []int
	for range 4 {
		c := parkCell(t, b, images.Class)
		used = append(used, c.uid)
		destroyCell(t, c)
	}
	if slices.Contains(used[1:3], used[0]) || used[3] != used[0] {
		t.Errorf("users %v", used)
	}
	var live []*cell
	for range 3 {
		live = append(live, parkCell(t, b, images.Class))
	}
	if _, err := b.Park(testContext(t), images.Class); lambda.KindOf(err) != lambda.Capacity {
		t.Errorf("with no user left: %v", err)
	}
	if err := b.Close(); err == nil {
		t.Error("closed with live sandboxes")
	}
	for _, c := range live {
		destroyCell(t, c)
	}
}

func TestAnInterruptedDestroyCanBeFinished(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	c := attachCell(t, b, images)
	sandboxtest.Start(t, c, "wait")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Destroy(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("destroy with an ended context: %v", err)
	}
	if len(b.uids) != 999-1 {
		t.Error("the user id is free although the sandbox may still exist")
	}
	if err := c.Destroy(testContext(t)); err != nil {
		t.Error(err)
	}
	if len(b.uids) != 999 {
		t.Error("the user id is lost")
	}
}

func TestNothingIsLeftWhereverParkIsInterrupted(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	parked, refused := 0, 0
	for after := 200 * time.Microsecond; parked < 2 && after < 2*time.Second; after = after * 5 / 4 {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		s, err := b.Park(ctx, images.Class)
		cancel()
		if err != nil {
			refused++
			continue
		}
		parked++
		destroyCell(t, s.(*cell))
	}
	if parked == 0 || refused == 0 {
		t.Errorf("parked %d times, refused %d times", parked, refused)
	}
	if n := b.images.mounted(); n != 0 || len(b.uids) != 999 || b.live != 0 {
		t.Errorf("%d images, %d users, %d sandboxes", n, len(b.uids), b.live)
	}
}

func TestTheEndOfTheFirstProcessEndsTheSandbox(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	c := attachCell(t, b, images)
	probe := sandboxtest.Start(t, c, "wait")
	if err := unix.Kill(c.keeper.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := probe.Exit(t); exit.Signal != 9 {
		t.Errorf("it ended with %+v", exit)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := c.Start(testContext(t), sandbox.Process{Path: "/probe", Stdout: null, Stderr: null}); err == nil {
		t.Error("a process was started where nothing can live")
	}
}

func TestABadRootIsRefusedWithItsReason(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "garbage"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	class := func(root sandbox.Image, size int) sandbox.Class { return sandbox.Class{Root: root, EphemeralMiB: size} }
	for name, c := range map[string]struct {
		class sandbox.Class
		words string
	}{
		"not an image":        {class(sandbox.Image{Key: "garbage", File: file, Size: 1 << 20}, 512), "mount erofs"},
		"nothing to mount on": {class(images.Code[0].Image, 512), "mount at"},
		"too little /tmp":     {class(images.Class.Root, 511), "511 MiB"},
		"too much /tmp":       {class(images.Class.Root, 10241), "10241 MiB"},
	} {
		if _, err := b.Park(testContext(t), c.class); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := b.images.mounted(); n != 0 || b.live != 0 {
		t.Errorf("%d images, %d sandboxes", n, b.live)
	}
}

func TestTheLargestEphemeralStorageIsAccepted(t *testing.T) {
	b, images := newBackend(t), sandboxtest.Build(t)
	class := images.Class
	class.EphemeralMiB = maxEphemeralMiB
	c := parkCell(t, b, class)
	if err := c.Attach(testContext(t), nil, sandboxtest.Limits); err != nil {
		t.Fatal(err)
	}
	var i sandboxtest.Identity
	sandboxtest.Start(t, c, "identity").Answer(t, &i)
}

func TestAConfigurationThatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"installation":       func(c *Config) { c.Installation = "../../etc" },
		"upper case":         func(c *Config) { c.Installation = "ABCDEF01" },
		"no directory":       func(c *Config) { c.Directory = "/does/not/exist" },
		"readable directory": func(c *Config) { os.Chmod(c.Directory, 0o755) },
		"system users":       func(c *Config) { c.FirstUID = 0 },
		"one user":           func(c *Config) { c.UIDs = 1 },
		"nobody":             func(c *Config) { c.FirstUID = 1<<32 - 2 },
	} {
		config := testConfig(t)
		change(&config)
		if b, err := New(config); err == nil {
			t.Errorf("%s: accepted", name)
			b.Close()
		}
	}
}

// setAction is rt_sigaction.
func setAction(t *testing.T, signal uintptr, action, before *[4]uint64) {
	t.Helper()
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(before)), 8, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
}
