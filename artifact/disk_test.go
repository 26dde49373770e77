package artifact

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cloister/artifact/zip/ziptest"
	"cloister/lambda"
)

// onSmallDisk is fresh on a disk of its own with these options of tmpfs.
func onSmallDisk(t *testing.T, options string) *fixture {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("mounting needs root: run the tests as root")
	}
	f := fresh(t)
	if err := unix.Mount("tmpfs", f.directory, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(f.directory, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f.reopen()
	return f
}

func TestAFullDiskIsToldAndLeavesNothing(t *testing.T) {
	for name, options := range map[string]string{
		"no room for the image":    "size=1m",
		"room for half the image":  "size=2m",
		"room for the image only":  "size=3500k",
		"no room for another name": "size=64m,nr_inodes=10",
		"no room for a directory":  "size=64m,nr_inodes=9",
	} {
		t.Run(name, func(t *testing.T) {
			f := onSmallDisk(t, options)
			first := f.put(alice, ziptest.Of("a", "x"))
			_, _, _, err := f.PutZip(t.Context(), alice, code(1))
			e, ok := errors.AsType[*lambda.Error](err)
			if !ok || lambda.KindOf(err) != lambda.Unavailable || !strings.Contains(e.Message, "disk of this Cloister installation is full") || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("a full disk gave %v, want words for the operator", err)
			}
			if left, err := os.ReadDir(f.temporary()); err != nil || len(left) != 0 {
				t.Errorf("half a file is left: %v, %v", left, err)
			}
			if _, err := f.unseal(f.redeem(first)); err != nil {
				t.Errorf("what was stored before: %v", err)
			}
			if again := f.put(alice, ziptest.Of("a", "x")); again != first {
				t.Errorf("what was stored before is now %v, want %v", again, first)
			}
			// With room again all goes on.
			if err := unix.Mount("tmpfs", f.directory, "tmpfs", unix.MS_REMOUNT, "size=64m,nr_inodes=1k"); err != nil {
				t.Fatal(err)
			}
			if _, err := f.unseal(f.redeem(f.put(alice, code(1)))); err != nil {
				t.Errorf("with room again: %v", err)
			}
			for path, content := range f.files() {
				if !bytes.HasPrefix(content, []byte(magic)) || strings.HasPrefix(path, filepath.Clean(f.temporary())) {
					t.Errorf("%s is no sealed file", path)
				}
			}
		})
	}
}
