package erofs

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// A tree is a checked list of entries as a file system, in the form that go-erofs copies
// from: package fs's interfaces. Opening a file in it does not open the entry yet, because
// go-erofs opens all files before it reads the first.
type tree struct {
	ctx   context.Context // of the one Build that the tree is made for
	nodes map[string]*node
}

var (
	_ fs.ReadDirFS  = (*tree)(nil)
	_ fs.StatFS     = (*tree)(nil)
	_ fs.ReadLinkFS = (*tree)(nil)
)

// rootPath is how package fs names the root.
const rootPath = "."

// A node is one file. It is its own fs.FileInfo and fs.DirEntry.
type node struct {
	Entry
	children []fs.DirEntry // of a directory, sorted by name
}

func newTree(ctx context.Context, entries []Entry) (*tree, error) {
	t := &tree{ctx: ctx, nodes: make(map[string]*node, len(entries)+1)}
	t.nodes[rootPath] = &node{Entry: Entry{Path: rootPath, Mode: fs.ModeDir | 0o755}}
	// Parents before children, so that they are there with their own mode.
	sorted := slices.SortedFunc(slices.Values(entries), func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	for _, e := range sorted {
		if err := check(e); err != nil {
			return nil, err
		}
		if _, dup := t.nodes[e.Path]; dup {
			return nil, refuse(e, "it is there twice, or as a file and as a directory")
		}
		if err := t.add(e); err != nil {
			return nil, err
		}
	}
	for _, n := range t.nodes {
		slices.SortFunc(n.children, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	}
	return t, nil
}

// add puts an entry into its directory, which it makes if need be.
func (t *tree) add(e Entry) error {
	above := path.Dir(e.Path)
	parent, ok := t.nodes[above]
	if !ok {
		if err := t.add(Entry{Path: above, Mode: fs.ModeDir | 0o755}); err != nil {
			return err
		}
		parent = t.nodes[above]
	}
	if !parent.IsDir() {
		return refuse(e, "it lies below a file")
	}
	n := &node{Entry: e}
	parent.children = append(parent.children, n)
	t.nodes[e.Path] = n
	return nil
}

func check(e Entry) error {
	if strings.IndexByte(e.Path, 0) >= 0 || strings.IndexByte(e.Target, 0) >= 0 {
		return refuse(e, "it holds a zero byte")
	}
	for name := range strings.SplitSeq(e.Path, "/") {
		if name == "" || name == "." || name == ".." {
			return refuse(e, "the path is not clean and relative")
		}
		if len(name) > MaxNameBytes {
			return refuse(e, "a name is too long")
		}
	}
	switch {
	case e.Mode&^(fs.ModeDir|fs.ModeSymlink|fs.ModePerm) != 0:
		return refuse(e, "the mode is %v", e.Mode)
	case e.Mode.Type() == fs.ModeSymlink:
		if e.Target == "" || len(e.Target) > MaxTargetBytes {
			return refuse(e, "the target has %d bytes", len(e.Target))
		}
	case e.Mode.Type() != 0 && e.Mode.Type() != fs.ModeDir:
		return refuse(e, "the mode is %v", e.Mode)
	case e.Mode.IsRegular() && (e.Size < 0 || e.Size > 0 && e.Open == nil):
		return refuse(e, "it has no contents")
	}
	return nil
}

func refuse(e Entry, format string, args ...any) error {
	return fmt.Errorf("%w: %.300q: %s", ErrTree, e.Path, fmt.Sprintf(format, args...))
}

func (t *tree) find(operation, name string) (*node, error) {
	if n, ok := t.nodes[name]; ok {
		return n, nil
	}
	return nil, &fs.PathError{Op: operation, Path: name, Err: fs.ErrNotExist}
}

// Open implements fs.FS.
func (t *tree) Open(name string) (fs.File, error) {
	n, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	return &file{ctx: t.ctx, node: n}, nil
}

// Stat implements fs.StatFS.
func (t *tree) Stat(name string) (fs.FileInfo, error) { return t.find("stat", name) }

// Lstat implements fs.ReadLinkFS.
func (t *tree) Lstat(name string) (fs.FileInfo, error) { return t.find("lstat", name) }

// ReadLink implements fs.ReadLinkFS.
func (t *tree) ReadLink(name string) (string, error) {
	n, err := t.find("readlink", name)
	if err != nil {
		return "", err
	}
	return n.Target, nil
}

// ReadDir implements fs.ReadDirFS.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.find("readdir", name)
	if err != nil {
		return nil, err
	}
	return n.children, nil
}

// Name implements fs.FileInfo, as do the methods below.
func (n *node) Name() string               { return path.Base(n.Path) }
func (n *node) Size() int64                { return n.Entry.Size }
func (n *node) Mode() fs.FileMode          { return n.Entry.Mode }
func (n *node) ModTime() time.Time         { return time.Time{} }
func (n *node) IsDir() bool                { return n.Entry.Mode.IsDir() }
func (n *node) Sys() any                   { return nil }
func (n *node) Type() fs.FileMode          { return n.Entry.Mode.Type() }
func (n *node) Info() (fs.FileInfo, error) { return n, nil }

// links counts the names of a directory: in its parent, its own ".", and the ".." of
// each subdirectory.
func (n *node) links() uint32 {
	count := uint32(2)
	for _, c := range n.children {
		if c.IsDir() {
			count++
		}
	}
	return count
}

// A file reads an entry's contents and insists on their length.
type file struct {
	ctx     context.Context
	node    *node
	content io.ReadCloser // nil before the first Read
	read    int64
}

// Stat implements fs.File.
func (f *file) Stat() (fs.FileInfo, error) { return f.node, nil }

// Read implements fs.File. The last bytes are given only when io.EOF follows them: readers that
// check a sum do so there, and go-erofs would not ask.
func (f *file) Read(p []byte) (int, error) {
	if f.content == nil {
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	rest := f.node.Entry.Size - f.read
	n, err := f.content.Read(p[:min(int64(len(p)), rest)])
	f.read += int64(n)
	if f.read < f.node.Entry.Size {
		if err == io.EOF {
			err = refuse(f.node.Entry, "it has only %d bytes of %d", f.read, f.node.Entry.Size)
		}
		return n, err
	}
	if err == nil {
		err = f.expectEnd()
	}
	if err != nil && err != io.EOF {
		return 0, err
	}
	return n, err
}

func (f *file) open() error {
	if err := f.ctx.Err(); err != nil {
		return err
	}
	content, err := f.node.Open()
	if err == nil {
		f.content = content
	}
	return err
}

// expectEnd returns io.EOF if the contents end here.
func (f *file) expectEnd() error {
	var b [1]byte
	n, err := io.ReadFull(f.content, b[:])
	if n > 0 {
		return refuse(f.node.Entry, "it has more than %d bytes", f.node.Entry.Size)
	}
	return err
}

// Close implements fs.File.
func (f *file) Close() error {
	if f.content == nil {
		return nil
	}
	return f.content.Close()
}
