package runtimes

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxLoaderIncludes bounds how many files ld.so.conf may pull in.
const maxLoaderIncludes = 100

// libraries finds the shared libraries that programs load, by reading their headers as
// the dynamic loader does. Nothing is run.
type libraries struct {
	directories []string          // where the loader looks, in order
	found       map[string]string // soname to file on the host
	loader      string            // the dynamic loader, as the programs name it
	machine     elf.Machine       // of the first program; others must be of the same
	class       elf.Class
}

func newLibraries() (*libraries, error) {
	l := &libraries{found: map[string]string{}}
	left := maxLoaderIncludes
	if err := l.configure("/etc/ld.so.conf", &left); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l.directories = append(l.directories, "/lib", "/usr/lib", "/lib64", "/usr/lib64")
	return l, nil
}

// configure reads a file in the format of ld.so.conf.
func (l *libraries) configure(file string, left *int) error {
	if *left--; *left < 0 {
		return fmt.Errorf("%s: more than %d included files", file, maxLoaderIncludes)
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read loader configuration: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		line = strings.TrimSpace(line)
		pattern, include := strings.CutPrefix(line, "include ")
		if !include {
			if filepath.IsAbs(line) {
				l.directories = append(l.directories, line)
			}
			continue
		}
		pattern = strings.TrimSpace(pattern)
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(file), pattern)
		}
		included, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("read loader configuration: %s: %w", file, err)
		}
		for _, name := range included {
			if err := l.configure(name, left); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// errMissing is wrapped when the host lacks a library.
var errMissing = errors.New("the host lacks a shared library")

// add finds what a program or library loads, and what that loads in turn. If something is
// missing, nothing is added and the error is errMissing.
func (l *libraries) add(program string) error {
	found := map[string]string{}
	pending := []string{program}
	for len(pending) > 0 {
		last := len(pending) - 1
		file := pending[last]
		pending = pending[:last]
		object, err := l.read(file)
		if err != nil {
			return err
		}
		for _, name := range object.needed {
			if l.found[name] != "" || found[name] != "" || name == filepath.Base(l.loader) {
				continue
			}
			at := l.search(name, object.directories)
			if at == "" {
				return fmt.Errorf("%s needs %s: %w", file, name, errMissing)
			}
			found[name] = at
			pending = append(pending, at)
		}
	}
	maps.Copy(l.found, found)
	return nil
}

// addIfPresent adds libraries that programs load without naming them in their headers.
func (l *libraries) addIfPresent(names ...string) error {
	for _, name := range names {
		if l.found[name] != "" {
			continue
		}
		at := l.search(name, nil)
		if at == "" {
			continue
		}
		if err := l.add(at); err != nil {
			return err
		}
		l.found[name] = at
	}
	return nil
}

// An object is what matters in an ELF header.
type object struct {
	needed      []string // sonames
	directories []string // where it wants them looked for
}

func (l *libraries) read(file string) (object, error) {
	f, err := elf.Open(file)
	if err != nil {
		return object{}, fmt.Errorf("read program header of %s: %w", file, err)
	}
	defer f.Close()
	if l.machine == elf.EM_NONE {
		l.machine, l.class = f.Machine, f.Class
	}
	if f.Machine != l.machine || f.Class != l.class {
		return object{}, fmt.Errorf("%s is for %v, the interpreter for %v", file, f.Machine, l.machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && l.loader == "" && p.Filesz < 4096 {
			name, err := io.ReadAll(p.Open())
			if err != nil {
				return object{}, fmt.Errorf("read program header of %s: %w", file, err)
			}
			l.loader = strings.TrimRight(string(name), "\x00")
		}
	}
	var o object
	if o.needed, err = f.ImportedLibraries(); err != nil {
		return object{}, fmt.Errorf("read needed libraries of %s: %w", file, err)
	}
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		lists, err := f.DynString(tag)
		if err != nil {
			return object{}, fmt.Errorf("read library path of %s: %w", file, err)
		}
		for _, list := range lists {
			origin := strings.NewReplacer("$ORIGIN", filepath.Dir(file), "${ORIGIN}", filepath.Dir(file)).Replace(list)
			o.directories = append(o.directories, strings.Split(origin, ":")...)
		}
	}
	return o, nil
}

// search returns the file of a library for this machine, or "".
func (l *libraries) search(name string, first []string) string {
	for _, directory := range slices.Concat(first, l.directories) {
		if !filepath.IsAbs(directory) {
			continue
		}
		file := filepath.Join(directory, name)
		f, err := elf.Open(file)
		if err != nil {
			continue // absent, or a linker script of the same name
		}
		same := f.Machine == l.machine && f.Class == l.class
		f.Close()
		if same {
			return file
		}
	}
	return ""
}
