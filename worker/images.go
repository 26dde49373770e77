package worker

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"cloister/lambda"
	"cloister/sandbox"
)

// maxIdleCodeBytes of code without an environment stay in memory, so that the next cold start of a
// function need not fetch and unseal it again, which takes ten times as long as the rest.
const maxIdleCodeBytes = 256 << 20

// image is a function's code, plain, in a sealed memfd: in memory only, never on disk.
type image struct {
	sandbox.Image
	ready chan struct{} // closed when the fields above or err are set
	err   error
	users int // guarded by images.mu
}

// images shares the plain code between the environments of one account.
type images struct {
	upstream Upstream

	mu        sync.Mutex
	byKey     map[string]*image // guarded by mu; in use, being fetched, or idle
	idle      []*image          // guarded by mu; without users, the longest unused first
	idleBytes int64             // guarded by mu; of idle
}

func newImages(u Upstream) *images { return &images{upstream: u, byKey: map[string]*image{}} }

// acquire returns the artifact's image, fetching it if no environment of the same account
// has it. Every acquire that succeeds needs one release.
func (c *images) acquire(ctx context.Context, accountID string, a lambda.Artifact, grant string) (*image, error) {
	if a.Owner != accountID {
		return nil, &lambda.Error{Kind: lambda.AccessDenied, Op: "fetch code", Message: "the artifact belongs to another account"}
	}
	key := accountID + "/" + a.ID // the account keeps mounts of equal code in different accounts apart
	for {
		i, first := c.join(key, a.Size)
		if first {
			i.File, i.err = c.fetch(ctx, a, grant)
			close(i.ready)
			if i.err != nil {
				c.release(i)
				return nil, i.err
			}
			return i, nil
		}
		select {
		case <-i.ready:
		case <-ctx.Done():
			c.release(i)
			return nil, fmt.Errorf("fetch code: %w", context.Cause(ctx))
		}
		if i.err == nil {
			return i, nil
		}
		// Another order's fetch failed, perhaps for what is its own: a grant of a front that is
		// dead, a caller that left. Only what became of its own fetch may refuse an order. This
		// ends, for each order that fails leaves the others.
		c.release(i)
	}
}

// join makes the caller a user of the image, and says whether it is the first, who has to fetch it.
func (c *images) join(key string, size int64) (i *image, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i = c.byKey[key]; i != nil {
		if i.users++; i.users == 1 {
			c.wake(i)
		}
		return i, false
	}
	i = &image{Image: sandbox.Image{Key: key, Size: size}, ready: make(chan struct{}), users: 1}
	c.byKey[key] = i
	return i, true
}

// wake takes an image from the idle ones, if it is one of them. The caller holds mu.
func (c *images) wake(i *image) {
	if n := slices.Index(c.idle, i); n >= 0 {
		c.idle = slices.Delete(c.idle, n, n+1)
		c.idleBytes -= i.Size
	}
}

// release gives the image back. Without users it stays idle until newer ones need the room.
func (c *images) release(i *image) {
	c.mu.Lock()
	i.users--
	var over []*image
	switch {
	case i.failed(): // what failed must be fetched anew by the next one
		if c.byKey[i.Key] == i {
			delete(c.byKey, i.Key)
		}
	case i.users == 0:
		c.idle = append(c.idle, i)
		c.idleBytes += i.Size
		for c.idleBytes > maxIdleCodeBytes {
			oldest := c.idle[0]
			c.wake(oldest)
			delete(c.byKey, oldest.Key)
			over = append(over, oldest)
		}
	}
	c.mu.Unlock()
	for _, i := range over {
		i.File.Close()
	}
}

func (i *image) failed() bool {
	select {
	case <-i.ready:
		return i.err != nil
	default:
		return false
	}
}

// fetch unseals the artifact into a memfd that nobody can change afterwards.
func (c *images) fetch(ctx context.Context, a lambda.Artifact, grant string) (*os.File, error) {
	fd, err := unix.MemfdCreate("cloister-code", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err != nil { // kernels before 6.3 do not know MFD_NOEXEC_SEAL
		fd, err = unix.MemfdCreate("cloister-code", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch code: make memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "cloister-code")
	w := bufio.NewWriterSize(f, 1<<20)
	if err = c.upstream.Fetch(ctx, grant, a, w); err == nil {
		err = w.Flush()
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("fetch code: %w", err)
	}
	return f, nil
}
