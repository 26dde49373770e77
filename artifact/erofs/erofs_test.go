package erofs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	goerofs "github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func regular(path, content string, mode fs.FileMode) Entry {
	return Entry{Path: path, Mode: mode, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}}
}

func directory(path string) Entry { return Entry{Path: path, Mode: fs.ModeDir | 0o755} }

func symlink(path, target string) Entry {
	return Entry{Path: path, Mode: fs.ModeSymlink | 0o777, Target: target}
}

// awkwardTree has files around every boundary of the format.
func awkwardTree() []Entry {
	random := rand.New(rand.NewPCG(1, 2))
	content := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return string(b)
	}
	entries := []Entry{
		directory("empty"), symlink("link", "empty"), symlink("long link", strings.Repeat("l", MaxTargetBytes)),
		symlink("outside", "/etc/passwd"), regular("bootstrap", "#!/bin/sh\n", 0o755), regular("bare", "x", 0),
		{Path: "closed", Mode: fs.ModeDir | 0o700}, regular("closed/secret", "x", 0o400),
		regular("!sorts before the dots", "x", 0o644), regular("not \xff UTF-8", "x", 0o644), regular("日本", "x", 0o644),
		regular(strings.Repeat("n", MaxNameBytes), "x", 0o644),
		regular(strings.Repeat("deep/", 200)+"file", "down here", 0o644),
		regular("implied/parents/file", "x", 0o644),
	}
	for _, n := range []int{0, 1, 31, 32, 33, 4031, 4032, 4033, 4063, 4064, 4065, 4095, 4096, 4097, 8191, 8192, 8193, 1 << 20, 3<<20 + 5} {
		entries = append(entries, regular(fmt.Sprint("sizes/", n), content(n), 0o644))
	}
	for i := range 3000 { // a directory of many blocks, with inline files between its inodes
		entries = append(entries, regular(fmt.Sprintf("many/%c file number %d", rune(' '+i%90), i), content(i), 0o644))
	}
	for i := range 100 {
		entries = append(entries, symlink(fmt.Sprint("links/", i), strings.Repeat("t", 40*i+1)))
	}
	return slices.DeleteFunc(entries, func(e Entry) bool { return strings.Contains(e.Path, "many// ") })
}

func build(t *testing.T, entries []Entry) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	size, err := Build(t.Context(), f, entries)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != size || size%4096 != 0 {
		t.Fatalf("Build says %d bytes, the file has %v, %v", size, info.Size(), err)
	}
	return f
}

// A found file is what a reader sees of an entry.
type found struct {
	Mode    fs.FileMode
	Content string // a hash, or the target of a link
	Links   int
}

func wanted(t *testing.T, entries []Entry) map[string]found {
	t.Helper()
	want := map[string]found{".": {Mode: fs.ModeDir | 0o755, Links: 2}}
	var implied func(dir string)
	implied = func(dir string) {
		if _, ok := want[dir]; !ok {
			want[dir] = found{Mode: fs.ModeDir | 0o755, Links: 2}
			implied(path.Dir(dir))
		}
	}
	for _, e := range entries {
		w := found{Mode: e.Mode, Content: e.Target, Links: 1}
		if e.Mode.IsDir() {
			w.Links = 2
		} else if e.Mode.IsRegular() {
			r, err := e.Open()
			if err != nil {
				t.Fatal(err)
			}
			w.Content = hash(t, r)
		}
		want[e.Path] = w
		implied(path.Dir(e.Path))
	}
	for p, w := range want {
		if parent := want[path.Dir(p)]; w.Mode.IsDir() && p != "." {
			parent.Links++
			want[path.Dir(p)] = parent
		}
	}
	return want
}

