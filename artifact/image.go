package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"cloister/artifact/erofs"
)

// An image is a plain EROFS image in memory.
type image struct {
	file *os.File // a memfd, never on disk
	size int64
	id   string // hexadecimal SHA-256
}

func buildImage(ctx context.Context, entries []erofs.Entry) (_ image, err error) {
	f, err := memoryFile()
	if err != nil {
		return image{}, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	size, err := erofs.Build(ctx, f, entries)
	if err != nil {
		return image{}, fmt.Errorf("build image: %w", err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
		return image{}, fmt.Errorf("hash image: %w", err)
	}
	return image{f, size, hex.EncodeToString(h.Sum(nil))}, nil
}

// memoryFile makes a file that is only in memory and can never be executed.
func memoryFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	return os.NewFile(uintptr(fd), "image"), nil
}
