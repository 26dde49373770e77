// Package erofs builds read-only EROFS file system images from lists of files, in pure Go.
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
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// Build writes the image of the entries to w and returns its size, a multiple of 4,096 bytes.
// Errors of an entry's Open and Read are wrapped. Contents are streamed: memory is taken by names
// and targets only. After an error what was written is to be thrown away. An entry takes less than 5,000
// bytes beside its contents and target.
func Build(ctx context.Context, w io.Writer, entries []Entry) (int64, error) {
	t, err := newTree(entries)
	if err != nil {
		return 0, err
	}
	image := &writer{ctx: ctx, layout: layOut(t[rootPath]), out: bufio.NewWriterSize(w, writeBufferBytes)}
	if err := image.image(); err != nil {
		return 0, fmt.Errorf("write image: %w", err)
	}
	return image.at, nil
}
