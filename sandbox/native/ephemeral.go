package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"cloister/internal/loop"
	"cloister/sandbox/native/internal/mount"
)

// The sizes that Lambda allows for /tmp.
const (
	minEphemeralMiB = 512
	maxEphemeralMiB = 10240
)

// maxTemplates bounds how many sizes of /tmp are kept ready; each takes 0.4 to 4.3 MB of disk.
const maxTemplates = 8

// temporaryPrefix begins the names of files that have one for a moment.
const temporaryPrefix = "ephemeral-"

// ephemeral makes the file systems for /tmp: ext4 on a loop device over a sparse file that has
// no name, so that nothing is left whatever happens. A tmpfs would be charged to the
// function's memory.
type ephemeral struct {
	directory string
	name      string // begins the names of the loop devices

	mu        sync.Mutex       // held while a template is made: the others want the same one
	templates map[int]*os.File // by MiB; empty file systems, never mounted
}

// make returns a loop device with an empty file system of the given size. The caller closes
// it once it is mounted.
func (e *ephemeral) make(ctx context.Context, id string, sizeMiB int) (*loop.Device, error) {
	if sizeMiB < minEphemeralMiB || sizeMiB > maxEphemeralMiB {
		return nil, fmt.Errorf("make /tmp: %d MiB is not between %d and %d", sizeMiB, minEphemeralMiB, maxEphemeralMiB)
	}
	file, err := e.copyTemplate(ctx, sizeMiB)
	if err != nil {
		return nil, fmt.Errorf("make /tmp: %w", err)
	}
	defer file.Close() // the device keeps it
	device, err := loop.Attach(loop.Config{File: file, Name: e.name + id + "-tmp", DirectIO: true})
	if err != nil {
		return nil, fmt.Errorf("make /tmp: %w", err)
	}
	return device, nil
}

func (e *ephemeral) copyTemplate(ctx context.Context, sizeMiB int) (*os.File, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	template := e.templates[sizeMiB]
	if template == nil {
		var err error
		if template, err = e.makeTemplate(ctx, sizeMiB); err != nil {
			return nil, err
		}
		for size, other := range e.templates {
			if len(e.templates) < maxTemplates {
				break
			}
			delete(e.templates, size)
			other.Close()
		}
		e.templates[sizeMiB] = template
	}
	file, err := unnamedFile(e.directory)
	if err != nil {
		return nil, err
	}
	if err := copySparse(file, template); err != nil {
		return nil, errors.Join(fmt.Errorf("copy template: %w", err), file.Close())
	}
	return file, nil
}

// makeTemplate formats a file. The overhead of the file system comes on top of the size, so
// that a function gets all of the bytes it asked for.
func (e *ephemeral) makeTemplate(ctx context.Context, sizeMiB int) (*os.File, error) {
	file, err := os.CreateTemp(e.directory, temporaryPrefix+"template-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	const inodeSize, bytesPerInode = 256, 8192
	// Tables of inodes; what ext4 keeps back for itself (4096 clusters); bitmaps and extents.
	overhead := sizeMiB*inodeSize/bytesPerInode + 16 + sizeMiB/256 + 4
	if err := file.Truncate(int64(sizeMiB+overhead) << 20); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	// No journal: /tmp does not outlive its sandbox. Tables that are zero anyway in a
	// sparse file are not written.
	command := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0",
		"-I", strconv.Itoa(inodeSize), "-i", strconv.Itoa(bytesPerInode), "-O", "^has_journal,^resize_inode",
		"-E", "lazy_itable_init=1,nodiscard", file.Name())
	command.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if output, err := command.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("%w (apt-get install e2fsprogs)", err)
		}
		return nil, errors.Join(fmt.Errorf("mke2fs: %w: %s", err, output), file.Close())
	}
	return file, nil
}

// ephemeralOptions: nothing is zeroed in the background, freed blocks go back to the host, and
// fsync does not wait for a disk that nobody will read after a crash.
var ephemeralOptions = []mount.Option{{Key: "noinit_itable"}, {Key: "discard"}, {Key: "nobarrier"}}

// mountEphemeral mounts the device for the sandbox's user, unfs. It is called by a thread
// in the namespace of the images.
func mountEphemeral(device *loop.Device, uid int) (*os.File, error) {
	rdev, err := device.Rdev()
	if err != nil {
		return nil, err
	}
	fs, err := mount.Device("ext4", "tmp", rdev, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, ephemeralOptions...)
	if err != nil {
		return nil, err
	}
	fd := int(fs.Fd())
	err = errors.Join(
		unix.Unlinkat(fd, "lost+found", unix.AT_REMOVEDIR),
		unix.Fchownat(fd, "", uid, uid, unix.AT_EMPTY_PATH),
		unix.Fchmodat(fd, ".", 0o700, 0),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare /tmp: %w", err), fs.Close())
	}
	return fs, nil
}

// Close gives the templates up.
func (e *ephemeral) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var failed []error
	for size, f := range e.templates {
		failed = append(failed, f.Close())
		delete(e.templates, size)
	}
	return errors.Join(failed...)
}

// unnamedFile returns a file in directory that has no name. It is gone when the last user is.
func unnamedFile(directory string) (*os.File, error) {
	file, err := os.OpenFile(directory, unix.O_TMPFILE|os.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return file, err
	}
	if file, err = os.CreateTemp(directory, temporaryPrefix); err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// copySparse copies what from holds into the empty file to, and none of its holes. Only one
// may read from at a time.
func copySparse(to, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := to.Truncate(info.Size()); err != nil {
		return err
	}
	for end := int64(0); end < info.Size(); {
		start, err := from.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing but a hole is left
		}
		if err != nil {
			return err
		}
		if end, err = from.Seek(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := to.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(to, io.NewSectionReader(from, start, end-start)); err != nil {
			return err
		}
	}
	return nil
}
