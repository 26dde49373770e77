package ziptest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// overlaps are archives in which many entries share the same bytes, so that a small one holds much without
// any zip in a zip (David Fifield, "A better zip bomb", 2019).
func overlaps() []Case {
	const reason = "it overlaps another entry"
	return []Case{
		refused("one data for many names", FullOverlap(200), "1", "its local header has another name"),
		refused("each entry quotes the headers of the next ones", QuotedOverlap(50), "0", reason),
		refused("each entry hides the next one in its extra field", ExtraOverlap(50), "0", reason),
		refused("two names for one entry", files(good(), File{Name: "index.py", Content: goodText, Mode: regularFile, SameAs: 1}), "index.py", reason),
		refused("a second local header within the data of the first", headerInData(), "outer", reason),
		refused("data that are the directory", dataInDirectory(), "index.py", "it overlaps the directory"),
	}
}

// kernel is what the overlapping entries share: a mebibyte of zeros.
const kernelBytes = 1 << 20

// FullOverlap is an archive of n directory entries with names of their own for one local entry.
func FullOverlap(n int) []byte {
	content := strings.Repeat("\x00", kernelBytes)
	z := Zip{Files: []File{{Name: "0", Content: content, Mode: regularFile}}}
	for i := 1; i < n; i++ {
		z.Files = append(z.Files, File{Name: fmt.Sprint(i), Content: content, Mode: regularFile, SameAs: 1})
	}
	return z.Bytes()
}

// overlapping puts n files, from the last to the first, before the bytes of the ones behind them. Layer
// returns the file with the index i, and the bytes between its header and the rest.
func overlapping(n int, layer func(i int, content string, rest []byte) (File, []byte)) []byte {
	content := strings.Repeat("\x00", kernelBytes)
	rest := Deflate(content)
	list, offsets := make([]File, n), make([]int, n) // offsets from the end
	for i := n - 1; i >= 0; i-- {
		f, quote := layer(i, content, rest)
		f.Raw = append(quote, rest...)
		rest = append(headerOf(f, len(f.Raw)), f.Raw...)
		list[i], offsets[i], content = f, len(rest), f.Content
	}
	directory := new(bytes.Buffer)
	for i, f := range list {
		f.writeCentral(directory, f.Raw, uint32(len(rest)-offsets[i]))
	}
	return withDirectory(rest, directory.Bytes(), n)
}

// withDirectory ends an archive.
func withDirectory(entries, directory []byte, n int) []byte {
	end := make([]byte, 22)
	Put32(end, 0, 0x06054b50)
	Put16(end, 8, uint16(n))
	Put16(end, 10, uint16(n))
	Put32(end, 12, uint32(len(directory)))
	Put32(end, 16, uint32(len(entries)))
	return append(append(bytes.Clone(entries), directory...), end...)
}

// QuotedOverlap is an archive of n entries, each of which has the header of the next one as an uncompressed
// block before the data that both share. Every checksum is right.
func QuotedOverlap(n int) []byte {
	var behind []byte // the header of the next file
	return overlapping(n, func(i int, content string, rest []byte) (File, []byte) {
		f := File{Name: fmt.Sprint(i), Mode: regularFile, Content: string(behind) + content}
		var quote []byte
		if behind != nil {
			quote = binary.LittleEndian.AppendUint16([]byte{0}, uint16(len(behind)))
			quote = binary.LittleEndian.AppendUint16(quote, ^uint16(len(behind)))
		}
		behind = headerOf(f, len(quote)+len(rest))
		return f, quote
	})
}

// headerOf is the local header of a file with that many bytes of compressed data.
func headerOf(f File, compressed int) []byte {
	var b bytes.Buffer
	f.Local = func(h []byte) { Put32(h, LocalCompressed, uint32(compressed)) }
	f.writeLocal(&b, nil)
	return b.Bytes()
}

// ExtraOverlap is an archive of n entries whose headers lie in the extra field of the first one, so that
// all have the same data. Every checksum is right.
func ExtraOverlap(n int) []byte {
	content := strings.Repeat("\x00", kernelBytes)
	data := Deflate(content)
	list, offsets := make([]File, n), make([]int, n) // offsets from the data, backwards
	var headers []byte
	for i := n - 1; i >= 0; i-- {
		f := File{Name: fmt.Sprint(i), Mode: regularFile, Content: content, Raw: data}
		if headers != nil {
			f.LocalExtra = binary.LittleEndian.AppendUint16([]byte{0xfe, 0xca}, uint16(len(headers)))
			f.LocalExtra = append(f.LocalExtra, headers...)
		}
		headers = headerOf(f, len(data))
		list[i], offsets[i] = f, len(headers)
	}
	directory := new(bytes.Buffer)
	for i, f := range list {
		f.writeCentral(directory, data, uint32(len(headers)-offsets[i]))
	}
	return withDirectory(append(headers, data...), directory.Bytes(), n)
}

// headerInData is an entry, stored, whose data are another entry that the directory lists too.
func headerInData() []byte {
	inner := File{Name: "inner", Content: "x", Stored: true}
	var b bytes.Buffer
	inner.writeLocal(&b, []byte("x"))
	outer := File{Name: "outer", Content: b.String(), Stored: true}
	var entries, directory bytes.Buffer
	outer.writeLocal(&entries, b.Bytes())
	outer.writeCentral(&directory, b.Bytes(), 0)
	inner.writeCentral(&directory, []byte("x"), uint32(entries.Len()-b.Len()))
	return withDirectory(entries.Bytes(), directory.Bytes(), 2)
}

// dataInDirectory is a stored entry whose data go on into the directory.
func dataInDirectory() []byte {
	f := good()
	f.Stored = true
	var entries, directory bytes.Buffer
	longer := func(h []byte, at int) { Put32(h, at, uint32(len(goodText)+4)) }
	f.Local = func(h []byte) { longer(h, LocalCompressed); longer(h, LocalSize) }
	f.Central = func(h []byte) { longer(h, CentralCompressed); longer(h, CentralSize) }
	f.writeLocal(&entries, []byte(goodText))
	f.writeCentral(&directory, []byte(goodText), 0)
	return withDirectory(entries.Bytes(), directory.Bytes(), 1)
}
