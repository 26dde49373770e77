package sqlite

import (
	"crypto/rand"
	"errors"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// A disk is go-sqlite3's file system, but that it tells a full disk from a broken one. The
// module itself looks for ENOSPC in a way that misses it, and the number of the system's error
// is lost before a caller sees it.
type disk struct {
	vfs.VFSFilename
}

// registerDisk makes a disk known to SQLite under a name of its own.
func registerDisk(below vfs.VFSFilename) (name string) {
	if below == nil {
		below = vfs.Find("os").(vfs.VFSFilename)
	}
	name = "cloister-" + rand.Text()
	vfs.Register(name, disk{below})
	return name
}

// OpenFilename implements vfs.VFSFilename.
func (d disk) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, flags, err := d.VFSFilename.OpenFilename(name, flags)
	if err != nil {
		return nil, flags, err
	}
	return diskFile{f}, flags, nil
}

type diskFile struct {
	vfs.File
}

// SharedMemory implements vfs.FileSharedMemory, which write-ahead logs need.
func (f diskFile) SharedMemory() vfs.SharedMemory {
	if below, ok := f.File.(vfs.FileSharedMemory); ok {
		return below.SharedMemory()
	}
	return nil
}

// WriteAt implements io.WriterAt. A full disk is harmless here, and only here: when fsync
// reports one, written pages are lost.
func (f diskFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = vfs.SystemError(err, sqlite3.FULL)
	}
	return n, err
}
