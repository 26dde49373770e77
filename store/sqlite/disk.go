package sqlite

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// A disk is where the files are. Tests put one in its place that breaks.
type disk interface {
	vfs.VFSFilename
	openPlain(path string) (plainFile, error) // fs.ErrNotExist if there is none
}

// A plainFile is a file that the engine reads and writes beside SQLite.
type plainFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

type systemDisk struct{ vfs.VFSFilename }

func newSystemDisk() disk { return systemDisk{vfs.Find("os").(vfs.VFSFilename)} }

func (systemDisk) openPlain(path string) (plainFile, error) {
	return os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
}

// registerDisk makes a disk known to SQLite under a name of its own.
func registerDisk(d disk) (name string) {
	name = "cloister-" + rand.Text()
	vfs.Register(name, fullDisk{d})
	return name
}

// A fullDisk tells SQLite a full disk from a broken one. The module itself looks for ENOSPC in a
// way that misses it, and the number of the system's error is lost before a caller sees it.
type fullDisk struct{ vfs.VFSFilename }

// OpenFilename implements vfs.VFSFilename.
func (d fullDisk) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, flags, err := d.VFSFilename.OpenFilename(name, flags)
	if err != nil {
		return nil, flags, err
	}
	return fullDiskFile{f}, flags, nil
}

type fullDiskFile struct{ vfs.File }

// SharedMemory implements vfs.FileSharedMemory, which write-ahead logs need.
func (f fullDiskFile) SharedMemory() vfs.SharedMemory {
	if below, ok := f.File.(vfs.FileSharedMemory); ok {
		return below.SharedMemory()
	}
	return nil
}

// WriteAt implements io.WriterAt. A full disk is harmless here, and only here: when fsync
// reports one, written pages are lost.
func (f fullDiskFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	if isFull(err) {
		err = vfs.SystemError(err, sqlite3.FULL)
	}
	return n, err
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// rewrite writes a file back as it is and fsyncs it. After an fsync that failed the kernel shows bytes that
// are not on the disk and that no later fsync would write, unless they are written again.
func rewrite(d disk, path string) (err error) {
	f, err := d.openPlain(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	chunk := make([]byte, 1<<20)
	for offset := int64(0); ; {
		n, err := f.ReadAt(chunk, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if n == 0 {
			return f.Sync()
		}
		if _, err := f.WriteAt(chunk[:n], offset); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		offset += int64(n)
	}
}
