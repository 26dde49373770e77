package erofs

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
)

// Values of the format (Linux: fs/erofs/erofs_fs.h).
const (
	magic            = 0xe0f5e1e2
	superblockOffset = 1024
	superblockSize   = 128
	blockBits        = 12

	formatExtended = 1 << 0
	formatPlain    = 0 << 1
	formatInline   = 2 << 1

	modeRegular   = 0o100000
	modeDirectory = 0o040000
	modeLink      = 0o120000

	direntRegular   = 1
	direntDirectory = 2
	direntLink      = 7
)

// A writer puts an image together from front to end.
type writer struct {
	ctx    context.Context // of the one Build that the writer is made for
	layout *layout
	out    *bufio.Writer
	at     int64 // bytes written
}

// writeBufferBytes is the only memory that contents pass through.
const writeBufferBytes = 256 << 10

func (w *writer) image() error {
	w.write(w.superblock())
	for _, n := range w.layout.order {
		w.pad(blockSize + n.offset)
		w.write(w.inode(n))
		if n.inline {
			if err := w.content(n); err != nil {
				return err
			}
		}
	}
	for _, n := range w.layout.order {
		if n.inline || n.size == 0 {
			continue
		}
		w.pad((w.layout.firstDataBlock() + n.block) * blockSize)
		if err := w.content(n); err != nil {
			return err
		}
	}
	w.pad(w.layout.imageBlocks() * blockSize)
	return w.out.Flush()
}

// write leaves an error to the Flush at the end, which has the first one.
func (w *writer) write(b []byte) {
	_, _ = w.out.Write(b)
	w.at += int64(len(b))
}

// pad writes zeros up to an offset.
func (w *writer) pad(to int64) {
	var zeros [blockSize]byte
	for w.at < to {
		w.write(zeros[:min(to-w.at, blockSize)])
	}
}

// superblock is block 0 up to the end of the superblock.
func (w *writer) superblock() []byte {
	b := make([]byte, superblockOffset, superblockOffset+superblockSize)
	b = binary.LittleEndian.AppendUint32(b, magic)
	b = append(b, make([]byte, 8)...) // checksum, compatible features
	b = append(b, blockBits, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(w.layout.order[0].number()))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(w.layout.order)))
	b = append(b, make([]byte, 12)...) // time of the build, which is that of compact inodes
	b = binary.LittleEndian.AppendUint32(b, uint32(w.layout.imageBlocks()))
	b = binary.LittleEndian.AppendUint32(b, 1) // where the metadata begin
	return b[:superblockOffset+superblockSize]
}

// inode has owner 0 and time 0.
func (w *writer) inode(n *node) []byte {
	format, block := uint16(formatPlain), uint32(0)
	if n.inline {
		format = formatInline
	} else if n.size > 0 {
		block = uint32(w.layout.firstDataBlock() + n.block)
	}
	mode, _ := types(n.Mode)
	mode |= uint16(n.Mode.Perm())
	if n.inodeBytes() == compactInode {
		b := make([]byte, 0, compactInode)
		b = binary.LittleEndian.AppendUint16(b, format)
		b = append(b, 0, 0) // no extended attributes
		b = binary.LittleEndian.AppendUint16(b, mode)
		b = binary.LittleEndian.AppendUint16(b, uint16(n.links()))
		b = binary.LittleEndian.AppendUint32(b, uint32(n.size))
		b = append(b, 0, 0, 0, 0)
		return binary.LittleEndian.AppendUint32(b, block)[:compactInode]
	}
	b := make([]byte, 0, extendedInode)
	b = binary.LittleEndian.AppendUint16(b, format|formatExtended)
	b = append(b, 0, 0)
	b = binary.LittleEndian.AppendUint16(b, mode)
	b = append(b, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(n.size))
	b = binary.LittleEndian.AppendUint32(b, block)
	b = append(b, make([]byte, 24)...) // number for old programs, owner, time
	return binary.LittleEndian.AppendUint32(b, n.links())[:extendedInode]
}

// types returns how inodes and directories name the type of a file.
func types(m fs.FileMode) (mode uint16, inDirectory byte) {
	switch m.Type() {
	case fs.ModeDir:
		return modeDirectory, direntDirectory
	case fs.ModeSymlink:
		return modeLink, direntLink
	}
	return modeRegular, direntRegular
}

// content writes what is in a file.
func (w *writer) content(n *node) error {
	switch n.Mode.Type() {
	case fs.ModeDir:
		w.directory(n)
		return nil
	case fs.ModeSymlink:
		w.write([]byte(n.Target))
		return nil
	}
	if err := w.file(n.Entry); err != nil {
		return fmt.Errorf("write %.300q: %w", n.Path, err)
	}
	return nil
}

func (w *writer) directory(n *node) {
	begin := w.at
	for group := range packed(n.dirents()) {
		if used := w.at - begin; used%blockSize != 0 {
			w.pad(w.at + blockSize - used%blockSize)
		}
		where := len(group) * direntSize // of the name
		for _, d := range group {
			b := binary.LittleEndian.AppendUint64(make([]byte, 0, direntSize), d.node.number())
			b = binary.LittleEndian.AppendUint16(b, uint16(where))
			_, kind := types(d.node.Mode)
			w.write(append(b, kind, 0))
			where += len(d.name)
		}
		for _, d := range group {
			w.write([]byte(d.name))
		}
	}
}

// file copies an entry's contents and insists on their length. It reads on to io.EOF, because readers
// that check a sum do so there.
func (w *writer) file(e *Entry) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	content, err := e.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	n, err := io.Copy(w.out, io.LimitReader(content, e.Size))
	w.at += n
	switch {
	case err != nil:
		return err
	case n < e.Size:
		return refuse(e, "it has only %d bytes of %d", n, e.Size)
	}
	var more [1]byte
	if n, err := io.ReadFull(content, more[:]); n > 0 {
		return refuse(e, "it has more than %d bytes", e.Size)
	} else if err != io.EOF {
		return err
	}
	return nil
}
