package runtimes

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"cloister/artifact/erofs"
)

// imageFormat is part of every image's key; it changes when equal inputs give another image.
const imageFormat = "cloister runtime image 1"

// A tree is a root file system in the making. Paths are absolute, as seen inside.
type tree struct {
	entries map[string]erofs.Entry
	sources map[string]string // path to a description of where the content comes from, for the key
}

func newTree() *tree { return &tree{entries: map[string]erofs.Entry{}, sources: map[string]string{}} }

func (t *tree) add(name, source string, e erofs.Entry) {
	e.Path = strings.TrimPrefix(path.Clean(name), "/")
	t.entries[e.Path], t.sources[e.Path] = e, source
}

func (t *tree) has(name string) bool {
	_, ok := t.entries[strings.TrimPrefix(path.Clean(name), "/")]
	return ok
}

func (t *tree) directory(names ...string) {
	for _, name := range names {
		t.add(name, "directory", erofs.Entry{Mode: fs.ModeDir | 0o755})
	}
}

func (t *tree) link(name, target string) {
	t.add(name, "link "+target, erofs.Entry{Mode: fs.ModeSymlink | 0o777, Target: target})
}

// content adds a file with bytes that this program knows.
func (t *tree) content(name string, data []byte) {
	sum := sha256.Sum256(data)
	t.add(name, "content "+hex.EncodeToString(sum[:]), erofs.Entry{
		Mode: 0o644, Size: int64(len(data)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	})
}

// file adds a copy of a file of the host, whose name may be a symbolic link. Of its mode only
// whether it can be run is kept.
func (t *tree) file(name, host string) error { return t.transformed(name, host, nil) }

// transformed is file with a change to the bytes that keeps their number.
func (t *tree) transformed(name, host string, change func([]byte) error) error {
	info, err := os.Stat(host)
	if err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("add %s: %s is not a regular file", name, host)
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	t.add(name, hostSource(host, info), erofs.Entry{
		Mode: mode, Size: info.Size(),
		Open: func() (io.ReadCloser, error) {
			if change == nil {
				return os.Open(host)
			}
			data, err := os.ReadFile(host)
			if err == nil {
				err = change(data)
			}
			return io.NopCloser(bytes.NewReader(data)), err
		},
	})
	return nil
}

// hostSource identifies the content of a host's file without reading it.
func hostSource(host string, info fs.FileInfo) string {
	return fmt.Sprintf("host %q %d %d", host, info.Size(), info.ModTime().UnixNano())
}

// fileIfPresent is file for what not every host has.
func (t *tree) fileIfPresent(name, host string) error {
	if _, err := os.Stat(host); err != nil {
		return nil // absent is fine
	}
	return t.file(name, host)
}

// folder adds a folder of the host with what keep wants of it. Keep is given paths relative
// to the folder; a folder that it does not want is not entered. Symbolic links to files become
// the files.
func (t *tree) folder(name, host string, keep func(relative string, d fs.DirEntry) bool) error {
	return filepath.WalkDir(host, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		relative, err := filepath.Rel(host, at)
		if err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		inside := path.Join(name, filepath.ToSlash(relative))
		if relative != "." && !keep(relative, d) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			t.directory(inside)
			return nil
		}
		if d.Type() == fs.ModeSymlink {
			if info, err := os.Stat(at); err != nil || !info.Mode().IsRegular() {
				return nil // a dangling link, or one to a folder
			}
		} else if !d.Type().IsRegular() {
			return nil
		}
		return t.file(inside, at)
	})
}

// key identifies the image that the tree will give.
func (t *tree) key(more ...string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%q\n", imageFormat, more)
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		fmt.Fprintf(h, "%q %o %s\n", name, t.entries[name].Mode, t.sources[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// list returns the entries in the order of their paths.
func (t *tree) list() []erofs.Entry {
	entries := make([]erofs.Entry, 0, len(t.entries))
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		entries = append(entries, t.entries[name])
	}
	return entries
}
