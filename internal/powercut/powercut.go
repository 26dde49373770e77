// Package powercut is a model of a disk that loses its power: what was not synchronised is
// there afterwards, or not, or in part.
//
// It stores no files itself. Tests of packages durable and store/sqlite write to real files and
// tell a Disk what they do, call by call; Restart then makes the directory that a machine might find
// when its power returns. Nothing but tests imports it.
//
// The model is harder than most disks. Of the writes to a file since its last synchronisation any
// subset may be there, each torn at any 512-byte sector; of the changes to a directory since its
// last synchronisation any subset, each whole. A file whose name was lost is lost. What a disk does not do is
// not in the model: a sector is never torn itself, bytes beside a write never change (SQLite calls that
// powersafe overwrite), and what was synchronised stays.
package powercut

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// sector is what a disk writes whole.
const sector = 512

var (
	// ErrCut is the error of everything that is done after the cut.
	ErrCut = errors.New("powercut: the power is gone")

	// ErrSync is the error of a synchronisation that failed.
	ErrSync = errors.New("powercut: synchronisation failed")
)

// A Disk is one file system. Its methods may be called concurrently. Whatever a test does to the real
// files it reports first; on an error it does not do it.
type Disk struct {
	// Lies for controls: a synchronisation that does nothing.
	IgnoreFileSync, IgnoreDirectorySync bool

	mu     sync.Mutex // guards everything below
	random *rand.Rand
	root   *directory
	left   int // calls until the cut; negative is never
	cut    bool
	fail   bool // the next synchronisation of a file
	failed bool
}

// A directory has two states: what everybody sees, and what the disk holds for certain.
type directory struct {
	seen, held map[string]any // name → *File or *directory
	pending    []change       // since the last synchronisation, in order
}

// A change of a directory; a nil entry is a removal. A rename is two in one.
type change map[string]any

// A File is an inode: it stays the same when it gets another name.
type File struct {
	disk    *Disk
	held    []byte
	pending []write
}

// A write of data at an offset, or a cut to a size if data is nil.
type write struct {
	offset int64
	data   []byte
}

// New returns an empty disk. All that chance decides comes from random.
func New(random *rand.Rand) *Disk {
	return &Disk{random: random, root: newDirectory(), left: -1}
}

func newDirectory() *directory { return &directory{seen: map[string]any{}, held: map[string]any{}} }

// MemoryDirectory returns a directory for the real files, in memory if that can be: the model says what is
// on the disk, and the system's own would only be slow.
func MemoryDirectory(t testing.TB) string {
	memory := "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		memory = ""
	}
	directory, err := os.MkdirTemp(memory, "cloister-powercut-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	return directory
}

// Load takes what is in a real directory as synchronised under the same paths.
func (d *Disk) Load(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var entry any = newDirectory()
		if !e.IsDir() {
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			entry = &File{disk: d, held: content}
		}
		parent := d.makeAll(filepath.Dir(name))
		parent.seen[e.Name()], parent.held[e.Name()] = entry, entry
		return nil
	})
}

// CutAfter lets so many calls more succeed. What they did may still be lost, or half of it.
func (d *Disk) CutAfter(steps int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.cut = steps, false
}

// FailSync lets the next synchronisation of a file fail as Linux does: what was to be synchronised is still seen, but
// nothing writes it to the disk any more, and the next synchronisation succeeds.
func (d *Disk) FailSync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = true
}

// Revive ends a cut that was only the end of a process: everything is there as it was seen,
// and nothing more is synchronised than before.
func (d *Disk) Revive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.cut, d.fail, d.failed = -1, false, false, false
}

// IsBroken reports whether the power has gone or a synchronisation has failed.
func (d *Disk) IsBroken() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cut || d.failed
}

// do runs an action unless the power is gone.
func (d *Disk) do(action func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 {
		d.cut = true
	}
	if d.cut {
		return ErrCut
	}
	d.left = max(d.left-1, -1)
	action()
	return nil
}

// Open returns the file of this name, a new and empty one if there is none.
func (d *Disk) Open(path string) (f *File, err error) {
	d.mu.Lock()
	parent := d.makeAll(filepath.Dir(path))
	f, found := parent.seen[filepath.Base(path)].(*File)
	d.mu.Unlock()
	if found {
		return f, nil
	}
	f = &File{disk: d}
	return f, d.do(func() { parent.apply(change{filepath.Base(path): f}) })
}

// Has reports whether there is a file or directory of this name.
func (d *Disk) Has(path string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.makeAll(filepath.Dir(path)).seen[filepath.Base(path)] != nil
}

// MakeDirectory makes a directory.
func (d *Disk) MakeDirectory(path string) error {
	return d.do(func() { d.makeAll(filepath.Dir(path)).apply(change{filepath.Base(path): newDirectory()}) })
}

// Rename gives a file another name, in the same directory.
func (d *Disk) Rename(from, to string) error {
	return d.do(func() {
		parent := d.makeAll(filepath.Dir(from))
		parent.apply(change{filepath.Base(to): parent.seen[filepath.Base(from)], filepath.Base(from): nil})
	})
}

