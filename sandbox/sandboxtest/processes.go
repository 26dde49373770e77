package sandboxtest

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloister/lambda"
	"cloister/sandbox"
)

func (s *suite) processes() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"AProgramGetsItsArgumentsAndNothingElse": s.identity,
		"ExitStatusesAndSignalsAreReported":      s.exits,
		"WhatCannotBeExecutedIsAnError":          s.notExecutable,
		"AScriptRunsInItsInterpreter":            s.script,
		"OrphansAreCollected":                    s.orphans,
		"ManyProcessesRunSideBySide":             s.sideBySide,
		"ALargeEnvironmentArrivesWhole":          s.largeEnvironment,
	}
}

// Identity is what the probe says of itself.
type Identity struct {
	UID, GID, PID        int
	Groups               []int
	Arguments, Variables []string
	Directory, Host      string
	Descriptors          []string
	Status               map[string]string
	Limits               string
	MountInfo, Group     string
}

func devNull(t testing.TB) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err, "open null device")
	t.Cleanup(func() { f.Close() })
	return f
}

func (s *suite) identity(t *testing.T) {
	box := s.attach(t, Limits)
	var got Identity
	startProcess(t, box, sandbox.Process{
		Path: "/probe", Args: []string{"name", "identity", "", "two words"}, Env: []string{"A=1", "EMPTY="}, Dir: "/var/task",
	}).Answer(t, &got)
	if diff := cmp.Diff([]string{"name", "identity", "", "two words"}, got.Arguments); diff != "" {
		t.Errorf("arguments (-want +got): %s", diff)
	}
	if diff := cmp.Diff([]string{"A=1", "EMPTY="}, got.Variables); diff != "" {
		t.Errorf("variables (-want +got): %s", diff)
	}
	if got.Directory != "/var/task" {
		t.Errorf("directory %s", got.Directory)
	}
	if got.UID == 0 || got.GID == 0 || len(got.Groups) > 0 && !slices.Equal(got.Groups, []int{got.GID}) {
		t.Errorf("user %d, group %d, groups %v", got.UID, got.GID, got.Groups)
	}
	if host, _ := os.Hostname(); got.Host == host && host != "localhost" {
		t.Errorf("the host's name %q is seen", got.Host)
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if value, err := strconv.ParseUint(got.Status[set], 16, 64); err != nil || value != 0 {
			t.Errorf("%s is %q", set, got.Status[set])
		}
	}
	if got.Status["NoNewPrivs"] != "1" {
		t.Errorf("NoNewPrivs is %q", got.Status["NoNewPrivs"])
	}
	if len(got.Descriptors) != 3 || got.Descriptors[0] != "0 /dev/null" ||
		!strings.HasPrefix(got.Descriptors[1], "1 pipe:") || !strings.HasPrefix(got.Descriptors[2], "2 pipe:") {
		t.Errorf("descriptors %q", got.Descriptors)
	}
}

func (s *suite) exits(t *testing.T) {
	box := s.attach(t, Limits)
	for _, c := range []struct {
		arguments []string
		want      sandbox.Exit
	}{
		{[]string{"exit", "0"}, sandbox.Exit{}},
		{[]string{"exit", "1"}, sandbox.Exit{Code: 1}},
		{[]string{"exit", "255"}, sandbox.Exit{Code: 255}},
		{[]string{"signal", "9"}, sandbox.Exit{Code: -1, Signal: 9}},
		{[]string{"nonsense"}, sandbox.Exit{Code: 2}},
	} {
		running := Start(t, box, c.arguments...)
		if diff := cmp.Diff(c.want, running.Exit(t)); diff != "" {
			t.Errorf("%v (-want +got): %s", c.arguments, diff)
		}
		if running.Wait() != c.want {
			t.Error("a second Wait says something else")
		}
	}
}

func (s *suite) notExecutable(t *testing.T) {
	box := s.attach(t, Limits)
	null := devNull(t)
	for _, c := range []struct {
		name, words string
		process     sandbox.Process
	}{
		{"missing", "no such file", sandbox.Process{Path: "/var/task/missing"}},
		{"not executable", "permission denied", sandbox.Process{Path: "/var/task/plain"}},
		{"garbage", "exec format error", sandbox.Process{Path: "/var/task/garbage"}},
		{"directory", "permission denied", sandbox.Process{Path: "/var/task"}},
		{"no such working directory", "no such file", sandbox.Process{Path: "/probe", Dir: "/nowhere"}},
		{"NUL in an argument", "invalid argument", sandbox.Process{Path: "/probe", Args: []string{"a\x00b"}}},
		{"too many arguments", "too long", sandbox.Process{Path: "/probe", Args: []string{strings.Repeat("x", 1<<20)}}},
	} {
		c.process.Stdout, c.process.Stderr = null, null
		_, err := box.Start(s.context(t), c.process)
		if lambda.KindOf(err) != lambda.InvalidRuntime || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	ask[Identity](t, box, "identity") // and the sandbox is as good as before
}

func (s *suite) script(t *testing.T) {
	box := s.attach(t, Limits)
	var got Identity
	startProcess(t, box, sandbox.Process{Path: "/var/task/script"}).Answer(t, &got)
	if diff := cmp.Diff([]string{"/probe", "identity", "/var/task/script"}, got.Arguments); diff != "" {
		t.Errorf("arguments (-want +got): %s", diff)
	}
}

func (s *suite) orphans(t *testing.T) {
	if zombies := ask[int](t, s.attach(t, Limits), "orphans", "20"); zombies != 0 {
		t.Errorf("%d are left as zombies", zombies)
	}
}

func (s *suite) sideBySide(t *testing.T) {
	box := s.attach(t, Limits)
	first, second := Start(t, box, "wait"), Start(t, box, "wait")
	a, b := ask[Identity](t, box, "identity"), ask[Identity](t, box, "identity")
	if a.UID != b.UID || a.PID == b.PID {
		t.Errorf("users %d and %d, processes %d and %d", a.UID, b.UID, a.PID, b.PID)
	}
	must(t, box.KillAll(s.context(t)), "kill all")
	first.Exit(t)
	second.Exit(t)
}

func (s *suite) largeEnvironment(t *testing.T) {
	var variables []string
	for i := range 500 {
		variables = append(variables, "V"+strconv.Itoa(i)+"="+strings.Repeat("v", 100))
	}
	var got Identity
	startProcess(t, s.attach(t, Limits), sandbox.Process{Path: "/probe", Args: []string{"/probe", "identity"}, Env: variables}).Answer(t, &got)
	if diff := cmp.Diff(variables, got.Variables); diff != "" {
		t.Errorf("variables (-want +got): %s", diff)
	}
}
