package ziptest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// A Case is a zip and what must come of it.
type Case struct {
	Name    string
	Zip     []byte
	Message string // must be part of the refusal; "" if the zip must be taken
}

// CouldNotUnzip begins the text of AWS Lambda for every zip that it cannot read.
const CouldNotUnzip = "Could not unzip uploaded file. Please check your file, then try to upload again."

// Unix types of modes.
const (
	regularFile = 0o100000
	symlinkFile = 0o120000
)

func good() File { return File{Name: "index.py", Content: "print(1)\n", Mode: regularFile | 0o644} }

// one is an archive of one good file, changed.
func one(change func(*File)) []byte {
	f := good()
	change(&f)
	return Zip{Files: []File{f}}.Bytes()
}

func named(name string) []byte { return one(func(f *File) { f.Name = name }) }

func link(name, target string) File {
	return File{Name: name, Content: target, Mode: symlinkFile | 0o777, Stored: true}
}

func files(f ...File) []byte { return Zip{Files: f}.Bytes() }

func plain(names ...string) []byte {
	var z Zip
	for _, n := range names {
		f := File{Name: n, Content: "x", Mode: regularFile | 0o644}
		if strings.HasSuffix(n, "/") {
			f.Content, f.Mode = "", 0o040755
		}
		z.Files = append(z.Files, f)
	}
	return z.Bytes()
}

// Hostile returns the corpus: zips that must be refused, and among them a few that look
// alike but must be taken.
func Hostile() []Case {
	var all []Case
	for _, part := range [][]Case{notZips(), paths(), links(), kinds(), bombs(), lies(), endRecords(), taken()} {
		all = append(all, part...)
	}
	return all
}