// Link gives a file one more name, in the same directory.
func (d *Disk) Link(from, to string) error {
	return d.do(func() {
		parent := d.makeAll(filepath.Dir(from))
		parent.apply(change{filepath.Base(to): parent.seen[filepath.Base(from)]})
	})
}

// Remove takes a name away.
func (d *Disk) Remove(path string) error {
	return d.do(func() { d.makeAll(filepath.Dir(path)).apply(change{filepath.Base(path): nil}) })
}

// SyncDirectory makes the names in a directory certain.
func (d *Disk) SyncDirectory(path string) error {
	return d.do(func() {
		if d.IgnoreDirectorySync {
			return
		}
		found := d.makeAll(path)
		found.held, found.pending = maps.Clone(found.seen), nil
	})
}

// makeAll returns the directory of a path. One that nobody made is as certain as the root: it
// was there before the test.
func (d *Disk) makeAll(path string) *directory {
	if parent := filepath.Dir(path); parent != path {
		above := d.makeAll(parent)
		found, ok := above.seen[filepath.Base(path)].(*directory)
		if !ok {
			found = newDirectory()
			above.seen[filepath.Base(path)], above.held[filepath.Base(path)] = found, found
		}
		return found
	}
	return d.root
}

func (d *directory) apply(c change) {
	put(d.seen, c)
	d.pending = append(d.pending, c)
}

func put(entries map[string]any, c change) {
	for name, entry := range c {
		if entry == nil {
			delete(entries, name)
		} else {
			entries[name] = entry
		}
	}
}

// WriteAt reports a write; the model keeps a copy.
func (f *File) WriteAt(p []byte, offset int64) error {
	return f.disk.do(func() { f.pending = append(f.pending, write{offset, slices.Clone(p)}) })
}

// Truncate reports a cut, or growth with zeros.
func (f *File) Truncate(size int64) error {
	return f.disk.do(func() { f.pending = append(f.pending, write{size, nil}) })
}

// Sync makes the file's bytes certain, but not its name.
func (f *File) Sync() (err error) {
	cut := f.disk.do(func() {
		switch {
		case f.disk.fail:
			f.disk.fail, f.disk.failed, err = false, true, ErrSync
			f.held, f.pending = f.disk.content(f), nil
		case !f.disk.IgnoreFileSync:
			for _, w := range f.pending {
				f.held = w.apply(f.held)
			}
			f.pending = nil
		}
	})
	return errors.Join(cut, err)
}

func (w write) apply(content []byte) []byte {
	end := w.offset + int64(len(w.data))
	if w.data == nil && end < int64(len(content)) {
		return content[:end:end]
	}
	if grow := end - int64(len(content)); grow > 0 {
		content = append(content, make([]byte, grow)...)
	}
	copy(content[w.offset:], w.data)
	return content
}

// Restart writes what the disk holds of a directory when the power returns into target, a real
// directory that exists. It ends the use of the Disk.
func (d *Disk) Restart(path, target string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut = true
	found := d.root
	for _, name := range splitPath(path) {
		next, ok := d.survivors(found)[name].(*directory)
		if !ok {
			return fmt.Errorf("powercut: %s is lost", path)
		}
		found = next
	}
	return d.restart(found, target)
}

func splitPath(path string) []string {
	if parent := filepath.Dir(path); parent != path {
		return append(splitPath(parent), filepath.Base(path))
	}
	return nil
}

func (d *Disk) restart(from *directory, target string) error {
	entries := d.survivors(from)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		path := filepath.Join(target, name)
		switch entry := entries[name].(type) {
		case *directory:
			if err := os.MkdirAll(path, 0o700); err != nil {
				return err
			}
			if err := d.restart(entry, path); err != nil {
				return err
			}
		case *File:
			if err := os.WriteFile(path, d.content(entry), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// survivors decides which names of a directory are there.
func (d *Disk) survivors(from *directory) map[string]any {
	entries, keep := maps.Clone(from.held), d.chance()
	for _, c := range from.pending {
		if keep() {
			put(entries, c)
		}
	}
	return entries
}

// content decides which bytes of a file are there.
func (d *Disk) content(f *File) []byte {
	content, keep, tear := slices.Clone(f.held), d.chance(), d.random.IntN(2) == 0
	for _, w := range f.pending {
		switch {
		case !tear || w.data == nil:
			if keep() {
				content = w.apply(content)
			}
		default:
			for from := int64(0); from < int64(len(w.data)); {
				to := min((w.offset+from)/sector*sector+sector-w.offset, int64(len(w.data)))
				if keep() {
					content = write{w.offset + from, w.data[from:to]}.apply(content)
				}
				from = to
			}
		}
	}
	return content
}

// chance returns how this cut treats what is not certain: all is there, nothing is, all up to some
// point, or each with some probability.
func (d *Disk) chance() func() bool {
	p := d.random.Float64()
	switch d.random.IntN(4) {
	case 0:
		return func() bool { return true }
	case 1:
		return func() bool { return false }
	case 2:
		kept := true
		return func() bool {
			kept = kept && d.random.Float64() < 0.5+p/2
			return kept
		}
	}
	return func() bool { return d.random.Float64() < p }
}
