// Package mount lets threads of this process enter mount namespaces, and makes mounts there with the
// kernel's descriptor-based calls: a mount is first an open file that is attached nowhere, and is
// gone with it, so a half-finished piece of work leaves nothing behind.
//
// It does not know what a sandbox looks like; package native does, which alone uses it.
//
// Invariant: the rest of the process, and the host, keep the mounts they had. Of what it is given an
// attacker controls the bytes of images and, with them, the directories that mounts are
// attached to, which is why no path is followed through a symbolic link.
package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThread runs f on an operating system thread of its own, which ends with f. Namespaces,
// root and working directory belong to a thread once it has said unshare(CLONE_FS), so f
// may enter a sandbox without the rest of the process noticing; the Go runtime starts new threads from
// a clean one, never from a locked one.
func OnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread does not end, it is parked for ever, and /proc/self shows
			// its namespaces. While we hold it, another goroutine gets another thread.
			result <- OnThread(f)
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			result <- fmt.Errorf("unshare thread: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

// A Namespace is a mount namespace that no process lives in. It shows nothing on
// the host's mount table and ends, with all mounts in it, when this process ends.
type Namespace struct {
	file *os.File
}

// NewNamespace makes one whose root is an empty tmpfs. If furnish is given, it is called in it
// and the tmpfs is read-only afterwards.
func NewNamespace(furnish func() error) (*Namespace, error) {
	n := &Namespace{}
	err := OnThread(func() error {
		if err := n.create(); err != nil || furnish == nil {
			return err
		}
		if err := furnish(); err != nil {
			return err
		}
		return unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make mount namespace: %w", err), n.Close())
	}
	return n, nil
}

func (n *Namespace) create() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("%w (is CAP_SYS_ADMIN missing?)", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	file, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return err
	}
	n.file = file
	root, err := New("tmpfs", "none", unix.MOUNT_ATTR_NOSUID, Option{Key: "mode", Value: "0755"}, Option{Key: "size", Value: "4m"})
	if err != nil {
		return err
	}
	defer root.Close()
	// It comes to lie on the host's root, in this namespace only; SwapRoot then takes the
	// host's whole tree out of it.
	if err := Place(root, "/"); err != nil {
		return err
	}
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return err
	}
	return SwapRoot()
}

// Enter moves the calling thread, which must be one of OnThread, into the namespace. Root and
// working directory are the root of it afterwards.
func (n *Namespace) Enter() error {
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mount namespace: %w", err)
	}
	return nil
}

// Close gives the namespace up. What is mounted in it is unmounted.
func (n *Namespace) Close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// SwapRoot makes the working directory, which must be a mount, the root of this mount
// namespace, and detaches everything else.
func SwapRoot() error {
	// With the same directory twice the old root comes to lie on top of the new one: no
	// directory for it is needed.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach old root: %w", err)
	}
	return unix.Chdir("/")
}
