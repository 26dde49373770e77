package runtimes

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// pythonVariables are those that AWS sets for Python beside the ones of every runtime.
var pythonVariables = map[string]string{"PYTHONPATH": runtimeDirectory}

// A pythonHost is an interpreter of this host, with its standard library.
type pythonHost struct {
	version string // "3.11"
	program string // the file itself
	library string // "/usr/lib/python3.11"
}

// findPython returns the interpreter of a version, or nil.
func findPython(version string) *pythonHost {
	program := findProgram("python" + version)
	if program == "" {
		return nil
	}
	library := filepath.Join(filepath.Dir(filepath.Dir(program)), "lib", "python"+version)
	// Debian's python3.N-minimal has os, but not asyncio and its like.
	for _, module := range []string{"os.py", "asyncio/__init__.py", "lib-dynload"} {
		if _, err := os.Stat(filepath.Join(library, module)); err != nil {
			return nil
		}
	}
	return &pythonHost{version, program, library}
}

// inside is where the interpreter and its library are in the image: where AWS has them. Python
// finds its library from its own place.
func (p *pythonHost) inside() (program, library string) {
	return path.Join(languageDirectory, "bin/python"+p.version), path.Join(languageDirectory, "lib/python"+p.version)
}

func (p *pythonHost) plan(ca []byte) (*plan, error) {
	t := newTree()
	l, err := newLibraries()
	if err != nil {
		return nil, err
	}
	if err := l.add(p.program); err != nil {
		return nil, err
	}
	program, library := p.inside()
	if err := t.file(program, p.program); err != nil {
		return nil, err
	}
	for _, name := range []string{"python", "python3"} {
		t.link(path.Join(languageDirectory, "bin", name), "python"+p.version)
	}
	for _, name := range []string{"python3", "python" + p.version} {
		t.link("/usr/bin/"+name, program)
	}
	if err := t.folder(library, p.library, p.keep); err != nil {
		return nil, err
	}
	if err := p.addExtensions(t, l, library); err != nil {
		return nil, err
	}
	if err := p.addCompiled(t, library); err != nil {
		return nil, err
	}
	if err := addOpenSSL(t); err != nil {
		return nil, err
	}
	if err := addBase(t, l, ca); err != nil {
		return nil, err
	}
	if err := addBootstrap(t, ".py"); err != nil {
		return nil, err
	}
	return &plan{
		tree:      t,
		bootstrap: []string{program, "-u", "-s", path.Join(runtimeDirectory, "bootstrap.pyc")},
		key:       t.key(p.program),
		finish:    func(ctx context.Context, t *tree) error { return p.compileBootstrap(ctx, t) },
	}, nil
}

// leftOut are parts of the standard library that no function uses: tests, editors and windows,
// what installs packages, what links other programs to Python, and hooks of the distribution.
var leftOut = map[string]bool{
	"test": true, "tests": true, "idlelib": true, "tkinter": true, "turtledemo": true, "turtle.py": true, "ensurepip": true,
	"site-packages": true, "dist-packages": true, "__pycache__": true, "sitecustomize.py": true, "EXTERNALLY-MANAGED": true,
	"lib-dynload": true, "idle_test": true,
}

// keep says what of the host's library belongs into the image. Compiled files and extension
// modules are added apart.
func (p *pythonHost) keep(relative string, d fs.DirEntry) bool {
	name := d.Name()
	return !leftOut[name] && !strings.HasPrefix(name, "config-")
}

// addExtensions adds the extension modules whose libraries the host has, and those libraries.
func (p *pythonHost) addExtensions(t *tree, l *libraries, library string) error {
	folder := filepath.Join(p.library, "lib-dynload")
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("list extension modules: %w", err)
	}
	t.directory(path.Join(library, "lib-dynload"))
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".so") || strings.HasPrefix(name, "_test") || strings.HasPrefix(name, "_ctypes_test") ||
			strings.HasPrefix(name, "xx") || strings.HasPrefix(name, "_xx") || strings.HasPrefix(name, "_tkinter") {
			continue
		}
		file := filepath.Join(folder, name)
		if err := l.add(file); errors.Is(err, errMissing) {
			continue // it would not load on the host, either
		} else if err != nil {
			return err
		}
		if err := t.file(path.Join(library, "lib-dynload", name), file); err != nil {
			return err
		}
	}
	return nil
}