func hash(t *testing.T, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Error(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// look reads a whole tree. Owner and times must be 0.
func look(t *testing.T, tree fs.FS, details func(fs.FileInfo) (links int, zero bool)) map[string]found {
	t.Helper()
	got := map[string]found{}
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := found{Mode: info.Mode() & (fs.ModeType | fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)} // go-erofs leaves the raw type bits in
		var zero bool
		if f.Links, zero = details(info); !zero {
			t.Errorf("%s has an owner or a time: %+v", p, info.Sys())
		}
		switch {
		case info.Mode().IsRegular():
			r, err := tree.Open(p)
			if err != nil {
				return err
			}
			f.Content = hash(t, r)
			r.Close()
		case info.Mode()&fs.ModeSymlink != 0:
			if f.Content, err = fs.ReadLink(tree, p); err != nil {
				return err
			}
		}
		got[p] = f
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return got
}

func TestAnImageReadsBackAsItsTree(t *testing.T) {
	entries := awkwardTree()
	// package fs's walk refuses names that are not UTF-8; the kernel's test has them.
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return !fs.ValidPath(e.Path) })
	tree, err := goerofs.Open(build(t, entries))
	if err != nil {
		t.Fatal(err)
	}
	got := look(t, tree, func(info fs.FileInfo) (int, bool) {
		s := info.Sys().(*goerofs.Stat)
		return s.Nlink, s.UID == 0 && s.GID == 0 && s.Mtime == 0 && s.MtimeNs == 0 && len(s.Xattrs) == 0
	})
	if diff := cmp.Diff(wanted(t, entries), got); diff != "" {
		t.Errorf("tree (-want +got):\n%.3000s", diff)
	}
}

// TestTheKernelMountsAnImageAsItsTree is the judge: the kernel's own reader of the format.
func TestTheKernelMountsAnImageAsItsTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("mounting needs root: run the tests as root")
	}
	entries := awkwardTree()
	image := build(t, entries)
	target := t.TempDir()
	var got map[string]found
	inMountNamespace(t, func() {
		if err := unix.Mount(image.Name(), target, "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
			t.Errorf("mount: %v", err)
			return
		}
		got = look(t, rawDirectory(target), func(info fs.FileInfo) (int, bool) {
			s := info.Sys().(*syscall.Stat_t)
			return int(s.Nlink), s.Uid == 0 && s.Gid == 0 && s.Mtim == syscall.Timespec{} && s.Ctim == syscall.Timespec{}
		})
	})
	if diff := cmp.Diff(wanted(t, entries), got); diff != "" {
		t.Errorf("tree (-want +got):\n%.3000s", diff)
	}
}

// inMountNamespace runs f on a thread with mounts of its own, which go when it ends.
func inMountNamespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
			t.Errorf("make a mount namespace: %v", err)
			return
		}
		f()
	}()
	<-done
}

// rawDirectory is os.DirFS without its refusal of names that are not UTF-8.
type rawDirectory string

func (d rawDirectory) Open(name string) (fs.File, error) { return os.Open(string(d) + "/" + name) }
func (d rawDirectory) ReadDir(name string) ([]fs.DirEntry, error) {
	return os.ReadDir(string(d) + "/" + name)
}
func (d rawDirectory) ReadLink(name string) (string, error) {
	return os.Readlink(string(d) + "/" + name)
}
func (d rawDirectory) Lstat(name string) (fs.FileInfo, error) {
	return os.Lstat(string(d) + "/" + name)
}

func TestTheSameTreeGivesTheSameImage(t *testing.T) {
	entries := awkwardTree()
	first, err := os.ReadFile(build(t, entries).Name())
	if err != nil {
		t.Fatal(err)
	}
	rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	second, err := os.ReadFile(build(t, entries).Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two builds of one tree differ")
	}
}

