package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"cloister/internal/loop"
	"cloister/sandbox"
	"cloister/sandbox/native/internal/mount"
)

// Mount attributes of everything that an image is seen through. Programs may be executed.
const imageAttributes = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// images keeps one mount of each image that some sandbox uses, in a mount namespace of
// its own. Sandboxes with the same Key share the file system, and so the pages it has read.
type images struct {
	namespace *mount.Namespace
	name      string // begins the names of the loop devices

	maxIdle int64 // bytes of images without users that stay mounted

	mu        sync.Mutex // never held while mounting
	byKey     map[string]*image
	idle      []*image // of byKey, without users; the longest unused first
	idleBytes int64
	serial    int
}

// An image is mounted at path in the namespace once ready is closed without err.
type image struct {
	key   string
	size  int64
	path  string
	ready chan struct{}
	err   error // set before ready is closed
	users int   // guarded by images.mu
}

func newImages(name string, maxIdle int64) (*images, error) {
	namespace, err := mount.NewNamespace(nil)
	if err != nil {
		return nil, err
	}
	return &images{namespace: namespace, name: name, maxIdle: maxIdle, byKey: map[string]*image{}}, nil
}

// acquire mounts the image unless another sandbox has it mounted. The caller must release it.
func (m *images) acquire(ctx context.Context, wanted sandbox.Image) (*image, error) {
	if wanted.Key == "" || wanted.File == nil || wanted.Size <= 0 {
		return nil, errors.New("mount image: key, file or size is missing")
	}
	m.mu.Lock()
	i, shared := m.byKey[wanted.Key]
	if !shared {
		m.serial++
		i = &image{key: wanted.Key, size: wanted.Size, path: "/image-" + strconv.Itoa(m.serial), ready: make(chan struct{})}
		m.byKey[wanted.Key] = i
	}
	if n := slices.Index(m.idle, i); n >= 0 {
		m.idle = slices.Delete(m.idle, n, n+1)
		m.idleBytes -= i.size
	}
	i.users++
	m.mu.Unlock()

	if !shared {
		if i.err = m.mount(i, wanted); i.err != nil {
			m.mu.Lock()
			delete(m.byKey, i.key) // the next one tries again
			m.mu.Unlock()
		}
		close(i.ready)
	}
	var err error
	select {
	case <-i.ready:
		err = i.err
		if err == nil && i.size != wanted.Size {
			err = fmt.Errorf("an image of %d bytes is mounted under the key of one of %d", i.size, wanted.Size)
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount image %s: %w", wanted.Key, err), m.release(i))
	}
	return i, nil
}

func (m *images) mount(i *image, wanted sandbox.Image) error {
	device, err := loop.Attach(loop.Config{File: wanted.File, Size: wanted.Size, ReadOnly: true, Name: m.name + i.path[1:]})
	if err != nil {
		return err
	}
	defer device.Close() // the mount keeps it
	rdev, err := device.Rdev()
	if err != nil {
		return err
	}
	return mount.OnThread(func() error {
		if err := m.namespace.Enter(); err != nil {
			return err
		}
		fs, err := mount.Device("erofs", "image", rdev, imageAttributes, mount.Option{Key: "ro"})
		if err != nil {
			return err
		}
		defer fs.Close()
		if err := os.Mkdir(i.path, 0o700); err != nil {
			return err
		}
		return mount.Place(fs, i.path)
	})
}

// release gives one use up. An image without users stays mounted as long as there is room for
// idle ones: the next sandbox that wants it finds its pages in memory.
func (m *images) release(i *image) error {
	m.mu.Lock()
	i.users--
	if i.users == 0 && i.err == nil { // the one who mounts is a user until err is known
		m.idle = append(m.idle, i)
		m.idleBytes += i.size
	}
	var leaving []*image
	for len(m.idle) > 0 && m.idleBytes > m.maxIdle {
		oldest := m.idle[0]
		m.idle = m.idle[1:]
		m.idleBytes -= oldest.size
		delete(m.byKey, oldest.key)
		leaving = append(leaving, oldest)
	}
	m.mu.Unlock()
	var failed []error
	for _, i := range leaving {
		failed = append(failed, m.unmount(i))
	}
	return errors.Join(failed...)
}

// unmount takes an image out of the namespace. Its file system ends once no sandbox's own mount of
// it is left.
func (m *images) unmount(i *image) error {
	err := mount.OnThread(func() error {
		if err := m.namespace.Enter(); err != nil {
			return err
		}
		return errors.Join(unix.Unmount(i.path, unix.MNT_DETACH), os.Remove(i.path))
	})
	if err != nil {
		return fmt.Errorf("unmount image %s: %w", i.key, err)
	}
	return nil
}

// mounted returns how many images are mounted.
func (m *images) mounted() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.byKey)
}
