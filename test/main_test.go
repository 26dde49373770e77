// Package test is the whole system, driven from outside by the clients that users have: the aws
// CLI, boto3 and the Go SDK against a real "cloister serve" with real sandboxes. It needs root, and
// the Python clients that "make test" installs (CLOISTER_CLIENTS names their folder).
package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cloister/test/service"
)

// Set by TestMain.
var (
	binary  string // of cloister
	clients string // folder of the Python environment
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make sandboxes: run them as root")
		return 1
	}
	clients = os.Getenv("CLOISTER_CLIENTS")
	if clients == "" {
		clients, _ = filepath.Abs("../.cache/clients")
	}
	if _, err := os.Stat(filepath.Join(clients, "ready")); err != nil {
		fmt.Fprintln(os.Stderr, "the AWS clients are not installed: run \"make test\", which does it")
		return 1
	}
	folder, err := os.MkdirTemp("", "cloister-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	binary = filepath.Join(folder, "cloister")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "../cmd/cloister")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build cloister: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// start runs a service for one test and checks at its end that it leaves nothing on the host.
func start(t *testing.T, change ...func(*service.Config)) *service.Service {
	t.Helper()
	log := &testLog{t: t}
	config := service.Config{Binary: binary, Clients: clients, Log: log}
	for _, c := range change {
		c(&config)
	}
	s, err := service.Start(t.Context(), config)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.text())
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("the service did not end well: %v", err)
		}
		if left := service.Leftovers(s.ID); len(left) > 0 {
			t.Errorf("left behind on the host:\n%s", strings.Join(left, "\n"))
		}
		if t.Failed() {
			t.Logf("the service's log:\n%s", log.text())
		}
	})
	return s
}

// testLog keeps the daemon's log for a test that fails.
type testLog struct {
	t  *testing.T
	mu sync.Mutex
	b  []byte
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	return len(p), nil
}

func (l *testLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// must returns what a client printed, or ends the test.
func must(t *testing.T) func(string, error) string {
	return func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
}

// refused ends the test unless the client failed with this error code and text.
func refused(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("the call was served, want %v", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Fatalf("error %q does not contain %q", err, w)
		}
	}
}

// eventually waits until ok is true, ten seconds at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal(what)
}

const trustLambda = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

// makeRole makes an execution role with an inline policy, which may be empty, and returns its ARN.
func makeRole(t *testing.T, s *service.Service, name, policy string) string {
	t.Helper()
	arn := must(t)(s.AWS(t.Context(), "iam", "create-role", "--role-name", name, "--assume-role-policy-document", trustLambda, "--query", "Role.Arn", "--output", "text"))
	if policy != "" {
		must(t)(s.AWS(t.Context(), "iam", "put-role-policy", "--role-name", name, "--policy-name", "inline", "--policy-document", policy))
	}
	return arn
}

// python is the host's runtime identifier.
var python = sync.OnceValue(func() string {
	out, err := exec.CommandContext(context.Background(), "/usr/bin/python3", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(out))
})

// writeZip packs files into a package on disk.
func writeZip(t *testing.T, files map[string][]byte) string {
	t.Helper()
	b, err := service.Zip(files)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "function.zip")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// logText is everything in a log group, oldest first.
func logText(t *testing.T, s *service.Service, group string) string {
	t.Helper()
	return must(t)(s.AWS(t.Context(), "logs", "filter-log-events", "--log-group-name", group, "--query", "events[].message", "--output", "text"))
}
