package ziptest

import (
	"fmt"
	"strings"
)

// A Case is a zip and exactly what must come of it.
type Case struct {
	Name string
	Zip  []byte

	Message string // the whole text that the caller reads; "" if the zip must be taken
	Cause   string // begins what the operator reads beside it, if the caller is not told the reason
	Tree    Tree   // what a zip that must be taken holds
}

// A Tree is files by path: mode as package fs prints it, a space, and the contents or the target.
type Tree map[string]string

// Messages of AWS Lambda.
const (
	CouldNotUnzip = "Could not unzip uploaded file. Please check your file, then try to upload again."
	NotEmpty      = "Uploaded file must be a non-empty zip"
	TooLarge      = "Unzipped size must be smaller than 262144000 bytes"
)

// unreadable is a zip that no tool can be trusted to read; the cause is for the operator.
func unreadable(name string, zip []byte, cause string) Case {
	return Case{Name: name, Zip: zip, Message: CouldNotUnzip, Cause: cause}
}

// refused is a zip with an entry that other tools might unpack.
func refused(name string, zip []byte, entry, reason string) Case {
	return Case{Name: name, Zip: zip, Message: fmt.Sprintf("%s (%.200q: %s)", CouldNotUnzip, entry, reason)}
}

// taken is a good zip with something unusual.
func taken(name string, zip []byte, tree Tree) Case { return Case{Name: name, Zip: zip, Tree: tree} }

// Hostile returns the corpus: zips that must be refused, and among them those that look alike but must
// be taken. Names are different.
func Hostile() []Case {
	var all []Case
	for _, part := range [][]Case{notZips(), endRecords(), end64Records(), paths(), extraNames(), twins(), links(), kinds(), lies(), hidden(), unusual(), bombs(), overlaps(), limits()} {
		all = append(all, part...)
	}
	return all
}

// Unix types of modes.
const (
	regularFile = 0o100000
	symlinkFile = 0o120000
)

const goodText = "print(1)\n"

func good() File { return File{Name: "index.py", Content: goodText, Mode: regularFile | 0o644} }

// goodTree is what good gives.
func goodTree() Tree { return Tree{"index.py": text(goodText)} }

func text(content string) string { return "-rw-r--r-- " + content }

const directory = "drwxr-xr-x "

func linkTo(target string) string { return "Lrwxrwxrwx " + target }

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

// plain is an archive of files that hold "x", and of directories.
func plain(names ...string) []byte {
	var z Zip
	for _, n := range names {
		f := File{Name: n, Content: "x", Mode: regularFile | 0o644, Stored: true}
		if strings.HasSuffix(n, "/") {
			f.Content, f.Mode = "", 0o040755
		}
		z.Files = append(z.Files, f)
	}
	z.Zip64 = len(names) > 0xffff
	return z.Bytes()
}
