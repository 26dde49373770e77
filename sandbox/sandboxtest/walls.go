package sandboxtest

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloister/sandbox"
)

func (s *suite) walls() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"TheRootHoldsTheImageAndNothingElse":   s.rootListing,
		"NothingButTmpCanBeWritten":            s.readOnly,
		"NothingOutsideCanBeConnectedTo":       s.noWayOut,
		"WhatMustBeRefusedIsRefused":           s.refused,
		"TwoSandboxesDoNotSeeEachOther":        s.isolated,
		"EachSandboxHasAUserOfItsOwn":          s.users,
		"MountInformationShowsNothingOfAHost":  s.mountInfo,
		"TheFirstProcessIsNeitherSeenNorSpied": s.firstProcess,
	}
}

func (s *suite) rootListing(t *testing.T) {
	box := s.attach(t, Limits)
	got := ask[map[string]string](t, box, "list", "/", "/var", "/var/task", "/opt", "/dev", "/tmp", "/var/runtime")
	want := map[string]string{
		"/dev": "drwxr-xr-x", "/proc": "dr-xr-xr-x", "/tmp": "drwx------", "/opt": "drwxr-xr-x", "/var": "drwxr-xr-x",
		"/probe": "-rwxr-xr-x", "/link": "Lrwxrwxrwx", "/var/task": "drwxr-xr-x", "/var/runtime": "drwxr-xr-x",
		"/var/task/code.txt": "-rw-r--r--", "/var/task/script": "-rwxr-xr-x", "/var/task/garbage": "-rwxr-xr-x", "/var/task/plain": "-rw-r--r--",
		"/dev/null": "Dcrw-rw-rw-", "/dev/zero": "Dcrw-rw-rw-", "/dev/full": "Dcrw-rw-rw-", "/dev/random": "Dcrw-rw-rw-", "/dev/urandom": "Dcrw-rw-rw-",
		"/dev/fd": "Lrwxrwxrwx", "/dev/stdin": "Lrwxrwxrwx", "/dev/stdout": "Lrwxrwxrwx", "/dev/stderr": "Lrwxrwxrwx",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got): %s", diff)
	}
}

func (s *suite) readOnly(t *testing.T) {
	box := s.attach(t, Limits)
	paths := []string{"/file", "/probe", "/var/task/file", "/var/task/code.txt", "/opt/file", "/var/runtime/file", "/dev/file",
		"/dev/shm/file", "/proc/file", "/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward", "/proc/self/exe", "/etc/passwd"}
	for path, err := range ask[map[string]string](t, box, append([]string{"write"}, paths...)...) {
		if err == "" {
			t.Errorf("%s can be written", path)
		}
	}
	for path, err := range ask[map[string]string](t, box, "write", "/tmp/file", "/dev/null", "/dev/zero") {
		if err != "" {
			t.Errorf("%s: %s", path, err)
		}
	}
	full := ask[map[string]string](t, box, "write", "/dev/full")
	if full["/dev/full"] != "no space left on device" {
		t.Errorf("/dev/full: %s", full)
	}
}

func (s *suite) noWayOut(t *testing.T) {
	box := s.attach(t, Limits)
	local, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err, "listen")
	defer local.Close()
	every, err := net.Listen("tcp", ":0")
	must(t, err, "listen")
	defer every.Close()
	name := fmt.Sprintf("@cloister-sandboxtest-%d", os.Getpid())
	abstract, err := net.Listen("unix", name)
	must(t, err, "listen")
	defer abstract.Close()
	_, port, _ := net.SplitHostPort(every.Addr().String())
	targets := []string{"tcp!" + local.Addr().String(), "unix!" + name, "tcp!169.254.169.254:80", "tcp!169.254.170.2:80",
		"tcp!1.1.1.1:443", "udp!1.1.1.1:53", "udp!169.254.169.253:53", "tcp![fd00:ec2::254]:80", "tcp![2606:4700:4700::1111]:443",
		"tcp!169.254.100.2:9001", "tcp!127.0.0.1:22", "tcp!10.0.0.1:80", "udp!224.0.0.1:5353", "udp!255.255.255.255:67"}
	addresses, err := net.InterfaceAddrs()
	must(t, err, "addresses")
	for _, a := range addresses {
		if ip, _, err := net.ParseCIDR(a.String()); err == nil && !ip.IsLinkLocalUnicast() {
			targets = append(targets, "tcp!"+net.JoinHostPort(ip.String(), port))
		}
	}
	got := ask[map[string]string](t, box, append([]string{"connect"}, targets...)...)
	if len(got) != len(targets) {
		t.Errorf("%d of %d were tried", len(got), len(targets))
	}
	for target, err := range got {
		if err == "" {
			t.Errorf("%s was reached", target)
		}
	}
	for target, err := range ask[map[string]string](t, box, "connect", "tcp!"+box.RuntimeAPIAddress(), "tcp!"+box.ServicesAddress()) {
		if err != "" {
			t.Errorf("%s: %s", target, err)
		}
	}
}

