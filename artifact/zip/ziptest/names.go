package ziptest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

func paths() []Case {
	element := func(name, zipName, bad string) Case {
		return refused(name, named(zipName), zipName, fmt.Sprintf("its path has the element %q", bad))
	}
	absolute := func(name, zipName string) Case { return refused(name, named(zipName), zipName, "its path is absolute") }
	special := func(name, zipName string) Case {
		return refused(name, named(zipName), zipName, "its path holds a backslash or a zero byte")
	}
	again := func(name, path string, names ...string) Case {
		return refused(name, plain(names...), path, "it is there twice, or as a file and as a directory")
	}
	long := strings.Repeat("n", 256)
	longPath := strings.Repeat("abcdefghi/", 410) + "x"
	longest := strings.Repeat("abcdefghijklmno/", 199) + strings.Repeat("abcdefgh/", 0) + strings.Repeat("n", 200)
	deep, deepest := strings.Repeat("d/", 200)+"x", strings.Repeat("d/", 199)+"x"
	return []Case{
		element("slip", "../evil", ".."),
		element("slip from within", "a/../../evil", ".."),
		element("slip behind a dot", "./../evil", ".."),
		element("slip of many", strings.Repeat("../", 40)+"etc/cron.d/evil", ".."),
		element("dot dot that stays inside", "a/../b", ".."),
		element("slip at the end", "a/..", ".."),
		element("only dot dot", "..", ".."),
		element("dot dot as a directory", "../", ".."),
		element("dot within", "a/./b", "."),
		element("empty element", "a//b", ""),
		absolute("absolute", "/etc/passwd"),
		absolute("two slashes", "//etc/passwd"),
		absolute("absolute behind a dot", ".//etc/passwd"),
		absolute("drive letter", "C:/evil"),
		absolute("drive letter and name", "c:evil"),
		special("backslash slip", `..\evil`),
		special("backslash", `a\b`),
		special("share", `\\host\share\evil`),
		special("zero byte", "a\x00.py"),
		special("zero byte before a slip", "a\x00/../../evil"),
		refused("no name", named(""), "", "it has no name"),
		refused("only a slash", plain("/"), "/", "it has no name"),
		refused("a dot as a file", named("."), ".", "it has no name"),
		refused("long element", named(long), long, "its path has an element of more than 255 bytes"),
		refused("long directory", plain(long+"/"), long+"/", "its path has an element of more than 255 bytes"),
		refused("long path", named(longPath), longPath, "its path is longer than 4000 bytes"),
		refused("deep path", named(deep), deep, "its path is deeper than 200 directories"),
		taken("longest element", named(long[1:]), Tree{long[1:]: text(goodText)}),
		taken("long path that is short enough", named(longest), Tree{longest: text(goodText)}),
		taken("deepest path", named(deepest), Tree{deepest: text(goodText)}),
		again("one name twice", "a", "a", "a"),
		again("one name twice by another spelling", "a", "a", "./a"),
		again("file, then directory", "a", "a", "a/"),
		again("directory, then file", "a", "a/", "a"),
		again("file below, then file", "a", "a/b/c", "a"),
		refused("file, then file below it", plain("a", "a/b"), "a/b", "it lies below a file"),
		refused("file, then directory below it", plain("a", "a/b/"), "a/b", "it lies below a file"),
	}
}

// unicodePath is Info-ZIP's extra field that replaces a name.
func unicodePath(header, name string) []byte {
	b := []byte{0x75, 0x70, 0, 0, 1}
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte(header)))
	b = append(b, name...)
	Put16(b, 2, uint16(len(b)-4))
	return b
}

