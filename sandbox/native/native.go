// Package native closes execution environments off with what the kernel itself offers: namespaces,
// control groups, a user of their own, a read-only root, no capabilities, and a filter of system
// calls. It is the weakest and fastest of the backends: everything inside talks to the host's kernel,
// so a fault in one of the calls that the filter allows is a way out. DESIGN.md beside
// this file tells how a sandbox comes to be and why so.
//
// It does not know functions or accounts. Package worker calls it through the contract of package
// sandbox; cmd/cloister makes it. It needs root.
//
// Invariant: no instruction of a customer runs before its process has lost every privilege and
// every limit is in force, and nothing inside a sandbox can reach anything outside of it but the
// two listeners that the worker holds.
//
// An attacker controls everything that runs inside after Attach, the bytes of the images (they
// are mounted by the kernel's EROFS), and the paths, arguments and variables of Start.
package native

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"cloister/internal/cgroup"
	"cloister/sandbox"
	"cloister/sandbox/native/internal/inside"
	"cloister/sandbox/native/internal/mount"
	"cloister/sandbox/native/internal/program"
)

// Config of a Backend. All fields but the last two are required.
type Config struct {
	// Installation is 8 lower-case hexadecimal digits. Everything on the host carries it; no other
	// running backend may have the same.
	Installation string

	// Directory is on a real disk (not a tmpfs), of mode 0700, and ours alone. The bytes
	// that functions write to /tmp lie there, in files without names.
	Directory string

	// FirstUID is the first of UIDs user and group ids that nothing else on the host
	// uses. One of them is for the first processes of sandboxes, so that UIDs-1 sandboxes
	// can exist at a time.
	FirstUID, UIDs int

	// IdleImageBytes bounds the images that stay mounted while no sandbox uses them, so
	// that the next one finds their pages in memory; the longest unused go first. 0 keeps none.
	IdleImageBytes int64

	Logger *slog.Logger // nil discards
}

var installationPattern = regexp.MustCompile(`^[0-9a-f]{8}$`)

// Backend makes native sandboxes. Its methods may be called concurrently.
type Backend struct {
	installation string
	logger       *slog.Logger
	helpers      *inside.Set
	groups       *cgroup.Hierarchy
	images       *images
	ephemeral    *ephemeral
	empty        *mount.Namespace // what sandboxes' mount namespaces begin as: the helpers, and a place for the root
	starter      *os.File         // the starter's executable in empty

	mu   sync.Mutex
	uids []int // guarded by mu; free ones, the longest unused first
	live int   // guarded by mu; sandboxes that exist
}

var _ sandbox.Backend = (*Backend)(nil)

// New makes a backend. It changes nothing that Close does not undo. The error says what the host
// lacks.
func New(c Config) (*Backend, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("native sandbox: %w", err)
	}
	b := &Backend{installation: c.Installation, logger: c.Logger}
	if b.logger == nil {
		b.logger = slog.New(slog.DiscardHandler)
	}
	b.ephemeral = &ephemeral{directory: c.Directory, name: b.mark(), templates: map[int]*os.File{}}
	for uid := c.FirstUID + 1; uid < c.FirstUID+c.UIDs; uid++ {
		b.uids = append(b.uids, uid)
	}
	if err := b.open(c); err != nil {
		return nil, errors.Join(fmt.Errorf("native sandbox: %w", err), b.Close())
	}
	return b, nil
}

func (c *Config) check() error {
	switch {
	case !program.Supported:
		return errors.New("this machine's architecture is not supported; amd64 is")
	case os.Geteuid() != 0:
		return errors.New("root is needed")
	case !installationPattern.MatchString(c.Installation):
		return fmt.Errorf("installation %q is not 8 hexadecimal digits", c.Installation)
	case c.FirstUID < 1000 || c.UIDs < 2 || c.UIDs > 1<<20 || c.FirstUID+c.UIDs > 1<<31-2:
		return fmt.Errorf("user ids from %d, %d of them, are not a usable range", c.FirstUID, c.UIDs)
	}
	info, err := os.Stat(c.Directory)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || info.Mode().Perm() != 0o700 || stat.Uid != 0 {
		return fmt.Errorf("%s is not a directory of mode 0700 that belongs to root", c.Directory)
	}
	return nil
}

// open makes what all sandboxes share.
func (b *Backend) open(c Config) (err error) {
	if b.helpers, err = inside.Build(c.FirstUID); err != nil {
		return err
	}
	if b.groups, err = cgroup.Open(cgroup.Config{Name: "cloister-" + b.installation}); err != nil {
		return err
	}
	if b.images, err = newImages(b.mark(), c.IdleImageBytes); err != nil {
		return err
	}
	b.empty, err = mount.NewNamespace(func() error {
		if err := os.Mkdir(rootPath, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(keeperPath, b.helpers.KeeperImage, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(starterPath, b.helpers.StarterImage, 0o700); err != nil {
			return err
		}
		b.starter, err = os.OpenFile(starterPath, unix.O_PATH|unix.O_CLOEXEC, 0)
		return err
	})
	return err
}

const (
	rootPath    = "/root"
	keeperPath  = "/keeper"
	starterPath = "/starter"
)

// mark begins the name of everything on the host that is ours.
func (b *Backend) mark() string { return "cloister-" + b.installation + "-" }

// Level returns sandbox.Native.
func (b *Backend) Level() sandbox.Level { return sandbox.Native }

// Close gives up what sandboxes shared. It refuses while one exists.
func (b *Backend) Close() error {
	b.mu.Lock()
	live := b.live
	b.mu.Unlock()
	if live > 0 {
		return fmt.Errorf("close native sandbox: %d sandboxes still exist", live)
	}
	var failed []error
	if b.starter != nil {
		failed = append(failed, b.starter.Close())
	}
	if b.empty != nil {
		failed = append(failed, b.empty.Close())
	}
	if b.images != nil {
		failed = append(failed, b.images.namespace.Close())
	}
	if b.groups != nil {
		failed = append(failed, b.groups.Close())
	}
	failed = append(failed, b.ephemeral.Close())
	b.starter, b.empty, b.images, b.groups = nil, nil, nil, nil
	return errors.Join(failed...)
}

// takeUID hands a user id out.
func (b *Backend) takeUID() (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.uids) == 0 {
		return 0, errNoUID
	}
	uid := b.uids[0]
	b.uids = b.uids[1:]
	b.live++
	return uid, nil
}

// returnUID takes a user id back whose sandbox is entirely gone.
func (b *Backend) returnUID(uid int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.uids = append(b.uids, uid)
	b.live--
}
