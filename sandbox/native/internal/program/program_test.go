//go:build amd64

package program

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// run builds the program and runs it with a pipe as descriptor 3.
func run(t *testing.T, b *Builder, stdin string) (stdout, reported string, status int) {
	t.Helper()
	image, err := b.Image()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, image, 0o700); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	in, inWriter, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := inWriter.WriteString(stdin); err != nil {
		t.Fatal(err)
	}
	inWriter.Close()
	c := exec.Command(path)
	c.Stdin = in
	c.ExtraFiles = []*os.File{w}
	out, err := c.Output()
	w.Close()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	buffer := make([]byte, 64)
	n, _ := r.Read(buffer)
	return string(out), string(buffer[:n]), c.ProcessState.ExitCode()
}

func TestAProgramMakesItsCallsInOrder(t *testing.T) {
	b := new(Builder)
	buffer := b.Reserve(16)
	length := b.Reserve(4)
	b.Call(ExitIfNone, "read", unix.SYS_READ, Const(0), Pointer(buffer), Const(16))
	b.Keep(length)
	b.Call(Exit, "write data", unix.SYS_WRITE, Const(1), b.String("got "), Const(4))
	b.Call(Exit, "write input", unix.SYS_WRITE, Const(1), Pointer(buffer), Word(length))
	b.Exit(42)
	out, _, status := run(t, b, "nonce")
	if out != "got nonce" || status != 42 {
		t.Errorf("output %q, status %d", out, status)
	}
}

func TestAllSixArgumentsArriveInTheirRegisters(t *testing.T) {
	// mmap is refused unless every one of its six arguments is right; the write shows
	// that what was mapped is the file, at its second page.
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, append(make([]byte, pageSize), "second page"...), 0o600); err != nil {
		t.Fatal(err)
	}
	b := new(Builder)
	fd := b.Reserve(4)
	const at = 0x7000_0000_0000
	b.Call(Exit, "open", unix.SYS_OPENAT, Const(unix.AT_FDCWD), b.String(path), Const(unix.O_RDONLY), Const(0))
	b.Keep(fd)
	b.Call(Exit, "mmap", unix.SYS_MMAP, Const(at), Const(pageSize), Const(unix.PROT_READ), Const(unix.MAP_PRIVATE|unix.MAP_FIXED), Word(fd), Const(pageSize))
	b.Call(Exit, "write", unix.SYS_WRITE, Const(1), Const(at), Const(11))
	b.Exit(0)
	if out, _, status := run(t, b, ""); out != "second page" || status != 0 {
		t.Errorf("output %q, stopped at %s", out, b.StepName(status))
	}
}

func TestAFailedCallStopsTheProgramWithItsStep(t *testing.T) {
	b := new(Builder)
	b.Call(Exit, "getpid", unix.SYS_GETPID)
	b.Call(Ignore, "close nothing", unix.SYS_CLOSE, Const(999))
	b.Call(Exit, "chdir nowhere", unix.SYS_CHDIR, b.String("/does/not/exist"))
	b.Call(Exit, "write", unix.SYS_WRITE, Const(1), b.String("still alive"), Const(11))
	out, _, status := run(t, b, "")
	if out != "" || b.StepName(status) != "chdir nowhere" {
		t.Errorf("output %q, stopped at %q", out, b.StepName(status))
	}
}

func TestACallThatMustBeRefusedStopsTheProgramIfItIsNot(t *testing.T) {
	b := new(Builder)
	b.Call(ExitIfAllowed, "chdir nowhere", unix.SYS_CHDIR, b.String("/does/not/exist"))
	b.Call(ExitIfAllowed, "getpid", unix.SYS_GETPID)
	b.Exit(0)
	if _, _, status := run(t, b, ""); b.StepName(status) != "getpid" {
		t.Errorf("stopped at %q", b.StepName(status))
	}
}

func TestEndOfInputStopsTheProgram(t *testing.T) {
	b := new(Builder)
	buffer := b.Reserve(1)
	b.Call(ExitIfNone, "wait", unix.SYS_READ, Const(0), Pointer(buffer), Const(1))
	b.Exit(0)
	if _, _, status := run(t, b, ""); b.StepName(status) != "wait" {
		t.Errorf("exit status %d", status)
	}
}

func TestAReportedFailureCarriesTheErrorNumber(t *testing.T) {
	b := new(Builder)
	path := b.Reserve(8)
	b.Store(path, uint32(b.String("/does/not/exist").value))
	b.Call(ReportErrno, "execve", unix.SYS_EXECVE, Quad(path), Const(0), Const(0))
	_, reported, status := run(t, b, "")
	want := -int32(unix.ENOENT)
	if reported != string([]byte{byte(want), 0xff, 0xff, 0xff}) || b.StepName(status) != "execve" {
		t.Errorf("reported %q, status %d", reported, status)
	}
}

func TestAProgramIsSmall(t *testing.T) {
	b := new(Builder)
	for range 100 {
		b.Call(Exit, "getpid", unix.SYS_GETPID)
	}
	image, err := b.Image()
	if err != nil {
		t.Fatal(err)
	}
	if len(image) > pageSize {
		t.Errorf("100 calls take %d bytes", len(image))
	}
}

func TestTooManyStepsAreRefused(t *testing.T) {
	b := new(Builder)
	for range MaxSteps + 1 {
		b.Call(Exit, "getpid", unix.SYS_GETPID)
	}
	if _, err := b.Image(); err == nil {
		t.Error("a step without an exit status of its own was accepted")
	}
}
