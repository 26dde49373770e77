// Package erofs builds read-only EROFS file system images from lists of files, in pure Go
// over github.com/erofs/go-erofs.
//
// It does not read zips (package artifact/zip does), does not seal or store images (package
// artifact does) and mounts nothing. Packages artifact and runtimes call it.
//
// Invariants: the same tree gives the same bytes, whatever the order of the list and the
// time of day: all owners are 0, all times are 0, names are sorted. An image holds directories,
// regular files and symbolic links, and nothing else: no devices, no set-user-id bits, no
// extended attributes. File contents go from their reader to the image without touching any
// other file. Paths, modes, targets and contents may be an attacker's; a list that does not
// describe a tree is refused.
package erofs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	goerofs "github.com/erofs/go-erofs"
)

// Limits of Linux on one name and on the target of a symbolic link, in bytes.
const (
	MaxNameBytes   = 255
	MaxTargetBytes = 4095
)

// An Entry is one file of a tree.
type Entry struct {
	// Path is relative to the root of the image and clean: "usr/bin/env". Directories that
	// no entry names are made with mode 0755, as is the root.
	Path string

	// Mode is a type (0 for a regular file, fs.ModeDir or fs.ModeSymlink) and permission bits.
	Mode fs.FileMode

	// Target is where a symbolic link points. It is not checked.
	Target string

	// Size is the length of a regular file. Open is called once, while the image is
	// written, and must give exactly Size bytes, then io.EOF. It may be nil if Size is 0.
	Size int64
	Open func() (io.ReadCloser, error)
}

// ErrTree is wrapped by the errors of Build that the list of entries itself causes.
var ErrTree = errors.New("erofs: not a file tree")

// Build writes the image of the entries to w, which must be empty, and returns its
// size. Errors of an entry's Open and Read are wrapped. The small files' contents are held
// in memory until the end: files below 4 KiB lie between the inodes.
func Build(ctx context.Context, w io.WriteSeeker, entries []Entry) (int64, error) {
	t, err := newTree(ctx, entries)
	if err != nil {
		return 0, err
	}
	image := goerofs.Create(w, goerofs.WithBuildTime(0, 0))
	if err := image.CopyFrom(t); err != nil {
		return 0, fmt.Errorf("lay out image: %w", err)
	}
	// go-erofs gives every copied directory two links; programs that walk trees may conclude
	// from that that it has no subdirectories.
	for path, n := range t.nodes {
		if n.IsDir() {
			if err := image.SetNlink(path, n.links()); err != nil {
				return 0, fmt.Errorf("lay out image: %w", err)
			}
		}
	}
	if err := image.Close(); err != nil {
		return 0, fmt.Errorf("write image: %w", err)
	}
	size, err := w.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("measure image: %w", err)
	}
	return size, nil
}
