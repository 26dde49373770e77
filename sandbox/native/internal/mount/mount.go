package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// An Option of a file system. An empty value is a flag.
type Option struct{ Key, Value string }

// New makes a file system and returns a mount of it that is not attached anywhere; it
// vanishes with the file unless Place attaches it. A source with a relative path is
// looked up in the working directory and is what mountinfo shows, so it should say nothing.
func New(kind, source string, attributes int, options ...Option) (*os.File, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w (does the kernel have it?)", kind, err)
	}
	defer unix.Close(fs)
	for _, o := range append([]Option{{Key: "source", Value: source}}, options...) {
		if o.Value == "" {
			err = unix.FsconfigSetFlag(fs, o.Key)
		} else {
			err = unix.FsconfigSetString(fs, o.Key, o.Value)
		}
		if err != nil {
			return nil, fmt.Errorf("mount %s: option %s: %w%s", kind, o.Key, err, kernelMessages(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("mount %s: %w%s", kind, err, kernelMessages(fs))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", kind, err)
	}
	return os.NewFile(uintptr(fd), kind), nil
}

// kernelMessages returns what the kernel has to say about a failed mount.
func kernelMessages(fs int) string {
	const maxMessages = 8
	var all strings.Builder
	buffer := make([]byte, 512)
	for range maxMessages {
		n, err := unix.Read(fs, buffer)
		if err != nil || n == 0 {
			break
		}
		fmt.Fprintf(&all, " (%s)", strings.TrimSpace(string(buffer[:n])))
	}
	return all.String()
}

// Clone returns an unattached second mount of what is mounted at, or lies under, path. It
// must be called by a thread in the namespace of path: kernels before 6.15 refuse others.
func Clone(path string, attributes uint64) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_NO_AUTOMOUNT)
	if err != nil {
		return nil, fmt.Errorf("clone mount %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	if attributes == 0 {
		return file, nil
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attributes}); err != nil {
		file.Close()
		return nil, fmt.Errorf("set attributes of mount %s: %w", path, err)
	}
	return file, nil
}

// Place attaches an unattached mount to a directory or file of the calling thread's namespace. No
// component of the path may be a symbolic link: an image must not be able to send a mount
// elsewhere.
func Place(mount *os.File, target string) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, target, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return fmt.Errorf("mount at %s: %w", target, err)
	}
	defer unix.Close(fd)
	err = unix.MoveMount(int(mount.Fd()), "", fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mount at %s: %w", target, err)
	}
	return nil
}

// Device mounts a block device in the calling thread's namespace, whose root must be a
// writable tmpfs that allows devices, without attaching it. The device gets a
// node of its own for that, so that this works without /dev and mountinfo shows no more
// than name.
func Device(kind, name string, rdev uint64, attributes int, options ...Option) (_ *os.File, err error) {
	directory, err := os.MkdirTemp("/", "device-")
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", kind, err)
	}
	defer func() { err = errors.Join(err, unix.Chdir("/"), os.RemoveAll(directory)) }()
	if err := unix.Mknod(directory+"/"+name, unix.S_IFBLK|0o600, int(rdev)); err != nil {
		return nil, fmt.Errorf("mount %s: make device node: %w (is CAP_MKNOD missing?)", kind, err)
	}
	if err := unix.Chdir(directory); err != nil {
		return nil, fmt.Errorf("mount %s: %w", kind, err)
	}
	return New(kind, name, attributes, options...)
}
