package loop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const size = 1 << 20

func memoryFile(t *testing.T, text string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("loop-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "loop-test")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		t.Fatal(err)
	}
	return f
}

// prefix is of this test alone, however many run at a time.
func prefix(t *testing.T) string {
	t.Helper()
	p := fmt.Sprintf("cloister-test-%d-%x-", os.Getpid(), time.Now().UnixNano()&0xffffff)
	t.Cleanup(func() {
		if names, err := Names(p); err != nil || len(names) > 0 {
			t.Errorf("loop devices are left: %v %v", names, err)
		}
	})
	return p
}

func TestADeviceShowsTheFileAndGoesWithItsLastUser(t *testing.T) {
	p := prefix(t)
	d, err := Attach(Config{File: memoryFile(t, "hello"), Name: p + "a", Size: size / 2})
	if err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 5)
	if _, err := d.File.ReadAt(buffer, 0); err != nil || string(buffer) != "hello" {
		t.Errorf("read %q, %v", buffer, err)
	}
	if end, err := d.File.Seek(0, io.SeekEnd); err != nil || end != size/2 {
		t.Errorf("the device has %d bytes, %v", end, err)
	}
	if names, err := Names(p); err != nil || cmp.Diff([]string{p + "a"}, names) != "" {
		t.Errorf("names %v, %v", names, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := d.AwaitFree(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an open device is free: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.AwaitFree(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAReadOnlyDeviceRefusesWrites(t *testing.T) {
	d, err := Attach(Config{File: memoryFile(t, "hello"), Name: prefix(t) + "r", ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.File.WriteAt(make([]byte, 512), 0); err == nil {
		t.Error("the write was accepted")
	}
}

func TestASealedFileIsAttachedReadOnly(t *testing.T) {
	f := memoryFile(t, "sealed")
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	fd, err := unix.MemfdCreate("sealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	sealed := os.NewFile(uintptr(fd), "sealed")
	defer sealed.Close()
	if _, err := io.Copy(sealed, f); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(sealed.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	d, err := Attach(Config{File: sealed, Name: prefix(t) + "s", ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
}

func TestManyAtOnceGetADeviceEach(t *testing.T) {
	p := prefix(t)
	const many = 16
	devices := make([]*Device, many)
	var group sync.WaitGroup
	for i := range many {
		f := memoryFile(t, fmt.Sprintf("file %02d", i))
		group.Go(func() {
			d, err := Attach(Config{File: f, Name: fmt.Sprint(p, i)})
			if err != nil {
				t.Error(err)
				return
			}
			devices[i] = d
		})
	}
	group.Wait()
	for i, d := range devices {
		if d == nil {
			continue
		}
		buffer := make([]byte, 7)
		if _, err := d.File.ReadAt(buffer, 0); err != nil || string(buffer) != fmt.Sprintf("file %02d", i) {
			t.Errorf("device %d shows %q, %v", i, buffer, err)
		}
		d.Close()
		if err := d.AwaitFree(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestDetachTakesOnlyWhatCarriesThePrefix(t *testing.T) {
	p := prefix(t)
	mine, err := Attach(Config{File: memoryFile(t, "mine"), Name: p + "mine"})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := Attach(Config{File: memoryFile(t, "theirs"), Name: p + "theirs"})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Detach(p + "mine"); n != 1 || err != nil {
		t.Errorf("detached %d, %v", n, err)
	}
	mine.Close() // with a user left, the kernel waits for it
	if err := mine.AwaitFree(t.Context()); err != nil {
		t.Error(err)
	}
	if names, err := Names(p); err != nil || cmp.Diff([]string{p + "theirs"}, names) != "" {
		t.Errorf("names %v, %v", names, err)
	}
	theirs.Close()
	if err := theirs.AwaitFree(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestANameThatTheKernelWouldCutIsRefused(t *testing.T) {
	for _, name := range []string{"", strings.Repeat("x", MaxName+1)} {
		if _, err := Attach(Config{File: memoryFile(t, ""), Name: name}); err == nil {
			t.Errorf("a name of %d bytes was accepted", len(name))
		}
	}
}
