package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cloister/lambda"
	"cloister/store"
)

// A smallDisk is a real file system of half a megabyte, which a test fills.
type smallDisk struct {
	*testing.T
	path string
}

func mountSmallDisk(t *testing.T) smallDisk {
	t.Helper()
	d := smallDisk{t, t.TempDir()}
	if err := syscall.Mount("tmpfs", d.path, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatalf("mount a small disk (as root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

// fill takes all room that is left.
func (d smallDisk) fill() {
	d.Helper()
	f, err := os.OpenFile(filepath.Join(d.path, "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.Fatal(err)
	}
}

func (d smallDisk) empty() {
	d.Helper()
	if err := os.Remove(filepath.Join(d.path, "filler")); err != nil {
		d.Fatal(err)
	}
}

func (d smallDisk) remount(flags uintptr) {
	d.Helper()
	if err := syscall.Mount("", d.path, "", syscall.MS_REMOUNT|flags, "size=512k"); err != nil {
		d.Fatal(err)
	}
}

func TestOnARealFullDiskTheServiceGoesOnWhenThereIsRoom(t *testing.T) {
	d := mountSmallDisk(t)
	c := testConfig(d.path)
	s := mustOpen(t, c)
	var written []string
	for round := range 3 {
		if round > 0 {
			d.fill()
		}
		for i := 0; ; i++ {
			name := fmt.Sprint(round, " ", i)
			err := put(s, t.Context(), name)
			if err == nil {
				written = append(written, name)
				continue
			}
			if lambda.KindOf(err) != lambda.Unavailable || !strings.Contains(err.Error(), "make room") {
				t.Fatalf("on a full disk Commit gave %v, want Unavailable and what to do", err)
			}
			break
		}
		if _, err := s.Get(t.Context(), key("1", written[0])); err != nil {
			t.Errorf("on a full disk Get gave %v", err)
		}
		if round > 0 {
			d.empty()
		} else { // full of the store itself: some of it goes
			var changes []store.Change
			for _, name := range written[len(written)/4:] {
				changes = append(changes, store.Change{Key: key("1", name), Expect: store.AnyRevision, Delete: true})
			}
			d.grow(4 << 20)
			if _, err := s.Commit(t.Context(), changes...); err != nil {
				t.Fatal(err)
			}
			written = written[:len(written)/4]
		}
		mustPut(t, s, fmt.Sprint("after ", round))
		written = append(written, fmt.Sprint("after ", round))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, c)
	for _, name := range written {
		if _, err := s.Get(t.Context(), key("1", name)); err != nil {
			t.Errorf("after a restart %s: %v", name, err)
		}
	}
}

func (d smallDisk) grow(size int) {
	d.Helper()
	if err := syscall.Mount("", d.path, "", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		d.Fatal(err)
	}
}

func TestWithoutRoomAStoreIsNotMadeAndNotHarmed(t *testing.T) {
	d := mountSmallDisk(t)
	c := testConfig(d.path)
	if err := os.Mkdir(filepath.Dir(c.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	refuses := func() {
		t.Helper()
		if s, err := Open(c); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("on a full disk Open gave %v, %v", s, err)
		}
	}
	d.fill()
	refuses()
	if files, err := os.ReadDir(filepath.Dir(c.Path)); err != nil || len(files) > 0 {
		t.Errorf("%v was left, %v", files, err)
	}
	d.empty()
	s := mustOpen(t, c)
	mustPut(t, s, "a")
	before := snapshot(t, kill(t, s))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range before { // as a killed process leaves it
		if err := os.WriteFile(filepath.Join(filepath.Dir(c.Path), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(c.Path + "-shm"); err != nil {
		t.Fatal(err)
	}
	d.fill()
	refuses()
	if diff := fmt.Sprint(snapshot(t, c)); diff != fmt.Sprint(before) {
		t.Error("the files were changed")
	}
	d.empty()
	if _, err := mustOpen(t, c).Get(t.Context(), key("1", "a")); err != nil {
		t.Error(err)
	}
}

func TestAReadOnlyDiskIsRefusedClearly(t *testing.T) {
	d := mountSmallDisk(t)
	c := testConfig(d.path)
	s := mustOpen(t, c)
	mustPut(t, s, "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(snapshot(t, c))
	d.remount(syscall.MS_RDONLY)
	if s, err := Open(c); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Open gave %v, %v; want EROFS", s, err)
	}
	d.remount(0)
	if fmt.Sprint(snapshot(t, c)) != before {
		t.Error("the files were changed")
	}
	if _, err := mustOpen(t, c).Get(t.Context(), key("1", "a")); err != nil {
		t.Error(err)
	}
}
