// Package sandboxtest is the suite that every sandbox.Backend must pass: life and death of a
// sandbox, its limits, and what must not be possible inside.
//
// Its tenant is the program in probe, built when the tests run and put into images by
// artifact/erofs. It judges a backend by what that program sees and by the contract, not by
// how the backend works; what can only be asked of the host's kernel is tested beside
// the backend. Only tests call it.
package sandboxtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cloister/artifact/erofs"
	"cloister/sandbox"
)

// Timeout bounds each step of a test.
const Timeout = 30 * time.Second

// Limits that most tests use.
var Limits = sandbox.Limits{MemoryMiB: 256, CPU: 1, Processes: 64, OpenFiles: 128}

// Images are what the sandboxes of the tests show.
type Images struct {
	Class sandbox.Class
	Code  []sandbox.Mount // at /var/task
}

// Build makes the images: a root with the probe and nothing else, and code.
func Build(t testing.TB) Images {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "probe")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "cloister/sandbox/sandboxtest/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v\n%s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	directory := func(p string) erofs.Entry { return erofs.Entry{Path: p, Mode: fs.ModeDir | 0o755} }
	root := buildImage(t, "root", []erofs.Entry{
		directory("proc"), directory("dev"), directory("tmp"), directory("opt"), directory("var/task"), directory("var/runtime"),
		{Path: "probe", Mode: 0o755, Size: info.Size(), Open: func() (io.ReadCloser, error) { return os.Open(binary) }},
		{Path: "link", Mode: fs.ModeSymlink | 0o777, Target: "/var/task"},
	})
	text := func(p string, mode fs.FileMode, text string) erofs.Entry {
		return erofs.Entry{Path: p, Mode: mode, Size: int64(len(text)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
	}
	code := buildImage(t, "code", []erofs.Entry{
		text("code.txt", 0o644, "the code"),
		text("script", 0o755, "#!/probe identity\n"),
		text("garbage", 0o755, "\x00\x01\x02"),
		text("plain", 0o644, "not executable"),
	})
	return Images{
		Class: sandbox.Class{Root: root, EphemeralMiB: 512},
		Code:  []sandbox.Mount{{Target: "/var/task", Image: code}},
	}
}

func buildImage(t testing.TB, key string, entries []erofs.Entry) sandbox.Image {
	t.Helper()
	fd, err := unix.MemfdCreate(key, unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), key)
	t.Cleanup(func() { file.Close() })
	size, err := erofs.Build(t.Context(), file, entries)
	if err != nil {
		t.Fatal(err)
	}
	return sandbox.Image{Key: key, File: file, Size: size}
}

// Run runs the suite.
func Run(t *testing.T, backend sandbox.Backend, images Images) {
	s := &suite{backend: backend, images: images}
	for _, group := range []map[string]func(*testing.T){s.life(), s.processes(), s.limits(), s.walls()} {
		for name, test := range group {
			t.Run(name, test)
		}
	}
}

type suite struct {
	backend sandbox.Backend
	images  Images
}

func (s *suite) context(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	t.Cleanup(cancel)
	return ctx
}

// park makes a sandbox that is destroyed at the end of the test.
func (s *suite) park(t *testing.T) sandbox.Sandbox {
	t.Helper()
	box, err := s.backend.Park(s.context(t), s.images.Class)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Timeout)
		defer cancel()
		if err := box.Destroy(ctx); err != nil {
			t.Error(err)
		}
	})
	return box
}

// attach makes a sandbox with code and limits.
func (s *suite) attach(t *testing.T, l sandbox.Limits) sandbox.Sandbox {
	t.Helper()
	box := s.park(t)
	if err := box.Attach(s.context(t), s.images.Code, l); err != nil {
		t.Fatal(err)
	}
	return box
}

// A Probe is a running probe.
type Probe struct {
	sandbox.Running
	output *os.File
	errors *bytes.Buffer
	read   chan struct{} // closed when all of standard error has been read
}

// Start runs the probe with arguments.
func Start(t testing.TB, box sandbox.Sandbox, arguments ...string) *Probe {
	t.Helper()
	return startProcess(t, box, sandbox.Process{Path: "/probe", Args: append([]string{"/probe"}, arguments...), Dir: "/var/task"})
}

func startProcess(t testing.TB, box sandbox.Sandbox, p sandbox.Process) *Probe {
	t.Helper()
	output, stdout := pipe(t)
	errors, stderr := pipe(t)
	p.Stdout, p.Stderr = stdout, stderr
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	running, err := box.Start(ctx, p)
	stdout.Close()
	stderr.Close()
	if err != nil {
		t.Fatal(err)
	}
	probe := &Probe{Running: running, output: output, errors: new(bytes.Buffer), read: make(chan struct{})}
	go func() {
		defer close(probe.read)
		io.Copy(probe.errors, io.LimitReader(errors, 64<<10))
	}()
	return probe
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// Exit waits for the end.
func (p *Probe) Exit(t testing.TB) sandbox.Exit {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(Timeout):
		t.Fatal("the process does not end")
	}
	return p.Wait()
}

// Line waits for the first line that the probe prints.
func (p *Probe) Line(t testing.TB) string {
	t.Helper()
	p.output.SetReadDeadline(time.Now().Add(Timeout))
	line, err := bufio.NewReader(p.output).ReadString('\n')
	must(t, err, "read a line of the probe")
	return line
}

// Answer waits for the end and decodes what the probe has printed.
func (p *Probe) Answer(t testing.TB, into any) sandbox.Exit {
	t.Helper()
	p.output.SetReadDeadline(time.Now().Add(Timeout))
	decodeErr := json.NewDecoder(p.output).Decode(into)
	exit := p.Exit(t)
	if decodeErr != nil {
		<-p.read
		t.Fatalf("the probe printed no answer (%v); %+v, %s", decodeErr, exit, p.errors)
	}
	return exit
}

// ask runs the probe to its end and returns its answer.
func ask[T any](t testing.TB, box sandbox.Sandbox, arguments ...string) T {
	t.Helper()
	var answer T
	if exit := Start(t, box, arguments...).Answer(t, &answer); exit != (sandbox.Exit{}) {
		t.Errorf("%s ended with %+v", arguments[0], exit)
	}
	return answer
}

// must fails the test with what was being done.
func must(t testing.TB, err error, doing string, arguments ...any) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", fmt.Sprintf(doing, arguments...), err)
	}
}