// Layout of a compiled Python file: magic number, flags, then time and size of the source, or
// its hash (language reference, PEP 552). A file flagged as hash-based and unchecked is used
// without a look at the source.
const (
	compiledHeaderBytes = 16
	uncheckedHash       = 0b01
)

// addCompiled adds the compiled form of each module that the host has one of. The image's files
// have no times, so each is marked as not to be compared with its source. That the two
// belong together is checked here instead.
func (p *pythonHost) addCompiled(t *tree, library string) error {
	tag := ".cpython-" + strings.ReplaceAll(p.version, ".", "") + ".pyc"
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		inside := "/" + name
		module, ok := strings.CutSuffix(path.Base(inside), ".py")
		if !ok || !strings.HasPrefix(inside, library+"/") {
			continue
		}
		relative := strings.TrimPrefix(path.Dir(inside), library)
		host := filepath.Join(p.library, relative, "__pycache__", module+tag)
		source, err := os.Stat(filepath.Join(p.library, relative, module+".py"))
		if err != nil || !compiledFrom(host, source) {
			continue
		}
		at := path.Join(path.Dir(inside), "__pycache__", module+tag)
		err = t.transformed(at, host, func(data []byte) error {
			if len(data) < compiledHeaderBytes {
				return fmt.Errorf("%s is cut", host)
			}
			binary.LittleEndian.PutUint32(data[4:], uncheckedHash)
			clear(data[8:compiledHeaderBytes])
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// compiledFrom says whether a compiled file is of this version of its source.
func compiledFrom(file string, source fs.FileInfo) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	var header [compiledHeaderBytes]byte
	if n, _ := f.Read(header[:]); n < len(header) {
		return false
	}
	return binary.LittleEndian.Uint32(header[4:]) == 0 &&
		binary.LittleEndian.Uint32(header[8:]) == uint32(source.ModTime().Unix()) &&
		binary.LittleEndian.Uint32(header[12:]) == uint32(source.Size())
}

// compiler reads a source and writes its compiled form, as a file that is not compared with
// its source.
const compiler = `
import sys, marshal, importlib.util
name = sys.argv[1]
code = compile(sys.stdin.buffer.read(), name, "exec", dont_inherit=True)
flags = (1).to_bytes(4, "little")
sys.stdout.buffer.write(importlib.util.MAGIC_NUMBER + flags + bytes(8) + marshal.dumps(code))
`

// compileBootstrap adds the compiled bootstrap: without it every cold start would compile it
// anew, which takes 3.5 ms.
func (p *pythonHost) compileBootstrap(ctx context.Context, t *tree) error {
	for _, source := range []string{"bootstrap", "cloister_json", "cloister_logging"} {
		inside := path.Join(runtimeDirectory, source+".py")
		text, err := bootstraps.ReadFile("bootstrap/" + source + ".py")
		if err != nil {
			return fmt.Errorf("compile bootstrap: %w", err)
		}
		compiled, err := runHostProgram(ctx, text, p.program, "-I", "-S", "-c", compiler, inside)
		if err != nil {
			return fmt.Errorf("compile bootstrap: %w", err)
		}
		at := path.Join(runtimeDirectory, "__pycache__", source+".cpython-"+strings.ReplaceAll(p.version, ".", "")+".pyc")
		if source == "bootstrap" {
			at = path.Join(runtimeDirectory, "bootstrap.pyc") // the program itself: started by its name
		}
		t.content(at, compiled)
	}
	return nil
}

// addOpenSSL adds the configuration that Debian's OpenSSL reads, and its names for the public
// certificate authorities.
func addOpenSSL(t *tree) error {
	if err := t.fileIfPresent("/etc/ssl/openssl.cnf", "/etc/ssl/openssl.cnf"); err != nil {
		return err
	}
	t.link("/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf")
	t.link("/usr/lib/ssl/certs", "/etc/ssl/certs")
	t.link("/usr/lib/ssl/cert.pem", certificates)
	return nil
}
