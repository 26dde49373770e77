package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func link(t *testing.T, path string) string {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// Without its special case the main thread would be among the first to be used, and never leave.
func TestOnlyThreadsThatEndEnterNamespaces(t *testing.T) {
	main := fmt.Sprintf("/proc/self/task/%d/ns/uts", os.Getpid())
	before := link(t, main)
	var group sync.WaitGroup
	for range 300 {
		group.Go(func() {
			err := OnThread(func() error {
				if unix.Gettid() == unix.Getpid() {
					return errors.New("this is the main thread")
				}
				return unix.Unshare(unix.CLONE_NEWUTS)
			})
			if err != nil {
				t.Error(err)
			}
			if now, err := os.Readlink("/proc/thread-self/ns/uts"); err != nil || now != before {
				t.Errorf("a thread that goes on is in %s, %v", now, err)
			}
		})
	}
	group.Wait()
	if after := link(t, main); after != before {
		t.Errorf("the process was in %s and is in %s", before, after)
	}
}

func TestANamespaceHoldsNothingOfTheHostAndTheHostNothingOfIt(t *testing.T) {
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNamespace(func() error { return os.WriteFile("/inside", nil, 0o600) })
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	err = OnThread(func() error {
		if err := n.Enter(); err != nil {
			return err
		}
		entries, err := os.ReadDir("/")
		if err != nil || len(entries) != 1 || entries[0].Name() != "inside" {
			return fmt.Errorf("the root holds %v, %w", entries, err)
		}
		if err := os.WriteFile("/other", nil, 0o600); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("a furnished namespace can be written to: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != string(before) {
		t.Errorf("the host's mounts were\n%s\nand are\n%s", before, after)
	}
}

func TestNoMountIsPlacedThroughASymbolicLink(t *testing.T) {
	n, err := NewNamespace(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	err = OnThread(func() error {
		if err := n.Enter(); err != nil {
			return err
		}
		err := errors.Join(os.MkdirAll("/real/directory", 0o700), os.Symlink("/real", "/link"), os.Symlink("directory", "/real/last"))
		if err != nil {
			return err
		}
		for _, target := range []string{"/link", "/link/directory", "/real/last", "/real/../link/directory", "/missing"} {
			fs, err := New("tmpfs", "none", 0)
			if err != nil {
				return err
			}
			if err := Place(fs, target); err == nil {
				return fmt.Errorf("a mount was placed at %s", target)
			}
			fs.Close()
		}
		fs, err := New("tmpfs", "none", unix.MOUNT_ATTR_RDONLY)
		if err != nil {
			return err
		}
		defer fs.Close()
		if err := Place(fs, "/real/directory"); err != nil {
			return err
		}
		if err := os.WriteFile("/real/directory/file", nil, 0o600); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("the mount at the true path: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAFailedMountSaysWhatTheKernelSays(t *testing.T) {
	_, err := New("tmpfs", "none", 0, Option{Key: "size", Value: "nonsense"})
	if err == nil || !strings.Contains(err.Error(), "size") {
		t.Errorf("error %v", err)
	}
	if _, err := New("no-such-file-system", "none", 0); !errors.Is(err, unix.ENODEV) {
		t.Errorf("error %v", err)
	}
}

func TestADeviceIsMountedWithoutLeavingItsNode(t *testing.T) {
	n, err := NewNamespace(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	err = OnThread(func() error {
		if err := n.Enter(); err != nil {
			return err
		}
		// There is no block device 0:0.
		if _, err := Device("ext4", "name", 0, 0); err == nil {
			return errors.New("nothing was mounted")
		}
		left, err := filepath.Glob("/*")
		if err != nil || len(left) > 0 {
			return fmt.Errorf("%v is left: %w", left, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
