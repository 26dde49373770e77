// Package ziptest makes zips for tests: good ones, and a corpus of hostile ones that package
// artifact/zip must refuse and package artifact must survive.
//
// It is not a zip library: it writes whatever it is told, wrong or right. Only tests call it.
//
// Invariant: every case of the corpus says what must come of it, so that a reader that
// refuses everything fails as surely as one that takes everything.
package ziptest

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"sync"
)

// A File is one entry. The zero value of each field but Name is what a good tool writes.
type File struct {
	Name    string
	Content string
	Mode    uint32 // Unix mode; 0 leaves the attributes empty
	Stored  bool   // not compressed
	Flags   uint16
	Extra   []byte // in the directory and in the local header
	Creator uint16 // 0 means Unix, as in the high byte

	// Raw replaces the compressed content; Sum and Size are then those of Content.
	Raw []byte

	// Local and Central change the headers, of 30 and 46 bytes before the name, after they are made.
	Local, Central func(header []byte)

	LocalName                string // if it is another
	LocalExtra, CentralExtra []byte // beside Extra
	Descriptor               []byte // written behind the data
	Gap                      []byte // written before the local header
	SameAs                   int    // n > 0: no local header of its own, points to that of file n-1
	Unlisted                 bool   // no directory entry
}

// A Zip is an archive.
type Zip struct {
	Files   []File
	Comment string
	Prefix  []byte // before everything, not counted in the offsets
	Between []byte // behind the last entry, before the directory
	Suffix  []byte // behind everything
	Zip64   bool   // with a zip64 end record
	End     func(end []byte)
	End64   func(end []byte)
}

// Offsets in a local header and in a directory entry, for Local and Central.
const (
	LocalFlags, LocalMethod, LocalSum, LocalCompressed, LocalSize = 6, 8, 14, 18, 22

	CentralFlags, CentralMethod, CentralSum, CentralCompressed, CentralSize = 8, 10, 16, 20, 24
	CentralDisk, CentralOffset                                              = 34, 42
)

// Put16 and Put32 write a little-endian number at an offset.
func Put16(b []byte, offset int, v uint16) { binary.LittleEndian.PutUint16(b[offset:], v) }

// Put32 is described at Put16.
func Put32(b []byte, offset int, v uint32) { binary.LittleEndian.PutUint32(b[offset:], v) }

// deflaters are kept because a new one takes a mebibyte.
var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // only for other levels
	}
	return w
}}

// Deflate compresses.
func Deflate(content string) []byte {
	var b bytes.Buffer
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(&b)
	w.Write([]byte(content))
	w.Close()
	return b.Bytes()
}

// Of makes a plain zip of names and contents, one after the other.
func Of(namesAndContents ...string) []byte {
	var z Zip
	for i := 0; i < len(namesAndContents); i += 2 {
		z.Files = append(z.Files, File{Name: namesAndContents[i], Content: namesAndContents[i+1], Mode: 0o100644})
	}
	return z.Bytes()
}

// Bytes writes the archive.
func (z Zip) Bytes() []byte {
	var out, directory bytes.Buffer
	offsets, listed := make([]uint32, len(z.Files)), 0
	for i, f := range z.Files {
		data := f.Raw
		if data == nil {
			if data = []byte(f.Content); !f.Stored {
				data = Deflate(f.Content)
			}
		}
		out.Write(f.Gap)
		offsets[i] = uint32(out.Len())
		if f.SameAs > 0 {
			offsets[i] = offsets[f.SameAs-1]
		} else {
			f.writeLocal(&out, data)
		}
		if !f.Unlisted {
			f.writeCentral(&directory, data, offsets[i])
			listed++
		}
	}
	out.Write(z.Between)
	start, size := out.Len(), directory.Len()
	directory.WriteTo(&out)
	if z.Zip64 {
		z.writeEnd64(&out, start, size)
	}
	end := make([]byte, 22)
	Put32(end, 0, 0x06054b50)
	Put16(end, 8, uint16(min(listed, 0xffff)))
	Put16(end, 10, uint16(min(listed, 0xffff)))
	Put32(end, 12, uint32(size))
	Put32(end, 16, uint32(start))
	Put16(end, 20, uint16(len(z.Comment)))
	if z.End != nil {
		z.End(end)
	}
	out.Write(end)
	out.WriteString(z.Comment)
	out.Write(z.Suffix)
	return append(bytes.Clone(z.Prefix), out.Bytes()...)
}

