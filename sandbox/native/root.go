package native

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"cloister/sandbox"
	"cloister/sandbox/native/internal/mount"
)

// A mountSet is what a new sandbox will show, before it is attached anywhere.
type mountSet struct {
	root, devices, ephemeral *os.File
	others                   []targetedMount
	covers                   []*os.File // empty directories, to cover others with
}

type targetedMount struct {
	target string
	mount  *os.File
}

// Attributes of mounts that hold nothing to execute.
const (
	coverAttributes  = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	deviceAttributes = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
)

// collectMounts gets the images ready, in their namespace. What it returns must be closed, also
// with an error.
func (c *cell) collectMounts(mounts []sandbox.Mount) (*mountSet, error) {
	m := &mountSet{}
	if err := c.backend.images.namespace.Enter(); err != nil {
		return m, err
	}
	var err error
	if m.root, err = mount.Clone(c.images[0].path, 0); err != nil {
		return m, err
	}
	m.others, err = cloneImages(mounts[1:], c.images[1:])
	return m, err
}

// cloneImages clones the mounts of images for their targets. What it returns with an error
// must be closed too.
func cloneImages(mounts []sandbox.Mount, images []*image) ([]targetedMount, error) {
	var clones []targetedMount
	for i, m := range mounts {
		clone, err := mount.Clone(images[i].path, 0) // it has imageAttributes already
		if err != nil {
			return clones, err
		}
		clones = append(clones, targetedMount{m.Target, clone})
	}
	return clones, nil
}

func (m *mountSet) close() {
	all := append([]*os.File{m.root, m.devices, m.ephemeral}, m.covers...)
	for _, o := range m.others {
		all = append(all, o.mount)
	}
	for _, f := range all {
		if f != nil {
			f.Close() // an attached mount stays, another one goes
		}
	}
}

// Devices of a sandbox: those that can do nothing. As in Lambda there is neither /dev/shm nor a
// terminal.
var devices = []struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}}

var deviceLinks = []struct{ name, target string }{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
}

// makeDevices makes a small file system with a directory of devices and an empty directory,
// both only to be seen through read-only mounts of their own. It is not shared between sandboxes: file
// locks and inotify work on read-only files too, and would let two of them talk.
func (m *mountSet) makeDevices() error {
	const deviceDirectory, emptyDirectory = rootPath + "/dev", rootPath + "/empty"
	fs, err := mount.New("tmpfs", "dev", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, mount.Option{Key: "mode", Value: "0755"}, mount.Option{Key: "size", Value: "64k"})
	if err != nil {
		return err
	}
	defer fs.Close()
	if err := mount.Place(fs, rootPath); err != nil {
		return err
	}
	unix.Umask(0) // of this thread
	if err := errors.Join(os.Mkdir(deviceDirectory, 0o755), os.Mkdir(emptyDirectory, 0o555)); err != nil {
		return err
	}
	for _, d := range devices {
		if err := unix.Mknod(deviceDirectory+"/"+d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("make /dev/%s: %w (is CAP_MKNOD missing?)", d.name, err)
		}
	}
	for _, l := range deviceLinks {
		if err := os.Symlink(l.target, deviceDirectory+"/"+l.name); err != nil {
			return err
		}
	}
	if m.devices, err = mount.Clone(deviceDirectory, deviceAttributes); err != nil {
		return err
	}
	for range coveredDirectories {
		cover, err := mount.Clone(emptyDirectory, coverAttributes)
		if err != nil {
			return err
		}
		m.covers = append(m.covers, cover)
	}
	return unix.Unmount(rootPath, unix.MNT_DETACH)
}

// assemble builds the root and makes it the only thing that is left in the thread's mount namespace.
func (m *mountSet) assemble() error {
	if err := mount.Place(m.root, rootPath); err != nil {
		return err
	}
	if err := unix.Chdir(rootPath); err != nil {
		return err
	}
	if err := mount.SwapRoot(); err != nil {
		return err
	}
	all := append([]targetedMount{{"/dev", m.devices}, {"/tmp", m.ephemeral}}, m.others...)
	for _, t := range all {
		if err := mount.Place(t.mount, t.target); err != nil {
			return err
		}
	}
	return nil
}

// What /proc shows of the host is covered: files by the null device, directories by an empty
// one. What only root could change is made read-only besides.
var (
	coveredFiles = []string{
		"/proc/buddyinfo", "/proc/cmdline", "/proc/config.gz", "/proc/diskstats", "/proc/interrupts", "/proc/iomem",
		"/proc/ioports", "/proc/kallsyms", "/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/kmsg",
		"/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/latency_stats", "/proc/locks",
		"/proc/modules", "/proc/mtrr", "/proc/pagetypeinfo", "/proc/partitions", "/proc/sched_debug",
		"/proc/schedstat", "/proc/slabinfo", "/proc/softirqs", "/proc/sysrq-trigger", "/proc/timer_list",
		"/proc/vmallocinfo", "/proc/zoneinfo",
	}
	coveredDirectories = []string{"/proc/acpi", "/proc/asound", "/proc/driver", "/proc/dynamic_debug", "/proc/pressure",
		"/proc/scsi"}
	readOnlyDirectories = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"}
)

// maskProc covers and protects what lies below /proc. Paths that this kernel does not have are
// passed over.
func (m *mountSet) maskProc() error {
	cover := func(target, source string, attributes uint64) error {
		clone, err := mount.Clone(source, attributes)
		if err != nil {
			return err
		}
		defer clone.Close()
		return mount.Place(clone, target)
	}
	var failed []error
	for _, path := range coveredFiles {
		failed = append(failed, cover(path, "/dev/null", 0)) // it has deviceAttributes already
	}
	for i, path := range coveredDirectories {
		failed = append(failed, mount.Place(m.covers[i], path))
	}
	for _, path := range readOnlyDirectories {
		failed = append(failed, cover(path, path, coverAttributes))
	}
	failed = slices.DeleteFunc(failed, func(err error) bool { return errors.Is(err, os.ErrNotExist) })
	return errors.Join(failed...)
}