func (s *suite) refused(t *testing.T) {
	var got struct {
		Succeeded []string
		Tried     int
	}
	Start(t, s.attach(t, Limits), "refused").Answer(t, &got)
	if len(got.Succeeded) > 0 || got.Tried < 80 {
		t.Errorf("of %d attempts these succeeded: %q", got.Tried, got.Succeeded)
	}
}

func (s *suite) isolated(t *testing.T) {
	a, b := s.attach(t, Limits), s.attach(t, Limits)
	serving := Start(t, a, "serve", "tcp!127.0.0.1:5000", "tcp!0.0.0.0:5001", "unix!@meeting", "unix!/tmp/socket")
	if line := serving.Line(t); !strings.Contains(line, "serving") {
		t.Fatal(line)
	}
	targets := []string{"connect", "tcp!127.0.0.1:5000", "tcp!169.254.100.1:5001", "unix!@meeting", "unix!/tmp/socket"}
	for target, err := range ask[map[string]string](t, a, targets...) {
		if err != "" {
			t.Errorf("inside %s: %s", target, err)
		}
	}
	for target, err := range ask[map[string]string](t, b, targets...) {
		if err == "" {
			t.Errorf("the other one's %s was reached", target)
		}
	}
	for _, box := range []sandbox.Sandbox{a, b} { // the same key exists once in each
		if err := ask[string](t, box, "shared"); err != "" {
			t.Errorf("shared memory: %s", err)
		}
	}
	for _, pid := range []string{"-1", "1"} {
		Start(t, b, "child", "kill", pid).Exit(t) // it may well kill its own parent
	}
	select {
	case <-serving.Done():
		t.Error("a signal from one sandbox has reached the other")
	default:
	}
}

func (s *suite) users(t *testing.T) {
	a, b := ask[Identity](t, s.attach(t, Limits), "identity"), ask[Identity](t, s.attach(t, Limits), "identity")
	if a.UID == b.UID || a.GID == b.GID {
		t.Errorf("both run as user %d, group %d", a.UID, a.GID)
	}
}

func (s *suite) mountInfo(t *testing.T) {
	got := ask[Identity](t, s.attach(t, Limits), "identity")
	for _, word := range []string{"/dev/loop", "/root", "/home", "/work", "cloister", os.TempDir() + "/", "overlay"} {
		if strings.Contains(got.MountInfo+got.Group, word) {
			t.Errorf("%q is in\n%s%s", word, got.MountInfo, got.Group)
		}
	}
}

func (s *suite) firstProcess(t *testing.T) {
	box := s.attach(t, Limits)
	if got := ask[map[string]string](t, box, "list", "/proc"); got["/proc/1"] != "" || got["/proc/self"] == "" {
		t.Errorf("/proc/1 is %q, /proc/self is %q", got["/proc/1"], got["/proc/self"])
	}
	for _, path := range []string{"/proc/1/environ", "/proc/1/maps", "/proc/1/mem", "/proc/kcore", "/proc/kallsyms", "/proc/modules"} {
		if got := ask[map[string]string](t, box, "read", path)[path]; got != "" && !strings.HasPrefix(got, "error: ") {
			t.Errorf("%s shows %q", path, got)
		}
	}
}
