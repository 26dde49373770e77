package ziptest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

func notZips() []Case {
	whole := Of("index.py", goodText)
	empty := func(name string, zip []byte) Case { return Case{Name: name, Zip: zip, Message: NotEmpty} }
	elsewhere := "directory of 1 entries at "
	return []Case{
		empty("nothing", nil),
		empty("no entries", Zip{}.Bytes()),
		empty("no entries, but a comment", Zip{Comment: "empty"}.Bytes()),
		unreadable("text", []byte("this is no zip"), "no end record"),
		unreadable("tar and gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), "no end record"),
		unreadable("zeros", make([]byte, 100_000), "no end record"),
		unreadable("only a local header", whole[:40], "no end record"),
		unreadable("only an end record that is cut", []byte("PK\x05\x06\x00\x00"), "no end record"),
		unreadable("the last byte cut", whole[:len(whole)-1], "no end record"),
		unreadable("the first byte cut", whole[1:], elsewhere),
		unreadable("bytes behind the end", append(bytes.Clone(whole), "tail"...), "no end record"),
		unreadable("a byte behind the end", append(bytes.Clone(whole), 0), "no end record"),
		unreadable("bytes before the start", Zip{Files: []File{good()}, Prefix: []byte("MZ")}.Bytes(), elsewhere),
		unreadable("two zips in one", append(bytes.Clone(whole), whole...), elsewhere),
	}
}

// endRecords lie about the whole archive.
func endRecords() []Case {
	end := func(name string, offset int, v uint16, cause string) Case {
		return unreadable(name, Zip{Files: []File{good()}, End: func(e []byte) { Put16(e, offset, v) }}.Bytes(), cause)
	}
	place := func(name string, offset int, v uint32, cause string) Case {
		return unreadable(name, Zip{Files: []File{good()}, End: func(e []byte) { Put32(e, offset, v) }}.Bytes(), cause)
	}
	count := func(name string, n uint16, cause string) Case {
		return unreadable(name, Zip{Files: []File{good(), {Name: "b", Content: "x"}}, End: func(e []byte) { Put16(e, 8, n); Put16(e, 10, n) }}.Bytes(), cause)
	}
	commented := func(name, comment, cause string) Case {
		return unreadable(name, Zip{Files: []File{good()}, Comment: comment}.Bytes(), cause)
	}
	fake := make([]byte, 22) // ends the file by its comment: the directory and the end record are behind it
	Put32(fake, 0, 0x06054b50)
	stored := File{Name: "a", Content: string(fake), Stored: true}
	Put16(fake, 20, uint16(len(files(stored))-30-1-22))
	stored.Content = string(fake)
	return []Case{
		end("end record of another disk", 4, 1, "it is split over several files"),
		end("directory on another disk", 6, 1, "it is split over several files"),
		end("more entries on this disk", 8, 2, "it is split over several files"),
		count("an entry fewer counted", 1, "47 bytes behind the last of 1 entries"),
		count("an entry more counted", 3, "directory of 3 entries at "),
		place("directory elsewhere", 16, 0, "directory of 1 entries at 0+"),
		place("directory size of zero", 12, 0, "directory of 1 entries at "),
		place("directory beyond the end", 16, 1<<31, "directory of 1 entries at 2147483648+"),
		place("directory longer than the file", 12, 1<<31, "directory of 1 entries at "),
		end("comment longer than the file", 20, 100, "no end record"),
		unreadable("comment shorter than what follows", Zip{Files: []File{good()}, Comment: "hello", End: func(e []byte) { Put16(e, 20, 4) }}.Bytes(), "no end record"),
		commented("a zip in the comment", string(Of("inner.py", "x")), "two end records"),
		commented("an end record's signature in the comment", "PK\x05\x06", "two end records"),
		unreadable("an end record in a file's contents", files(stored), "two end records"),
		unreadable("zip64 end that is needed and missing", Zip{Files: []File{good()}, End: func(e []byte) {
			Put32(e, 12, 0xffffffff)
			Put32(e, 16, 0xffffffff)
		}}.Bytes(), "directory of 1 entries at 4294967295+4294967295"),
	}
}

// end64Records lie about the whole archive in its zip64 record.
func end64Records() []Case {
	const disagree = "the end records disagree"
	end64 := func(name string, offset int, v uint32, cause string) Case {
		return unreadable(name, Zip{Files: []File{good()}, Zip64: true, End64: func(e []byte) { Put32(e, offset, v) }}.Bytes(), cause)
	}
	// needs is an archive that says nothing outside its zip64 record.
	needs := func(change func(end64 []byte)) []byte {
		return Zip{Files: []File{good()}, Zip64: true, End64: change, End: func(e []byte) { copy(e[8:20], bytes.Repeat([]byte{0xff}, 12)) }}.Bytes()
	}
	locator := func(name string, offset int, v uint32) Case {
		b := Zip{Files: []File{good()}, Zip64: true}.Bytes()
		Put32(b, len(b)-22-20+offset, v)
		return unreadable(name, b, "zip64 end record at ")
	}
	return []Case{
		end64("zip64 end that disagrees on entries", 32, 2, disagree),
		end64("zip64 end that disagrees on entries of this disk", 24, 2, disagree),
		end64("zip64 end that disagrees on the size", 40, 1, disagree),
		end64("zip64 end that disagrees on the place", 48, 0, disagree),
		end64("zip64 end of another disk", 16, 1, disagree),
		end64("zip64 end of another length", 4, 45, "bad zip64 end record"),
		end64("zip64 end without its signature", 0, 0, "bad zip64 end record"),
		locator("zip64 locator to elsewhere", 8, 0),
		locator("zip64 locator to another disk", 4, 1),
		locator("zip64 locator of many disks", 16, 2),
		unreadable("zip64 directory of 2^64 bytes", needs(func(e []byte) { binary.LittleEndian.PutUint64(e[40:], 1<<64-1) }), "directory of 1 entries at "),
		unreadable("zip64 directory whose end wraps around", needs(func(e []byte) { binary.LittleEndian.PutUint64(e[48:], 1<<64-50) }), "directory of 1 entries at "),
		{Name: "zip64 end with 2^63 entries", Zip: needs(func(e []byte) {
			binary.LittleEndian.PutUint64(e[24:], 1<<63)
			binary.LittleEndian.PutUint64(e[32:], 1<<63)
		}), Message: CouldNotUnzip + " (9223372036854775808 entries, at most 100000 are allowed)"},
	}
}

// lies are headers that disagree with each other or with the data.
func lies() []Case {
	const otherSize, otherForm, missing64 = "its local header has another checksum or size", "its local header has another form of data", "a zip64 field is missing"
	local := func(name string, change func(h []byte), reason string) Case {
		return refused(name, one(func(f *File) { f.Local = change }), "index.py", reason)
	}
	add := func(offset int, by uint32) func([]byte) {
		return func(h []byte) { Put32(h, offset, binary.LittleEndian.Uint32(h[offset:])+by) }
	}
	bothHeaders := func(name string, atLocal, atCentral int, v uint32, cause string) Case {
		return unreadable(name, one(func(f *File) {
			f.Local = func(h []byte) { Put32(h, atLocal, v) }
			f.Central = func(h []byte) { Put32(h, atCentral, v) }
		}), cause)
	}
	corrupt := files(File{Name: "a", Content: "hello, world", Mode: regularFile, Stored: true})
	corrupt[35] ^= 1
	inflated := files(good())
	inflated[30+len("index.py")+3] ^= 1
	return append(descriptors(),
		refused("another name in the local header", one(func(f *File) { f.LocalName = "../../evil" }), "index.py", "its local header has another name"),
		refused("another name of the same length", one(func(f *File) { f.LocalName = "INDEX.py" }), "index.py", "its local header has another name"),
		refused("no name in the local header", one(func(f *File) { f.Local = func(h []byte) { Put16(h, 26, 0) } }), "index.py", "its local header has another name"),
		refused("a name longer than the file", one(func(f *File) { f.Local = func(h []byte) { Put16(h, 26, 0xffff) } }), "index.py", "its local header has another name"),
		local("another method in the local header", func(h []byte) { Put16(h, LocalMethod, 0) }, otherForm),
		local("encrypted by the local header only", func(h []byte) { Put16(h, LocalFlags, 1) }, otherForm),
		local("a descriptor by the local header only", func(h []byte) { Put16(h, LocalFlags, 8) }, otherForm),
		local("masked by the local header only", func(h []byte) { Put16(h, LocalFlags, 1<<13) }, otherForm),
		local("another checksum in the local header", add(LocalSum, 1), otherSize),
		local("another size in the local header", add(LocalSize, 1), otherSize),
		local("another compressed size in the local header", add(LocalCompressed, 1), otherSize),
		local("no sizes in the local header", func(h []byte) { clear(h[LocalSum : LocalSize+4]) }, otherSize),
		unreadable("a flipped bit of stored data", corrupt, `the checksum of "a" does not match`),
		unreadable("a flipped bit of compressed data", inflated, ""),
		bothHeaders("a checksum of zero", LocalSum, CentralSum, 0, `the checksum of "index.py" does not match`),
		unreadable("garbage for compressed data", one(func(f *File) { f.Raw = []byte("not deflated") }), `decompress "index.py": flate: corrupt input`),
		unreadable("bytes behind the compressed data", one(func(f *File) { f.Raw = append(Deflate(f.Content), 0) }), `"index.py" has 1 bytes behind its compressed data`),
		unreadable("compressed data cut", one(func(f *File) { f.Raw = Deflate(f.Content)[:4] }), `decompress "index.py": unexpected EOF`),
		unreadable("no compressed data", one(func(f *File) { f.Raw = []byte{} }), `decompress "index.py": unexpected EOF`),
		refused("stored with another compressed size", one(func(f *File) { f.Stored, f.Raw = true, []byte("print(1)\n more") }), "index.py", "its compression (method 0) is not supported"),
		unreadable("an entry of another disk", one(func(f *File) { f.Central = func(h []byte) { Put16(h, CentralDisk, 1) } }), `"index.py" is in another file`),
		unreadable("a local header beyond the end", one(func(f *File) { f.Central = func(h []byte) { Put32(h, CentralOffset, 1<<30) } }), `"index.py" has no local header`),
		unreadable("a local header within another", one(func(f *File) { f.Central = func(h []byte) { Put32(h, CentralOffset, 4) } }), `"index.py" has no local header`),
		bothHeaders("data beyond the end", LocalCompressed, CentralCompressed, 1<<20, `the data of "index.py" are cut`),
		unreadable("a name that fills more than the directory", one(func(f *File) { f.Central = func(h []byte) { Put16(h, 28, 0xffff) } }), "the directory ends within an entry"),
		unreadable("a comment that fills more than the directory", one(func(f *File) { f.Central = func(h []byte) { Put16(h, 32, 1) } }), "the directory ends within an entry"),
		unreadable("a directory entry without its signature", one(func(f *File) { f.Central = func(h []byte) { h[0] = 0 } }), "no directory entry where one should be"),
		refused("a zip64 size that is missing", one(func(f *File) { f.Central = func(h []byte) { Put32(h, CentralSize, 0xffffffff) } }), "index.py", missing64),
		refused("a zip64 offset that is missing", one(func(f *File) { f.Central = func(h []byte) { Put32(h, CentralOffset, 0xffffffff) } }), "index.py", missing64),
		refused("a zip64 size that is cut", one(func(f *File) {
			f.Extra = []byte{1, 0, 4, 0, 9, 0, 0, 0}
			f.Central = func(h []byte) { Put32(h, CentralSize, 0xffffffff) }
		}), "index.py", missing64),
		refused("two zip64 fields", one(func(f *File) { f.Extra = bytes.Repeat([]byte{1, 0, 0, 0}, 2) }), "index.py", "two zip64 fields"),
		refused("another zip64 size in the local header", zip64Sizes(9, 10), "index.py", otherSize),
		Case{Name: "a zip64 size of 2^63", Zip: zip64Sizes(1<<63, 1<<63), Message: TooLarge},
		Case{Name: "two zip64 sizes that wrap around together", Zip: wrapping(), Message: TooLarge},
	)
}

// zip64Sizes is an archive whose two headers give these sizes in zip64 fields.
func zip64Sizes(central, local uint64) []byte {
	return one(func(f *File) {
		f.CentralExtra = binary.LittleEndian.AppendUint64([]byte{1, 0, 8, 0}, central)
		f.LocalExtra = binary.LittleEndian.AppendUint64([]byte{1, 0, 8, 0}, local)
		f.Local = func(h []byte) { Put32(h, LocalSize, 0xffffffff) }
		f.Central = func(h []byte) { Put32(h, CentralSize, 0xffffffff) }
	})
}

func wrapping() []byte {
	f := good()
	f.Extra = binary.LittleEndian.AppendUint64([]byte{1, 0, 8, 0}, 1<<64-1)
	f.Local = func(h []byte) { Put32(h, LocalSize, 0xffffffff) }
	f.Central = func(h []byte) { Put32(h, CentralSize, 0xffffffff) }
	return files(File{Name: "a", Content: "x"}, f, File{Name: "b", Content: "x"})
}

// descriptors are the sizes and checksums that some tools write behind the data.
func descriptors() []Case {
	const wrong = "the descriptor behind its data does not match"
	with := func(descriptor []byte) []byte {
		f := good()
		f.Flags, f.Descriptor = 1<<3, descriptor
		return files(f)
	}
	right := Descriptor(good(), true, false)
	flipped := func(i int) []byte {
		b := bytes.Clone(right)
		b[i] ^= 1
		return b
	}
	lying := good()
	lying.Flags, lying.Descriptor = 1<<3, right
	lying.Local = func(h []byte) { Put32(h, LocalSize, 1); Put32(h, LocalSum, 0); Put32(h, LocalCompressed, 0) }
	return []Case{
		refused("no descriptor", with(nil), "index.py", wrong),
		refused("a wrong descriptor", with(bytes.Repeat([]byte{7}, 16)), "index.py", wrong),
		refused("a descriptor with another signature", with(flipped(0)), "index.py", wrong),
		refused("a descriptor with another checksum", with(flipped(4)), "index.py", wrong),
		refused("a descriptor with another compressed size", with(flipped(8)), "index.py", wrong),
		refused("a descriptor with another size", with(flipped(12)), "index.py", wrong),
		refused("a size in the local header that the descriptor contradicts", files(lying), "index.py", "its local header has another checksum or size"),
	}
}

// hidden are entries that only tools find which read from front to end.
func hidden() []Case {
	const cause = "an entry that is not in the directory"
	var entry bytes.Buffer
	evil := File{Name: "evil.py", Content: "evil"}
	evil.writeLocal(&entry, Deflate(evil.Content))
	return []Case{
		unreadable("an entry hidden before the first", files(File{Name: "a", Content: "x", Gap: entry.Bytes()}), cause),
		unreadable("an entry hidden between two", files(good(), File{Name: "b", Content: "x", Gap: entry.Bytes()}), cause),
		unreadable("an entry hidden behind some bytes", files(good(), File{Name: "b", Content: "x", Gap: append([]byte("gap"), entry.Bytes()...)}), cause),
		unreadable("an entry hidden behind the last", Zip{Files: []File{good()}, Between: entry.Bytes()}.Bytes(), cause),
		unreadable("an entry hidden by removing it from the directory", Zip{Files: []File{good(), {Name: "b", Content: "x", Unlisted: true}}}.Bytes(), cause),
	}
}

// zeros is a file of n zeros that declares another size.
func zeros(n int, declared uint32) File {
	f := File{Name: "zeros", Content: strings.Repeat("\x00", n), Mode: regularFile | 0o644}
	f.Local = func(h []byte) { Put32(h, LocalSize, declared) }
	f.Central = func(h []byte) { Put32(h, CentralSize, declared) }
	return f
}

// unzippedLimit is AWS's limit of what a package may unzip to; it must be less.
const unzippedLimit = 262_144_000

func bombs() []Case {
	tooLarge := func(name string, f ...File) Case { return Case{Name: name, Zip: files(f...), Message: TooLarge} }
	half := func(name string, size uint32) File {
		f := zeros(1, size)
		f.Name = name
		return f
	}
	bomb := string(files(zeros(1<<20, 0xfffffffe)))
	dense := strings.Repeat("\x00", 8<<20)
	return []Case{
		tooLarge("declares the limit", zeros(1, unzippedLimit)),
		tooLarge("declares the limit in two", half("a", unzippedLimit/2), half("b", unzippedLimit/2)),
		tooLarge("declares 4 GiB", zeros(1, 0xfffffffe)),
		tooLarge("declares 4 GiB for a directory's mate", good(), zeros(1, 0xfffffffe), good()),
		unreadable("declares a byte less than the limit and holds one", files(zeros(1, unzippedLimit-1)), `"zeros" has 1 bytes, declared are 262143999`),
		unreadable("holds more than it declares", files(zeros(8<<20, 1000)), `"zeros" has more bytes than declared`),
		unreadable("holds a byte more than it declares", files(zeros(1000, 999)), `"zeros" has more bytes than declared`),
		unreadable("holds less than it declares", files(zeros(1000, 1001)), `"zeros" has 1000 bytes, declared are 1001`),
		unreadable("empty by declaration only", files(zeros(1000, 0)), `"zeros" has more bytes than declared`),
		taken("a bomb within a zip is a file", files(File{Name: "bomb.zip", Content: bomb}), Tree{"bomb.zip": text(bomb)}),
		taken("a thousandfold ratio below the limit", files(File{Name: "dense", Content: dense}), Tree{"dense": text(dense)}),
	}
}

// limits are the edges of how many files there may be.
func limits() []Case {
	const most = 100_000
	many := func(n int, folder string) []string {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprint(folder, i)
		}
		return names
	}
	tree := func(names []string) Tree {
		t := make(Tree, len(names))
		for _, n := range names {
			t[n] = text("x")
		}
		return t
	}
	var implied []string
	for i := range 600 {
		implied = append(implied, fmt.Sprintf("%d/%sx", i, strings.Repeat("d/", 180)))
	}
	all, counted := many(most, ""), many(0xffff, "")
	uncounted := Zip{}
	for _, n := range many(0x10000, "") {
		uncounted.Files = append(uncounted.Files, File{Name: n, Stored: true})
	}
	tooMany := CouldNotUnzip + " (more than 100000 files and directories)"
	return []Case{
		taken("as many files as may be", plain(all...), tree(all)),
		taken("as many files and directories as may be", plain(many(most-1, "d/")...), tree(many(most-1, "d/"))),
		taken("as many entries as count without zip64", Zip{Files: emptyFiles(counted)}.Bytes(), emptyTree(counted)),
		unreadable("an entry more than counts without zip64", uncounted.Bytes(), "51 bytes behind the last of 65535 entries"),
		{Name: "too many entries", Zip: plain(many(most+1, "")...), Message: CouldNotUnzip + " (100001 entries, at most 100000 are allowed)"},
		{Name: "a directory too many", Zip: plain(many(most, "d/")...), Message: tooMany},
		{Name: "too many implied directories", Zip: plain(implied...), Message: tooMany},
	}
}

func emptyFiles(names []string) []File {
	list := make([]File, len(names))
	for i, n := range names {
		list[i] = File{Name: n, Stored: true}
	}
	return list
}

func emptyTree(names []string) Tree {
	t := make(Tree, len(names))
	for _, n := range names {
		t[n] = text("")
	}
	return t
}
