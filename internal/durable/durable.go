// Package durable writes files so that they are there after power loss: whole, under
// their final name, or not at all.
//
// It is not a database and takes no locks. Whoever keeps a key, a certificate, a sealed
// image or a database file calls it.
//
// Invariant: when a function returns nil, what it did survives kill -9 and power loss, as far
// as the disk honours fsync. An error of fsync is returned and never retried: the kernel may
// have dropped the dirty pages, so a second fsync that succeeds would prove nothing. A name is
// never seen with half of its bytes. Paths come from the program, never from a tenant.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// temporaryPrefix begins the name of every file that is not committed yet.
const temporaryPrefix = ".durable-"

// A File is being written under a temporary name. It belongs to one goroutine.
type File struct {
	system system
	file   file
	done   bool // committed or aborted
}

// Create begins a file in directory, with exactly this mode. The caller ends it with one of
// the Commit methods or with Abort.
func Create(directory string, mode fs.FileMode) (*File, error) {
	return create(operatingSystem{}, directory, mode)
}

func create(s system, directory string, mode fs.FileMode) (*File, error) {
	created, err := s.create(directory, temporaryPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("create temporary file: %w", err)
	}
	f := &File{system: s, file: created}
	if err := created.Chmod(mode); err != nil {
		f.discard()
		return nil, fmt.Errorf("set mode of temporary file: %w", err)
	}
	return f, nil
}

// Name returns the temporary path.
func (f *File) Name() string { return f.file.Name() }

// Write appends p.
func (f *File) Write(p []byte) (int, error) { return f.file.Write(p) }

// WriteAt writes p at off.
func (f *File) WriteAt(p []byte, off int64) (int, error) { return f.file.WriteAt(p, off) }

// Commit makes the file durable as path, replacing what was there. Path must be in the
// same file system as the directory of Create.
func (f *File) Commit(path string) error { return f.commit(path, f.system.rename) }

// CommitNew is Commit for a name that must not exist yet. If it does, the error is
// fs.ErrExist and what is there stays untouched.
func (f *File) CommitNew(path string) error {
	return f.commit(path, func(temporary, path string) error {
		if err := f.system.link(temporary, path); err != nil {
			return err
		}
		return f.system.remove(temporary)
	})
}

func (f *File) commit(path string, publish func(temporary, path string) error) error {
	if f.done {
		return errors.New("commit a finished file: " + f.Name())
	}
	f.done = true
	if err := f.file.Sync(); err != nil {
		f.discard()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.file.Close(); err != nil {
		f.discard()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := publish(f.Name(), path); err != nil {
		f.discard()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.system.syncDirectory(filepath.Dir(path))
}

// Abort removes the file unless it was committed. It may always be deferred.
func (f *File) Abort() {
	if !f.done {
		f.done = true
		f.discard()
	}
}

// discard gives up a temporary file. Its errors would hide the one that led here, and
// Sweep removes what stays.
func (f *File) discard() {
	_ = f.file.Close()
	_ = f.system.remove(f.Name())
}

// WriteFile makes data durable as path, replacing what was there.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return write(operatingSystem{}, path, data, mode, (*File).Commit)
}

// WriteNewFile is WriteFile for a name that must not exist yet; if it does, the error
// is fs.ErrExist.
func WriteNewFile(path string, data []byte, mode fs.FileMode) error {
	return write(operatingSystem{}, path, data, mode, (*File).CommitNew)
}

func write(s system, path string, data []byte, mode fs.FileMode, commit func(*File, string) error) error {
	f, err := create(s, filepath.Dir(path), mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return commit(f, path)
}

// Remove makes the removal of path durable. A path that does not exist is no error.
func Remove(path string) error { return remove(operatingSystem{}, path) }

func remove(s system, path string) error {
	if err := s.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	return s.syncDirectory(filepath.Dir(path))
}

// MakeDirectory makes path and what is missing above it, durably. Directories that exist
// keep their mode.
func MakeDirectory(path string, mode fs.FileMode) error {
	return makeDirectory(operatingSystem{}, filepath.Clean(path), mode)
}

func makeDirectory(s system, path string, mode fs.FileMode) error {
	parent := filepath.Dir(path)
	switch info, err := os.Stat(path); {
	case err == nil && info.IsDir():
		// Whoever made it may have been killed before its name was durable. Where we may not look we have not made it.
		if err := s.syncDirectory(parent); !errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil
	case err == nil:
		return fmt.Errorf("make directory: %s is not a directory", path)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make directory: %w", err)
	}
	if err := makeDirectory(s, parent, mode); err != nil {
		return err
	}
	if err := s.mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	return s.syncDirectory(parent)
}

// SyncDirectory makes the names in a directory durable.
func SyncDirectory(path string) error { return operatingSystem{}.syncDirectory(path) }

// IsTemporary reports whether a name is one that Sweep removes.
func IsTemporary(name string) bool { return strings.HasPrefix(name, temporaryPrefix) }

// Sweep removes the temporary files that killed processes left in directory. Nobody may
// be writing there meanwhile.
func Sweep(directory string) error {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return fmt.Errorf("sweep temporary files: %w", err)
	}
	for _, e := range entries {
		if !IsTemporary(e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(directory, e.Name())); err != nil {
			return fmt.Errorf("sweep temporary files: %w", err)
		}
	}
	return nil
}
