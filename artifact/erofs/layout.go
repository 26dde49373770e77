package erofs

import (
	"cmp"
	"io/fs"
	"iter"
	"slices"
)

// Lengths of the format in bytes (Linux: fs/erofs/erofs_fs.h).
const (
	blockSize     = 4096
	slotSize      = 32 // inodes begin at multiples of it, and are numbered by them
	compactInode  = 32
	extendedInode = 64
	direntSize    = 12
)

// maxCompactLinks is what the 16 bits of a compact inode hold.
const maxCompactLinks = 0xffff

// A layout says where everything lies: block 0 has the superblock, the metadata follow, then
// contents that are not inline.
type layout struct {
	order          []*node // of the inodes; directories before what is in them
	metadataBlocks int64
	dataBlocks     int64
}

// layOut gives every node its place. Small contents lie behind their inode, in the same block: that
// saves reading and storing a block for each.
func layOut(root *node) *layout {
	l := new(layout)
	l.collect(root)
	var end int64 // of the metadata so far
	for _, n := range l.order {
		n.size = n.contentBytes()
		gap := blockSize - end%blockSize
		n.inline = n.size > 0 && n.inodeBytes()+n.size <= blockSize
		switch whole := n.inodeBytes() + n.size; {
		case n.inline && whole <= gap:
		case n.inline && gap+n.size < blockSize: // wasting the gap costs less than a block of its own
			end += gap
		default:
			n.inline = false
			if gap < n.inodeBytes() {
				end += gap
			}
		}
		n.offset = end
		end += n.inodeBytes()
		if n.inline {
			end += n.size
		} else {
			n.block = l.dataBlocks
			l.dataBlocks += blocks(n.size)
		}
		end = (end + slotSize - 1) / slotSize * slotSize
	}
	l.metadataBlocks = blocks(end)
	return l
}

// collect lists a directory's files behind it, and what is in its subdirectories behind each of these, so
// that what is read together lies together.
func (l *layout) collect(n *node) {
	l.order = append(l.order, n)
	for _, c := range n.children {
		l.collect(c)
	}
}

// blocks returns how many hold n bytes.
func blocks(n int64) int64 { return (n + blockSize - 1) / blockSize }

// firstDataBlock is the address of block 0 of the contents.
func (l *layout) firstDataBlock() int64 { return 1 + l.metadataBlocks }

func (l *layout) imageBlocks() int64 { return l.firstDataBlock() + l.dataBlocks }

// number is the inode's, by which directories and the superblock name it.
func (n *node) number() uint64 { return uint64(n.offset / slotSize) }

func (n *node) inodeBytes() int64 {
	if n.links() > maxCompactLinks || n.Entry.Size > 0xffffffff {
		return extendedInode
	}
	return compactInode
}

func (n *node) contentBytes() int64 {
	switch n.Mode.Type() {
	case fs.ModeDir:
		var size int64
		for group := range packed(n.dirents()) {
			size = (size+blockSize-1)/blockSize*blockSize + direntBytes(group)
		}
		return size
	case fs.ModeSymlink:
		return int64(len(n.Target))
	}
	return n.Entry.Size
}

// A dirent is one name in a directory.
type dirent struct {
	name string
	node *node
}

// dirents returns the names of a directory, its own and its parent's included, in the byte order by
// which the kernel searches them.
func (n *node) dirents() []dirent {
	list := make([]dirent, 0, len(n.children)+2)
	list = append(list, dirent{".", n}, dirent{"..", n.parent})
	for _, c := range n.children {
		list = append(list, dirent{c.name(), c})
	}
	slices.SortFunc(list, func(a, b dirent) int { return cmp.Compare(a.name, b.name) })
	return list
}

// packed yields the names block by block.
func packed(list []dirent) iter.Seq[[]dirent] {
	return func(yield func([]dirent) bool) {
		first, used := 0, int64(0)
		for i, d := range list {
			more := direntSize + int64(len(d.name))
			if used+more > blockSize {
				if !yield(list[first:i]) {
					return
				}
				first, used = i, 0
			}
			used += more
		}
		yield(list[first:])
	}
}

func direntBytes(group []dirent) int64 {
	var n int64
	for _, d := range group {
		n += direntSize + int64(len(d.name))
	}
	return n
}
