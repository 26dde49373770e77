package zip

import (
	"io/fs"
	"path"
	"strings"

	"cloister/artifact/erofs"
)

// Systems in the high byte of record.creator whose attributes hold a Unix mode.
const (
	creatorUnix  = 3
	creatorMacOS = 19
)

// Types in a Unix mode.
const (
	unixTypeMask    = 0o170000
	unixDirectory   = 0o040000
	unixRegular     = 0o100000
	unixSymlink     = 0o120000
	unixExecuteBits = 0o111
)

func (r *record) isDirectory() bool { return strings.HasSuffix(r.name, "/") }

// mode returns type and normalised permissions. Set-user-id and similar bits are dropped, as
// is who may read and write: the function's user owns nothing in its package.
func (r *record) mode() (fs.FileMode, error) {
	var unix uint32
	if system := r.creator >> 8; system == creatorUnix || system == creatorMacOS {
		unix = r.attributes >> 16
	}
	switch kind := unix & unixTypeMask; {
	case r.isDirectory() && (kind == 0 || kind == unixDirectory):
		if r.size != 0 {
			return 0, refuse(r.name, "a directory has contents")
		}
		return fs.ModeDir | 0o755, nil
	case r.isDirectory():
		return 0, refuse(r.name, "its name is a directory's, its mode is not")
	case kind == unixSymlink:
		return fs.ModeSymlink | 0o777, nil
	case kind != 0 && kind != unixRegular:
		return 0, refuse(r.name, "it is neither file, directory nor symbolic link")
	case unix&unixExecuteBits != 0:
		return 0o755, nil
	default:
		return 0o644, nil
	}
}

// cleanPath returns the path in the form of package erofs, "" for the root.
func cleanPath(name string) (string, error) {
	p := strings.TrimSuffix(name, "/")
	if name == "." || name == "./" {
		return "", nil
	}
	p = strings.TrimPrefix(p, "./")
	switch {
	case p == "":
		return "", refuse(name, "it has no name")
	case len(p) > maxPathBytes:
		return "", refuse(name, "its path is longer than %d bytes", maxPathBytes)
	case strings.ContainsAny(p, "\\\x00"):
		return "", refuse(name, "its path holds a backslash or a zero byte")
	case p[0] == '/' || len(p) >= 2 && p[1] == ':' && isLetter(p[0]):
		return "", refuse(name, "its path is absolute")
	}
	depth := 0
	for element := range strings.SplitSeq(p, "/") {
		if depth++; depth > maxDepth {
			return "", refuse(name, "its path is deeper than %d directories", maxDepth)
		}
		if element == "" || element == "." || element == ".." {
			return "", refuse(name, "its path has the element %q", element)
		}
		if len(element) > erofs.MaxNameBytes {
			return "", refuse(name, "its path has an element of more than %d bytes", erofs.MaxNameBytes)
		}
	}
	return p, nil
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// checkTarget allows a symbolic link only if it stays inside the package. Parts ".." may
// only lead the target: behind another link they could leave from somewhere else than it seems.
func checkTarget(linkPath, target string) error {
	if target == "" || strings.IndexByte(target, 0) >= 0 {
		return refuse(linkPath, "a symbolic link without a valid target")
	}
	if target[0] == '/' {
		return refuse(linkPath, "a symbolic link to an absolute path")
	}
	depth, down := strings.Count(linkPath, "/"), false
	for element := range strings.SplitSeq(target, "/") {
		switch element {
		case "", ".":
		case "..":
			if depth--; depth < 0 || down {
				return refuse(linkPath, "a symbolic link that may leave the package")
			}
		default:
			down = true
		}
	}
	return nil
}

// names finds paths that are there twice, or below something that is no directory.
type names struct {
	directories map[string]bool // false: an entry below it implies it, none has named it yet
	files       map[string]struct{}
}

func newNames() *names {
	return &names{directories: map[string]bool{}, files: map[string]struct{}{}}
}

// add takes a path and the directories above it, and reports whether it is new. Only
// directories may be named again: tools that join packages do so, and it says nothing else.
func (n *names) add(p string, isDirectory bool) (bool, error) {
	_, isFile := n.files[p]
	named, known := n.directories[p]
	switch {
	case isFile || known && !isDirectory:
		return false, refuse(p, "it is there twice, or as a file and as a directory")
	case named:
		return false, nil
	case isDirectory:
		n.directories[p] = true
	default:
		n.files[p] = struct{}{}
	}
	for above := path.Dir(p); above != "."; above = path.Dir(above) {
		if _, isFile := n.files[above]; isFile {
			return false, refuse(p, "it lies below a file")
		}
		if _, known := n.directories[above]; known {
			break // and so is all above it
		}
		n.directories[above] = false
		if len(n.files)+len(n.directories) > maxFiles {
			break
		}
	}
	if len(n.files)+len(n.directories) > maxFiles {
		return false, refuseWhole("more than %d files and directories", maxFiles)
	}
	return true, nil
}