func notZips() []Case {
	whole := Of("index.py", "print(1)\n")
	return []Case{
		{"nothing", nil, "non-empty zip"},
		{"no entries", Zip{}.Bytes(), "non-empty zip"},
		{"text", []byte("this is no zip"), CouldNotUnzip},
		{"tar and gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), CouldNotUnzip},
		{"only a local header", whole[:40], CouldNotUnzip},
		{"the last byte cut", whole[:len(whole)-1], CouldNotUnzip},
		{"the first byte cut", whole[1:], CouldNotUnzip},
		{"bytes behind the end", append(bytes.Clone(whole), "tail"...), CouldNotUnzip},
		{"bytes before the start", Zip{Files: []File{good()}, Prefix: []byte("MZ")}.Bytes(), CouldNotUnzip},
		{"two zips in one", append(bytes.Clone(whole), whole...), CouldNotUnzip},
	}
}

func paths() []Case {
	return []Case{
		{"slip", named("../evil"), "element"},
		{"slip from within", named("a/../../evil"), "element"},
		{"dot dot that stays inside", named("a/../b"), "element"},
		{"slip at the end", named("a/.."), "element"},
		{"absolute", named("/etc/passwd"), "absolute"},
		{"two slashes", named("//etc/passwd"), "absolute"},
		{"backslash slip", named(`..\evil`), "backslash"},
		{"backslash", named(`a\b`), "backslash"},
		{"drive letter", named("C:/evil"), "absolute"},
		{"drive letter and name", named("c:evil"), "absolute"},
		{"share", named(`\\host\share\evil`), "backslash"},
		{"zero byte", named("a\x00.py"), "zero byte"},
		{"no name", named(""), CouldNotUnzip},
		{"only a slash", plain("/"), "no name"},
		{"a dot as a file", named("."), "no name"},
		{"dot within", named("a/./b"), "element"},
		{"empty element", named("a//b"), "element"},
		{"long element", named(strings.Repeat("n", 256)), "255"},
		{"long path", named(strings.Repeat("abcdefghi/", 410) + "x"), "longer"},
		{"deep path", named(strings.Repeat("d/", 250) + "x"), "deeper"},
		{"one name twice", plain("a", "a"), "twice"},
		{"one name twice by another spelling", plain("a", "./a"), "twice"},
		{"file, then directory", plain("a", "a/"), "twice"},
		{"directory, then file", plain("a/", "a"), "twice"},
		{"file, then file below it", plain("a", "a/b"), "below"},
		{"file below, then file", plain("a/b/c", "a"), "twice"},
	}
}

func links() []Case {
	return []Case{
		{"link to an absolute path", files(good(), link("l", "/etc/passwd")), "absolute"},
		{"link out", files(good(), link("l", "../x")), "leave"},
		{"link out of a directory", files(good(), link("a/b/l", "../../../x")), "leave"},
		{"link down, then out", files(good(), link("a/l", "b/../../../x")), "leave"},
		{"link through a link", files(good(), link("a/up", ".."), link("l", "a/up/../x")), "leave"},
		{"file below a link", files(link("l", "."), File{Name: "l/evil", Content: "x", Mode: regularFile}), "below"},
		{"link without target", files(good(), link("l", "")), "target"},
		{"link to a zero byte", files(good(), link("l", "a\x00b")), "target"},
		{"long link", files(good(), link("l", strings.Repeat("t", 5000))), "too long"},
		{"link that is a directory", files(link("l/", "a")), "its mode is not"},
	}
}

func kinds() []Case {
	special := func(mode uint32) []byte { return one(func(f *File) { f.Mode, f.Content = mode, "" }) }
	return []Case{
		{"block device", special(0o060644), "neither"},
		{"character device", special(0o020666), "neither"},
		{"pipe", special(0o010644), "neither"},
		{"socket", special(0o140644), "neither"},
		{"unknown type", special(0o170644), "neither"},
		{"directory without a slash", special(0o040755), "neither"},
		{"directory with contents", one(func(f *File) { f.Name = "d/" }), "its mode is not"},
		{"typeless directory with contents", one(func(f *File) { f.Name, f.Mode = "d/", 0 }), "contents"},
		{"encrypted", one(func(f *File) { f.Flags = 1 }), "encrypted"},
		{"strongly encrypted", one(func(f *File) { f.Flags = 1 << 6 }), "encrypted"},
		{"masked headers", one(func(f *File) { f.Flags = 1 << 13 }), "encrypted"},
		{"unknown compression", one(func(f *File) {
			f.Local = func(h []byte) { Put16(h, LocalMethod, 12) }
			f.Central = func(h []byte) { Put16(h, CentralMethod, 12) }
		}), "not supported"},
	}
}

// zeros is a file of n zeros that declares another size.
func zeros(n int, declared uint32) File {
	f := File{Name: "zeros", Content: strings.Repeat("\x00", n), Mode: regularFile | 0o644}
	f.Local = func(h []byte) { Put32(h, LocalSize, declared) }
	f.Central = func(h []byte) { Put32(h, CentralSize, declared) }
	return f
}

func bombs() []Case {
	const limit = 262_144_000
	content := strings.Repeat("\x00", 1<<20)
	raw := Deflate(content)
	overlapping := Zip{Files: []File{{Name: "0", Content: content, Raw: raw, Mode: regularFile}}}
	for i := 1; i < 200; i++ {
		overlapping.Files = append(overlapping.Files, File{Name: fmt.Sprint(i), Content: content, Raw: raw, SameAs: 1})
	}
	many := Zip{Zip64: true}
	for i := range 100_001 {
		many.Files = append(many.Files, File{Name: fmt.Sprint(i), Stored: true})
	}
	var manyImplied []string
	for i := range 600 {
		manyImplied = append(manyImplied, fmt.Sprintf("%d/%sx", i, strings.Repeat("d/", 180)))
	}
	return []Case{
		{"declares more than the limit", files(zeros(1, limit)), "Unzipped size"},
		{"declares the limit in two", files(zeros(1, limit/2), File{Name: "b", Content: "x", Local: zeros(1, limit/2).Local, Central: zeros(1, limit/2).Central}), "Unzipped size"},
		{"declares 4 GiB", files(zeros(1, 0xfffffffe)), "Unzipped size"},
		{"holds more than it declares", files(zeros(8<<20, 1000)), CouldNotUnzip},
		{"holds a byte more than it declares", files(zeros(1000, 999)), CouldNotUnzip},
		{"holds less than it declares", files(zeros(1000, 1001)), CouldNotUnzip},
		{"empty by declaration only", files(zeros(1000, 0)), CouldNotUnzip},
		{"one data for many names", overlapping.Bytes(), CouldNotUnzip},
		{"too many entries", many.Bytes(), "at most"},
		{"too many implied directories", plain(manyImplied...), "more than"},
		{"many long links", manyLinks(), "too long"},
	}
}

func manyLinks() []byte {
	var z Zip
	target := strings.Repeat("t", 4000)
	raw := Deflate(target)
	for i := range 5_000 {
		f := link(fmt.Sprint(i), target)
		f.Stored, f.Raw = false, raw
		z.Files = append(z.Files, f)
	}
	return z.Bytes()
}

func lies() []Case {
	other := func(offset int, by uint32) []byte {
		return one(func(f *File) {
			f.Local = func(h []byte) { Put32(h, offset, binary.LittleEndian.Uint32(h[offset:])+by) }
		})
	}
	corruptData := Zip{Files: []File{{Name: "a", Content: "hello, world", Mode: regularFile, Stored: true}}}.Bytes()
	corruptData[35] ^= 1
	described := good()
	described.Flags = 1 << 3
	wrong := described
	wrong.Descriptor = bytes.Repeat([]byte{7}, 16)
	return []Case{
		{"another name in the local header", one(func(f *File) { f.LocalName = "../../evil" }), "another name"},
		{"another name of the same length", one(func(f *File) { f.LocalName = "INDEX.py" }), "another name"},
		{"another method in the local header", one(func(f *File) {
			f.Local = func(h []byte) { Put16(h, LocalMethod, 0) }
		}), "another form"},
		{"other flags in the local header", one(func(f *File) {
			f.Local = func(h []byte) { Put16(h, LocalFlags, 1) }
		}), "another form"},
		{"another checksum in the local header", other(LocalSum, 1), "another checksum"},
		{"another size in the local header", other(LocalSize, 1), "another checksum or size"},
		{"another compressed size in the local header", other(LocalCompressed, 1), "another checksum or size"},
		{"a flipped bit of the data", corruptData, CouldNotUnzip},
		{"a checksum of zero", one(func(f *File) {
			f.Local = func(h []byte) { Put32(h, LocalSum, 0) }
			f.Central = func(h []byte) { Put32(h, CentralSum, 0) }
		}), CouldNotUnzip},
		{"garbage for compressed data", one(func(f *File) { f.Raw = []byte("not deflated") }), CouldNotUnzip},
		{"bytes behind the compressed data", one(func(f *File) { f.Raw = append(Deflate(f.Content), 0) }), CouldNotUnzip},
		{"compressed data cut", one(func(f *File) { f.Raw = Deflate(f.Content)[:4] }), CouldNotUnzip},
		{"stored with another compressed size", one(func(f *File) { f.Stored, f.Raw = true, []byte("print(1)\n more") }), CouldNotUnzip},
		{"no descriptor", files(described), "descriptor"},
		{"a wrong descriptor", files(wrong), "descriptor"},
		{"an entry of another disk", one(func(f *File) {
			f.Central = func(h []byte) { Put16(h, CentralDisk, 1) }
		}), CouldNotUnzip},
		{"a local header beyond the end", one(func(f *File) {
			f.Central = func(h []byte) { Put32(h, CentralOffset, 1<<30) }
		}), CouldNotUnzip},
		{"data beyond the end", one(func(f *File) {
			f.Local = func(h []byte) { Put32(h, LocalCompressed, 1<<20) }
			f.Central = func(h []byte) { Put32(h, CentralCompressed, 1<<20) }
		}), CouldNotUnzip},
		{"a zip64 size that is missing", one(func(f *File) {
			f.Central = func(h []byte) { Put32(h, CentralSize, 0xffffffff) }
		}), "zip64"},
		{"two zip64 fields", one(func(f *File) { f.Extra = bytes.Repeat([]byte{1, 0, 0, 0}, 2) }), "zip64"},
		{"a zip64 size of 2^63", one(func(f *File) {
			f.Extra = []byte{1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x80}
			f.Local = func(h []byte) { Put32(h, LocalSize, 0xffffffff) }
			f.Central = func(h []byte) { Put32(h, CentralSize, 0xffffffff) }
		}), "Unzipped size"},
		{"overlapping entries", files(good(), File{Name: "b", Content: "x", Mode: regularFile, SameAs: 1}), CouldNotUnzip},
	}
}

func endRecords() []Case {
	end := func(offset int, v uint16) []byte {
		return Zip{Files: []File{good()}, End: func(e []byte) { Put16(e, offset, v) }}.Bytes()
	}
	end64 := func(offset int, v uint32) []byte {
		return Zip{Files: []File{good()}, Zip64: true, End64: func(e []byte) { Put32(e, offset, v) }}.Bytes()
	}
	inner := string(Of("inner.py", "x"))
	return []Case{
		{"end record of another disk", end(4, 1), CouldNotUnzip},
		{"more entries on this disk", end(8, 2), CouldNotUnzip},
		{"an entry fewer counted", Zip{Files: []File{good(), {Name: "b"}}, End: func(e []byte) { Put16(e, 8, 1); Put16(e, 10, 1) }}.Bytes(), CouldNotUnzip},
		{"an entry more counted", Zip{Files: []File{good()}, End: func(e []byte) { Put16(e, 8, 2); Put16(e, 10, 2) }}.Bytes(), CouldNotUnzip},
		{"directory elsewhere", Zip{Files: []File{good()}, End: func(e []byte) { Put32(e, 16, 0) }}.Bytes(), CouldNotUnzip},
		{"directory size of zero", Zip{Files: []File{good()}, End: func(e []byte) { Put32(e, 12, 0) }}.Bytes(), CouldNotUnzip},
		{"directory beyond the end", Zip{Files: []File{good()}, End: func(e []byte) { Put32(e, 16, 1<<31) }}.Bytes(), CouldNotUnzip},
		{"comment longer than the file", end(20, 100), CouldNotUnzip},
		{"a zip in the comment", Zip{Files: []File{good()}, Comment: inner}.Bytes(), CouldNotUnzip},
		{"zip64 end that disagrees on entries", end64(32, 2), CouldNotUnzip},
		{"zip64 end that disagrees on the place", end64(48, 0), CouldNotUnzip},
		{"zip64 end of another length", end64(4, 45), CouldNotUnzip},
		{"zip64 end of another disk", end64(16, 1), CouldNotUnzip},
	}
}

// taken are good zips with something unusual.
func taken() []Case {
	var described []File
	for i, form := range [][2]bool{{true, false}, {false, false}, {true, true}, {false, true}} {
		f := good()
		f.Name, f.Flags, f.Stored = fmt.Sprint(i), 1<<3, i%2 == 1
		f.Descriptor = Descriptor(f, form[0], form[1])
		f.Local = func(h []byte) { clear(h[LocalSum : LocalSize+4]) }
		described = append(described, f)
	}
	zip64 := good()
	zip64.Extra = binary.LittleEndian.AppendUint64([]byte{1, 0, 16, 0}, uint64(len(zip64.Content)))
	zip64.Extra = binary.LittleEndian.AppendUint64(zip64.Extra, uint64(len(Deflate(zip64.Content))))
	zip64.Local = func(h []byte) { Put32(h, LocalSize, 0xffffffff); Put32(h, LocalCompressed, 0xffffffff) }
	zip64.Central = func(h []byte) { Put32(h, CentralSize, 0xffffffff); Put32(h, CentralCompressed, 0xffffffff) }
	return []Case{
		{"plain", Of("index.py", "print(1)\n"), ""},
		{"descriptors of every form", files(described...), ""},
		{"zip64 sizes", files(zip64), ""},
		{"zip64 end record", Zip{Files: []File{good()}, Zip64: true}.Bytes(), ""},
		{"zip64 end record that is needed", Zip{Files: []File{good()}, Zip64: true, End: func(e []byte) {
			copy(e[8:20], bytes.Repeat([]byte{0xff}, 12))
		}}.Bytes(), ""},
		{"a comment", Zip{Files: []File{good()}, Comment: "hello"}.Bytes(), ""},
		{"a gap between entries", files(good(), File{Name: "b", Content: "x", Gap: make([]byte, 100)}), ""},
		{"a zip within a zip", files(File{Name: "a.zip", Content: string(Of("a", "b")), Stored: true}), ""},
		{"links that stay inside", files(link("l", "index.py"), link("a/b/up", "../../index.py"), link("bin/x", "./../index.py"), link("none", "missing"), link("round", "round"), good()), ""},
		{"directories named twice", plain("a/", "a/b", "a/", "./", "./c"), ""},
		{"case twins", plain("README", "readme"), ""},
		{"two dots in a name", plain("a..b", "..c", "d.."), ""},
		{"set user id is dropped", one(func(f *File) { f.Mode = regularFile | 0o6755 }), ""},
		{"made on Windows", one(func(f *File) { f.Creator, f.Mode = 11, 0 }), ""},
		{"not UTF-8", named("caf\xe9.py"), ""},
		{"empty files", files(File{Name: "a", Stored: true}, File{Name: "b"}), ""},
	}
}