// extraNames are entries with two names, of which tools take one or the other.
func extraNames() []Case {
	const reason = "an extra field gives it another name"
	with := func(extra []byte) []byte { return one(func(f *File) { f.Extra = extra }) }
	central := good()
	central.CentralExtra = unicodePath("index.py", "../../evil")
	local := good()
	local.LocalExtra = unicodePath("index.py", "../../evil")
	utf8 := File{Name: "\u00e9.py", Content: "x", Mode: regularFile | 0o644, Flags: 1 << 11}
	utf8.Local = func(h []byte) { Put16(h, LocalFlags, 0) }
	same := good()
	same.Extra = unicodePath("index.py", "index.py")
	ascii := good()
	ascii.Flags = 1 << 11
	ascii.Local = func(h []byte) { Put16(h, LocalFlags, 0) }
	return []Case{
		refused("another name in an extra field", with(unicodePath("index.py", "../../evil")), "index.py", reason),
		refused("another name in an extra field of the directory", files(central), "index.py", reason),
		refused("another name in an extra field of the local header", files(local), "index.py", reason),
		refused("another name for a name that the field is not for", with(unicodePath("other.py", "evil.py")), "index.py", reason),
		refused("a field for a name that is cut", with([]byte{0x75, 0x70, 2, 0, 1, 0}), "index.py", reason),
		refused("two character sets for one name", files(utf8), "\u00e9.py", "its local header has its name in another character set"),
		taken("the same name in an extra field", files(same), goodTree()),
		taken("two character sets that do not matter", files(ascii), goodTree()),
	}
}

// twins are names that some file systems take for one. Lambda's does not, nor does ours.
func twins() []Case {
	composed, decomposed := "caf\u00e9.py", "cafe\u0301.py"
	return []Case{
		taken("case twins", plain("README", "readme"), Tree{"README": text("x"), "readme": text("x")}),
		taken("case twins of a directory", plain("Lib/a", "lib/a"), Tree{"Lib/a": text("x"), "lib/a": text("x")}),
		taken("a file and the case twin of it as a directory", plain("A", "a/b"), Tree{"A": text("x"), "a/b": text("x")}),
		taken("Unicode twins", plain(composed, decomposed), Tree{composed: text("x"), decomposed: text("x")}),
		taken("names that end in dots and spaces", plain("a", "a.", "a "), Tree{"a": text("x"), "a.": text("x"), "a ": text("x")}),
		taken("two dots in a name", plain("a..b", "..c", "d..", "..."), Tree{"a..b": text("x"), "..c": text("x"), "d..": text("x"), "...": text("x")}),
		taken("not UTF-8", named("caf\xe9.py"), Tree{"caf\xe9.py": text(goodText)}),
		taken("control characters", named("a\n\x1b[31m"), Tree{"a\n\x1b[31m": text(goodText)}),
		taken("a device of Windows", plain("CON", "nul.txt"), Tree{"CON": text("x"), "nul.txt": text("x")}),
	}
}