func TestAListThatIsNoTreeIsRefused(t *testing.T) {
	long := strings.Repeat("n", MaxNameBytes+1)
	for name, entries := range map[string][]Entry{
		"twice":              {regular("a", "x", 0o644), regular("a", "y", 0o644)},
		"file and directory": {regular("a", "x", 0o644), directory("a")},
		"below a file":       {regular("a", "x", 0o644), regular("a/b", "x", 0o644)},
		"far below a file":   {regular("a", "x", 0o644), regular("a/b/c/d", "x", 0o644)},
		"below a link":       {symlink("a", "."), regular("a/b", "x", 0o644)},
		"empty path":         {directory("")},
		"the root":           {directory(".")},
		"absolute":           {regular("/a", "x", 0o644)},
		"trailing slash":     {directory("a/")},
		"double slash":       {regular("a//b", "x", 0o644)},
		"dot":                {regular("a/./b", "x", 0o644)},
		"dot dot":            {regular("../b", "x", 0o644)},
		"inner dot dot":      {regular("a/../b", "x", 0o644)},
		"zero byte":          {regular("a\x00b", "x", 0o644)},
		"zero byte target":   {symlink("a", "b\x00c")},
		"long name":          {regular("a/"+long, "x", 0o644)},
		"long target":        {symlink("a", strings.Repeat("t", MaxTargetBytes+1))},
		"no target":          {symlink("a", "")},
		"set user id":        {regular("a", "x", 0o755|fs.ModeSetuid)},
		"set group id":       {directory("a"), regular("b", "x", 0o755|fs.ModeSetgid)},
		"sticky":             {{Path: "a", Mode: fs.ModeDir | fs.ModeSticky | 0o777}},
		"device":             {{Path: "a", Mode: fs.ModeDevice | 0o644}},
		"pipe":               {{Path: "a", Mode: fs.ModeNamedPipe | 0o644}},
		"socket":             {{Path: "a", Mode: fs.ModeSocket | 0o644}},
		"link and directory": {{Path: "a", Mode: fs.ModeDir | fs.ModeSymlink, Target: "b"}},
		"no contents":        {{Path: "a", Size: 5}},
		"negative size":      {{Path: "a", Size: -1}},
	} {
		if _, err := Build(t.Context(), discard(t), entries); !errors.Is(err, ErrTree) {
			t.Errorf("%s: Build gave %v, want ErrTree", name, err)
		}
	}
}

func TestContentsOfAnotherLengthAreRefused(t *testing.T) {
	for _, size := range []int64{1, 100, 4000, 5000, 1 << 20} { // between the inodes, and in blocks
		for _, off := range []int64{-1, 1} {
			e := regular("a", strings.Repeat("x", int(size)), 0o644)
			if e.Size += off; e.Size == 0 {
				continue // such a file is not opened
			}
			if _, err := Build(t.Context(), discard(t), []Entry{e}); !errors.Is(err, ErrTree) {
				t.Errorf("%d bytes said to be %d: Build gave %v, want ErrTree", size, e.Size, err)
			}
		}
	}
}

func TestErrorsOfContentsComeBack(t *testing.T) {
	broken := errors.New("broken")
	atEnd := regular("a", "x", 0o644)
	atEnd.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("x"), errorReader{broken})), nil
	}
	large := atEnd
	large.Size = 5000
	large.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x", 5000)), errorReader{broken})), nil
	}
	unopened := regular("a", "x", 0o644)
	unopened.Open = func() (io.ReadCloser, error) { return nil, broken }
	for name, e := range map[string]Entry{"after the last byte": atEnd, "of a large file": large, "on opening": unopened} {
		if _, err := Build(t.Context(), discard(t), []Entry{e}); !errors.Is(err, broken) {
			t.Errorf("an error %s: Build gave %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, discard(t), []Entry{regular("a", "x", 0o644)}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled, Build gave %v", err)
	}
}

func TestEveryOpenedFileIsClosed(t *testing.T) {
	open := 0
	var entries []Entry
	for i := range 1000 {
		e := regular(fmt.Sprint(i), strings.Repeat("x", i*10+1), 0o644)
		e.Open = func() (io.ReadCloser, error) {
			if open++; open > 1 {
				t.Fatal("two files are open at once")
			}
			return closer{strings.NewReader(strings.Repeat("x", int(e.Size))), func() { open-- }}, nil
		}
		entries = append(entries, e)
	}
	if _, err := Build(t.Context(), discard(t), entries); err != nil || open != 0 {
		t.Errorf("Build gave %v and left %d files open", err, open)
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

type closer struct {
	io.Reader
	close func()
}

func (c closer) Close() error { c.close(); return nil }

func discard(t *testing.T) io.WriteSeeker {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
