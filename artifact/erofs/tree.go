package erofs

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// A node is one file of a checked tree. Where it lies in the image is set by layOut.
type node struct {
	*Entry
	parent   *node
	children []*node // of a directory, sorted by name

	offset int64 // of the inode in the metadata, in bytes
	block  int64 // the first one of the contents, unless they are inline
	inline bool  // the contents follow the inode
	size   int64 // of the contents: a file's bytes, a link's target, a directory's entries
}

func (n *node) name() string { return path.Base(n.Path) }

// rootPath is the path of the root, as package path has it.
const rootPath = "."

// A tree is a list of entries that has been checked.
type tree map[string]*node // by path

func newTree(entries []Entry) (tree, error) {
	root := &node{Entry: &Entry{Path: rootPath, Mode: fs.ModeDir | 0o755}}
	root.parent = root
	t := make(tree, len(entries)+1)
	t[rootPath] = root
	// Parents before children, so that they are there with their own mode.
	sorted := make([]*Entry, len(entries))
	for i := range entries {
		sorted[i] = &entries[i]
	}
	slices.SortFunc(sorted, func(a, b *Entry) int { return cmp.Compare(a.Path, b.Path) })
	for _, e := range sorted {
		if err := check(e); err != nil {
			return nil, err
		}
		if _, dup := t[e.Path]; dup {
			return nil, refuse(e, "it is there twice, or as a file and as a directory")
		}
		if err := t.add(e); err != nil {
			return nil, err
		}
	}
	for _, n := range t {
		slices.SortFunc(n.children, func(a, b *node) int { return cmp.Compare(a.name(), b.name()) })
	}
	return t, nil
}

// add puts an entry into its directory, which it makes if need be.
func (t tree) add(e *Entry) error {
	above := path.Dir(e.Path)
	parent, ok := t[above]
	if !ok {
		if err := t.add(&Entry{Path: above, Mode: fs.ModeDir | 0o755}); err != nil {
			return err
		}
		parent = t[above]
	}
	if !parent.Mode.IsDir() {
		return refuse(e, "it lies below a file")
	}
	n := &node{Entry: e, parent: parent}
	parent.children = append(parent.children, n)
	t[e.Path] = n
	return nil
}

func check(e *Entry) error {
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

func refuse(e *Entry, format string, args ...any) error {
	return fmt.Errorf("%w: %.300q: %s", ErrTree, e.Path, fmt.Sprintf(format, args...))
}

// links counts the names of a file; of a directory these are the one in its parent, its own ".",
// and the ".." of each subdirectory.
func (n *node) links() uint32 {
	if !n.Mode.IsDir() {
		return 1
	}
	count := uint32(2)
	for _, c := range n.children {
		if c.Mode.IsDir() {
			count++
		}
	}
	return count
}