func links() []Case {
	leaves := func(name, at, target string, more ...File) Case {
		return refused(name, files(append(more, link(at, target))...), at, "a symbolic link that may leave the package")
	}
	absolute := func(name, target string) Case {
		return refused(name, files(good(), link("l", target)), "l", "a symbolic link to an absolute path")
	}
	wrong := func(name, target string) Case {
		return refused(name, files(good(), link("l", target)), "l", "a symbolic link without a valid target")
	}
	long := strings.Repeat("t", 4095)
	chain := []File{good()}
	inside := goodTree()
	for i := range 50 { // longer than Linux follows
		next := fmt.Sprint("l", i+1)
		if i == 49 {
			next = "index.py"
		}
		chain = append(chain, link(fmt.Sprint("l", i), next))
		inside[fmt.Sprint("l", i)] = linkTo(next)
	}
	return []Case{
		absolute("link to an absolute path", "/etc/passwd"),
		absolute("link to the root", "/"),
		absolute("link to a process's environment", "/proc/self/environ"),
		absolute("link to a process's root", "/proc/1/root/etc/shadow"),
		absolute("link to two slashes", "//etc/passwd"),
		leaves("link out", "l", "../x"),
		leaves("link out to proc", "a/l", "../../../proc/self/environ"),
		leaves("link out of a directory", "a/b/l", "../../../x"),
		leaves("link down, then out", "a/l", "b/../../../x"),
		leaves("link down, then up, inside", "a/l", "b/../c"),
		leaves("link through a link", "l", "a/up/../x", link("a/up", "..")),
		leaves("chain of links out", "l2", "l1/../../x", link("l1", ".")),
		refused("file below a link", files(link("l", "."), File{Name: "l/evil", Content: "x", Mode: regularFile}), "l/evil", "it lies below a file"),
		refused("file, then the link above it", files(File{Name: "l/evil", Content: "x", Mode: regularFile}, link("l", ".")), "l", "it is there twice, or as a file and as a directory"),
		refused("link twice", files(link("l", "a"), link("l", "b")), "l", "it is there twice, or as a file and as a directory"),
		wrong("link without target", ""),
		wrong("link to a zero byte", "a\x00b"),
		refused("long link", files(good(), link("l", long+"t")), "l", "the symbolic links are too long"),
		refused("link that is a directory", files(link("l/", "a")), "l/", "its name is a directory's, its mode is not"),
		refused("many long links", manyLinks(), "4097", "the symbolic links are too long"),
		taken("longest link", files(link("l", long)), Tree{"l": linkTo(long)}),
		taken("links that stay inside", files(link("l", "index.py"), link("a/b/up", "../../index.py"), link("bin/x", "./../index.py"), good()),
			Tree{"l": linkTo("index.py"), "a/b/up": linkTo("../../index.py"), "bin/x": linkTo("./../index.py"), "index.py": text(goodText)}),
		taken("links that lead nowhere or around", files(link("none", "missing"), link("round", "round"), link("p", "q"), link("q", "p")),
			Tree{"none": linkTo("missing"), "round": linkTo("round"), "p": linkTo("q"), "q": linkTo("p")}),
		taken("chain of links", files(chain...), inside),
	}
}

func manyLinks() []byte {
	var z Zip
	target := strings.Repeat("t", 4095)
	raw := Deflate(target)
	for i := range 5_000 {
		f := link(fmt.Sprint(i), target)
		f.Stored, f.Raw = false, raw
		z.Files = append(z.Files, f)
	}
	return z.Bytes()
}

func kinds() []Case {
	const reason = "it is neither file, directory nor symbolic link"
	special := func(name string, mode uint32) Case {
		return refused(name, one(func(f *File) { f.Mode, f.Content = mode, "" }), "index.py", reason)
	}
	encrypted := func(name string, flag uint16) Case {
		return refused(name, one(func(f *File) { f.Flags = flag }), "index.py", "it is encrypted")
	}
	method := func(name string, number uint16) Case {
		return refused(name, one(func(f *File) {
			f.Local = func(h []byte) { Put16(h, LocalMethod, number) }
			f.Central = func(h []byte) { Put16(h, CentralMethod, number) }
		}), "index.py", fmt.Sprintf("its compression (method %d) is not supported", number))
	}
	// PKWARE's field for Unix: two times, user, group, and the file that a hard link is another name of.
	hardLink := append([]byte{0x0d, 0, 0, 0}, make([]byte, 12)...)
	hardLink = append(hardLink, "../../../etc/passwd"...)
	Put16(hardLink, 2, uint16(len(hardLink)-4))
	return []Case{
		special("block device", 0o060644),
		special("character device", 0o020666),
		special("pipe", 0o010644),
		special("socket", 0o140644),
		special("unknown type", 0o170644),
		special("directory without a slash", 0o040755),
		refused("directory with contents", one(func(f *File) { f.Name = "d/" }), "d/", "its name is a directory's, its mode is not"),
		refused("typeless directory with contents", one(func(f *File) { f.Name, f.Mode = "d/", 0 }), "d/", "a directory has contents"),
		encrypted("encrypted", 1),
		encrypted("strongly encrypted", 1<<6),
		encrypted("masked headers", 1<<13),
		method("compressed with bzip2", 12),
		method("compressed with LZMA", 14),
		method("compressed with Zstandard", 93),
		method("encrypted by WinZip", 99),
		method("unknown compression", 0xffff),
		taken("a hard link is the file that it carries", one(func(f *File) { f.Extra = hardLink }), goodTree()),
		taken("set user id is dropped", one(func(f *File) { f.Mode = regularFile | 0o4755 }), Tree{"index.py": "-rwxr-xr-x " + goodText}),
		taken("set group id is dropped", one(func(f *File) { f.Mode = regularFile | 0o2644 }), goodTree()),
		taken("sticky bit of a directory is dropped", files(File{Name: "d/", Mode: 0o041777}), Tree{"d": directory}),
		taken("nobody may read it", one(func(f *File) { f.Mode = regularFile }), goodTree()),
		taken("made on Windows", one(func(f *File) { f.Creator, f.Mode = 11, 0 }), goodTree()),
		taken("a device's mode made on Windows says nothing", one(func(f *File) { f.Creator, f.Mode = 11, 0o060644 }), goodTree()),
	}
}