func (f File) method() uint16 {
	if f.Stored {
		return 0
	}
	return 8
}

func (f File) writeLocal(out *bytes.Buffer, data []byte) {
	name := f.LocalName
	if name == "" {
		name = f.Name
	}
	h := make([]byte, 30)
	Put32(h, 0, 0x04034b50)
	Put16(h, 4, 20)
	Put16(h, LocalFlags, f.Flags)
	Put16(h, LocalMethod, f.method())
	Put32(h, LocalSum, crc32.ChecksumIEEE([]byte(f.Content)))
	Put32(h, LocalCompressed, uint32(len(data)))
	Put32(h, LocalSize, uint32(len(f.Content)))
	Put16(h, 26, uint16(len(name)))
	Put16(h, 28, uint16(len(f.Extra)+len(f.LocalExtra)))
	if f.Local != nil {
		f.Local(h)
	}
	out.Write(h)
	out.WriteString(name)
	out.Write(f.Extra)
	out.Write(f.LocalExtra)
	out.Write(data)
	out.Write(f.Descriptor)
}

func (f File) writeCentral(out *bytes.Buffer, data []byte, offset uint32) {
	creator := f.Creator
	if creator == 0 {
		creator = 3
	}
	h := make([]byte, 46)
	Put32(h, 0, 0x02014b50)
	Put16(h, 4, creator<<8|20)
	Put16(h, 6, 20)
	Put16(h, CentralFlags, f.Flags)
	Put16(h, CentralMethod, f.method())
	Put32(h, CentralSum, crc32.ChecksumIEEE([]byte(f.Content)))
	Put32(h, CentralCompressed, uint32(len(data)))
	Put32(h, CentralSize, uint32(len(f.Content)))
	Put16(h, 28, uint16(len(f.Name)))
	Put16(h, 30, uint16(len(f.Extra)+len(f.CentralExtra)))
	Put32(h, 38, f.Mode<<16)
	Put32(h, CentralOffset, offset)
	if f.Central != nil {
		f.Central(h)
	}
	out.Write(h)
	out.WriteString(f.Name)
	out.Write(f.Extra)
	out.Write(f.CentralExtra)
}

func (z Zip) writeEnd64(out *bytes.Buffer, start, size int) {
	where := out.Len()
	end := make([]byte, 56)
	Put32(end, 0, 0x06064b50)
	Put32(end, 4, 44)
	Put32(end, 24, uint32(len(z.Files)))
	Put32(end, 32, uint32(len(z.Files)))
	Put32(end, 40, uint32(size))
	Put32(end, 48, uint32(start))
	if z.End64 != nil {
		z.End64(end)
	}
	out.Write(end)
	locator := make([]byte, 20)
	Put32(locator, 0, 0x07064b50)
	Put32(locator, 8, uint32(where))
	Put32(locator, 16, 1)
	out.Write(locator)
}

// Descriptor is what some tools write behind the data.
func Descriptor(f File, signed, long bool) []byte {
	size := len(Deflate(f.Content))
	if f.Stored {
		size = len(f.Content)
	}
	var b []byte
	if signed {
		b = binary.LittleEndian.AppendUint32(b, 0x08074b50)
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte(f.Content)))
	for _, n := range []int{size, len(f.Content)} {
		if long {
			b = binary.LittleEndian.AppendUint64(b, uint64(n))
		} else {
			b = binary.LittleEndian.AppendUint32(b, uint32(n))
		}
	}
	return b
}
