package test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloister/test/service"
)

// children returns the processes that serve started, by role.
func children(t *testing.T, s *service.Service) map[string]int {
	t.Helper()
	found := map[string]int{}
	statuses, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range statuses {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(s.PID()) {
			continue
		}
		folder := filepath.Dir(path)
		command, _ := os.ReadFile(filepath.Join(folder, "cmdline"))
		pid, err := strconv.Atoi(filepath.Base(folder))
		if words := bytes.Split(command, []byte{0}); err == nil && len(words) > 1 {
			found[string(words[1])] = pid
		}
	}
	return found
}

// sandboxes are the names of the service's sandboxes, parked ones included.
func sandboxes(s *service.Service) map[string]bool {
	names := map[string]bool{}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/cloister-" + s.ID + "/*") // for CPU time they lie beside each other
	for _, g := range groups {
		if info, err := os.Stat(g); err == nil && info.IsDir() {
			names[filepath.Base(g)] = true
		}
	}
	return names
}

func TestASecondStartFindsEverythingAlsoAfterAKill(t *testing.T) {
	data := t.TempDir()
	s := start(t, func(c *service.Config) { c.Data = data })
	create(t, s, "kept", app)
	if got := invoke(t, s, "kept", `{"name":"a"}`); !strings.Contains(got, "Hello, a") {
		t.Fatal(got)
	}
	key := s.Getenv("AWS_ACCESS_KEY_ID")
	pids := children(t, s)
	for _, role := range []string{"front", "worker"} {
		if pids[role] == 0 {
			t.Fatalf("no %s process among %v", role, pids)
		}
		if err := syscall.Kill(pids[role], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Getenv("AWS_ACCESS_KEY_ID") != key {
		t.Error("the administrator has another key after a restart")
	}
	if got := invoke(t, s, "kept", `{"name":"b"}`); !strings.Contains(got, "Hello, b") {
		t.Error(got)
	}
	if got := logText(t, s, "/aws/lambda/kept"); !strings.Contains(got, "asked by b") {
		eventually(t, "no log line after the restart", func() bool {
			return strings.Contains(logText(t, s, "/aws/lambda/kept"), "asked by b")
		})
	}
}

func TestFrontAndWorkerAreStartedAgainWhenTheyDie(t *testing.T) {
	s := start(t)
	create(t, s, "f", app)
	for _, role := range []string{"worker", "front"} {
		before := children(t, s)[role]
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, role+" was not started again", func() bool {
			now := children(t, s)[role]
			return now != 0 && now != before
		})
		// The CLI's own retries bridge the gap.
		if got := invoke(t, s, "f", `{"name":"again"}`); !strings.Contains(got, "Hello, again") {
			t.Errorf("after the %s was killed: %s", role, got)
		}
	}
}

func TestBothProcessesMayDieAtOnce(t *testing.T) {
	s := start(t)
	create(t, s, "f", app)
	before := children(t, s)
	// With the first process stopped both are dead when it looks again.
	for _, kill := range []struct {
		pid    int
		signal syscall.Signal
	}{{s.PID(), syscall.SIGSTOP}, {before["front"], syscall.SIGKILL}, {before["worker"], syscall.SIGKILL}, {s.PID(), syscall.SIGCONT}} {
		if err := syscall.Kill(kill.pid, kill.signal); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the processes were not started again", func() bool {
		now := children(t, s)
		return now["front"] != 0 && now["worker"] != 0 && now["front"] != before["front"] && now["worker"] != before["worker"]
	})
	if got := invoke(t, s, "f", `{"name":"again"}`); !strings.Contains(got, "Hello, again") {
		t.Error(got)
	}
}

func TestASignalToAllProcessesDrainsAsWell(t *testing.T) {
	s := start(t)
	create(t, s, "slow", map[string][]byte{"app.py": []byte("import time\ndef handler(event, context):\n    time.sleep(event)\n    return 'done'\n")}, "--timeout", "10")
	invoke(t, s, "slow", "0")
	answer := filepath.Join(t.TempDir(), "answer")
	failed := make(chan error, 1)
	go func() {
		_, err := s.AWS(t.Context(), "lambda", "invoke", "--function-name", "slow", "--payload", "4", answer)
		failed <- err
	}()
	time.Sleep(2 * time.Second) // the CLI needs a second to send it
	for _, pid := range children(t, s) {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if err := <-failed; err != nil {
		t.Errorf("the running invocation: %v", err)
	}
	if b, err := os.ReadFile(answer); string(b) != `"done"` {
		t.Errorf("answer %q, %v", b, err)
	}
}

func TestACopyOfARunningInstallationIsRefused(t *testing.T) {
	s := start(t)
	create(t, s, "f", app)
	data := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", s.Data, data).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var said bytes.Buffer
	_, err := service.Start(t.Context(), service.Config{Binary: binary, Data: data, Log: &said})
	if err == nil || !strings.Contains(said.String(), "this is a copy of its data directory") {
		t.Errorf("the copy of a running installation: %v: %s", err, said.String())
	}
	if got := invoke(t, s, "f", `{"name":"still"}`); !strings.Contains(got, "Hello, still") {
		t.Errorf("the original answered %s", got)
	}
}

func TestAStrictUmaskDoesNotMatter(t *testing.T) {
	before := syscall.Umask(0o077)
	defer syscall.Umask(before)
	s := start(t)
	create(t, s, "f", app)
	if got := invoke(t, s, "f", `{"name":"x"}`); !strings.Contains(got, "Hello, x") {
		t.Error(got)
	}
	info, err := os.Stat(filepath.Join(s.Data, "ca.pem"))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("ca.pem: mode %v, %v: clients cannot read it", info.Mode(), err)
	}
}

func TestACallerWhoHangsUpLeavesNoEnvironmentBehind(t *testing.T) {
	s := start(t)
	create(t, s, "slow", map[string][]byte{"app.py": []byte("import time\ntime.sleep(3)\ndef handler(event, context):\n    return 'done'\n")}, "--timeout", "10")
	for range 2 {
		s.AWS(t.Context(), "--cli-read-timeout", "1", "lambda", "invoke", "--function-name", "slow", filepath.Join(t.TempDir(), "answer"))
	}
	environments := func() int { return len(sandboxes(s)) }
	time.Sleep(5 * time.Second)
	before := environments()
	must(t)(s.AWS(t.Context(), "lambda", "delete-function", "--function-name", "slow"))
	eventually(t, "environments of a deleted function live on", func() bool { return environments() < before })
	time.Sleep(time.Second)
	if left := environments(); left > 2 { // what is parked
		t.Errorf("%d sandboxes are left of %d", left, before)
	}
}

func TestTheFrontHasNoPrivilegesAndTheWorkerNoRootKey(t *testing.T) {
	s := start(t)
	create(t, s, "f", app)
	invoke(t, s, "f", `{"name":"x"}`)
	pids := children(t, s)
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pids["front"]), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the front's status has no %q:\n%s", want, status)
		}
	}
	if strings.Contains(string(status), "\nUid:\t0\t") {
		t.Error("the front runs as root")
	}
	files, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pids["worker"]), "fd", "*"))
	if len(files) == 0 {
		t.Fatal("the worker's files cannot be listed")
	}
	for _, f := range files {
		if target, err := os.Readlink(f); err == nil && strings.HasPrefix(target, filepath.Join(s.Data, "front")) {
			t.Errorf("the worker has %s open", target)
		}
	}
	info, err := os.Stat(filepath.Join(s.Data, "front", "state", "root.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("root key: mode %v, %v", info.Mode(), err)
	}
}

func TestSecretsAreInNoArgumentOrEnvironmentOfAProcess(t *testing.T) {
	s := start(t)
	secret := s.Getenv("AWS_SECRET_ACCESS_KEY")
	pids := children(t, s)
	pids["serve"] = s.PID()
	if len(pids) != 3 {
		t.Fatalf("processes %v", pids)
	}
	for role, pid := range pids {
		folder := filepath.Join("/proc", strconv.Itoa(pid))
		for _, name := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte("PRIVATE KEY")) || len(b) > 16<<10 {
				t.Errorf("%s of the %s process holds a secret", name, role)
			}
		}
		limits, err := os.ReadFile(filepath.Join(folder, "limits"))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
			t.Errorf("the %s process may write core files:\n%s", role, limits)
		}
	}
}

func TestNothingOfTheCustomersIsPlainOnDisk(t *testing.T) {
	const canary = "canary-5f1b7c0e-in-plain-text"
	s := start(t)
	create(t, s, "secret", map[string][]byte{"app.py": []byte("MARK = '" + canary + "'\ndef handler(event, context):\n    print(MARK)\n    return event\n")},
		"--environment", "Variables={SECRET="+canary+"}")
	invoke(t, s, "secret", `{"payload":"`+canary+`"}`)
	eventually(t, "the function's log line did not arrive", func() bool {
		return strings.Contains(logText(t, s, "/aws/lambda/secret"), canary)
	})
	secret := s.Getenv("AWS_SECRET_ACCESS_KEY")
	// A control: the search would find the canary.
	control := filepath.Join(s.Data, "worker", "control")
	if err := os.WriteFile(control, []byte("x"+canary), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := search(t, s.Data, canary, secret); len(found) != 1 || found[0] != control {
		t.Errorf("plain text in %v, want only the control", found)
	}
}

// search returns the files below a folder that hold one of the texts.
func search(t *testing.T, folder string, texts ...string) []string {
	t.Helper()
	var found []string
	files := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, text := range texts {
			if bytes.Contains(b, []byte(text)) {
				found = append(found, path)
				break
			}
		}
		return err
	})
	if err != nil || files < 8 {
		t.Fatalf("searched %d files, %v", files, err)
	}
	return found
}

func TestTwoServersOnOneHostDoNotDisturbEachOther(t *testing.T) {
	a := start(t)
	create(t, a, "f", app)
	invoke(t, a, "f", `{"name":"a"}`)
	b, err := service.Start(t.Context(), service.Config{Binary: binary, Clients: clients})
	if err != nil {
		t.Fatal(err)
	}
	create(t, b, "f", map[string][]byte{"app.py": []byte("def handler(event, context):\n    return 'other'\n")})
	if got := invoke(t, b, "f", `{}`); got != `"other"` {
		t.Errorf("the second server answered %s", got)
	}
	if got := invoke(t, a, "f", `{"name":"a"}`); !strings.Contains(got, "Hello, a") {
		t.Errorf("beside a second server the first answered %s", got)
	}
	// The keys of one are nothing to the other.
	environ := b.Environ
	b.Environ = append(append([]string{}, environ...), "AWS_ACCESS_KEY_ID="+a.Getenv("AWS_ACCESS_KEY_ID"), "AWS_SECRET_ACCESS_KEY="+a.Getenv("AWS_SECRET_ACCESS_KEY"))
	_, err = b.AWS(t.Context(), "lambda", "list-functions")
	refused(t, err, "UnrecognizedClientException")
	b.Environ = environ
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if left := service.Leftovers(b.ID); len(left) > 0 {
		t.Errorf("the second server left %v", left)
	}
	if got := invoke(t, a, "f", `{"name":"a"}`); !strings.Contains(got, "Hello, a") {
		t.Errorf("after the second server ended the first answered %s", got)
	}
}

func TestAStopWaitsForRunningInvocations(t *testing.T) {
	s := start(t)
	create(t, s, "slow", map[string][]byte{"app.py": []byte("import time\ndef handler(event, context):\n    time.sleep(3)\n    return 'done'\n")}, "--timeout", "10")
	answer := filepath.Join(t.TempDir(), "answer")
	failed := make(chan error, 1)
	go func() {
		_, err := s.AWS(t.Context(), "lambda", "invoke", "--function-name", "slow", answer)
		failed <- err
	}()
	// The invocation has begun when its environment exists.
	eventually(t, "the function was not started", func() bool { return len(sandboxes(s)) > 0 })
	time.Sleep(time.Second)
	if err := s.Stop(); err != nil {
		t.Errorf("SIGTERM during an invocation: %v", err)
	}
	if err := <-failed; err != nil {
		t.Errorf("the running invocation: %v", err)
	}
	if b, err := os.ReadFile(answer); string(b) != `"done"` {
		t.Errorf("answer %q, %v", b, err)
	}
}