// unusual are good zips that a narrow reader would refuse.
func unusual() []Case {
	var described []File
	tree := Tree{}
	for i, form := range [][2]bool{{true, false}, {false, false}, {true, true}, {false, true}} {
		f := good()
		f.Name, f.Flags, f.Stored = fmt.Sprint(i), 1<<3, i%2 == 1
		f.Descriptor = Descriptor(f, form[0], form[1])
		f.Local = func(h []byte) { clear(h[LocalSum : LocalSize+4]) }
		described = append(described, f)
		tree[f.Name] = text(goodText)
	}
	zip64 := good()
	zip64.Extra = binary.LittleEndian.AppendUint64([]byte{1, 0, 16, 0}, uint64(len(zip64.Content)))
	zip64.Extra = binary.LittleEndian.AppendUint64(zip64.Extra, uint64(len(Deflate(zip64.Content))))
	zip64.Local = func(h []byte) { Put32(h, LocalSize, 0xffffffff); Put32(h, LocalCompressed, 0xffffffff) }
	zip64.Central = func(h []byte) { Put32(h, CentralSize, 0xffffffff); Put32(h, CentralCompressed, 0xffffffff) }
	inner := string(Of("a", "b"))
	return []Case{
		taken("plain", Of("index.py", goodText), goodTree()),
		taken("descriptors of every form", files(described...), tree),
		taken("zip64 sizes", files(zip64), goodTree()),
		taken("zip64 end record", Zip{Files: []File{good()}, Zip64: true}.Bytes(), goodTree()),
		taken("zip64 end record that is needed", Zip{Files: []File{good()}, Zip64: true, End: func(e []byte) {
			copy(e[8:20], bytes.Repeat([]byte{0xff}, 12))
		}}.Bytes(), goodTree()),
		taken("a comment", Zip{Files: []File{good()}, Comment: "hello"}.Bytes(), goodTree()),
		taken("longest comment", Zip{Files: []File{good()}, Comment: strings.Repeat("c", 0xffff)}.Bytes(), goodTree()),
		taken("a gap between entries", files(good(), File{Name: "b", Content: "x", Gap: make([]byte, 100)}), Tree{"index.py": text(goodText), "b": text("x")}),
		taken("a program before the first entry", files(File{Name: "b", Content: "x", Gap: []byte("#!/usr/bin/python3\n")}), Tree{"b": text("x")}),
		taken("a zip within a zip", files(File{Name: "a.zip", Content: inner, Stored: true}), Tree{"a.zip": text(inner)}),
		taken("directories named twice", plain("a/", "a/b", "a/", "./", "./c"), Tree{"a": directory, "a/b": text("x"), "c": text("x")}),
		taken("a directory after what is in it", plain("a/b", "a/"), Tree{"a": directory, "a/b": text("x")}),
		taken("empty files", files(File{Name: "a", Stored: true}, File{Name: "b"}), Tree{"a": text(""), "b": text("")}),
	}
}
