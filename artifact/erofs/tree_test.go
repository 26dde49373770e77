package erofs

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	goerofs "github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// names are short, so that they meet in many directories, or at the edges of what is allowed.
func names() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[a-c]{1,2}`),
		rapid.StringMatching(`[!-.0-~]{1,12}`),
		rapid.StringMatching(`[a-zé日]{1,40}`),
		rapid.Map(rapid.IntRange(200, MaxNameBytes), func(n int) string { return strings.Repeat("n", n) }),
	)
}

// sizes lie around the edges of the format or anywhere below a few blocks.
func sizes() *rapid.Generator[int] {
	return rapid.OneOf(
		rapid.SampledFrom([]int{0, 1, 31, 32, 33, 2015, 2016, 2017, 4031, 4032, 4033, 4063, 4064, 4065, 4095, 4096, 4097, 8192, 8193}),
		rapid.IntRange(0, 300),
		rapid.IntRange(0, 20_000),
	)
}

// trees draws a list of entries in any order, some of whose directories are implied.
func trees() *rapid.Generator[[]Entry] {
	return rapid.Custom(func(t *rapid.T) []Entry {
		folders := []string{""}
		taken := map[string]bool{}
		var entries []Entry
		for range rapid.IntRange(0, 120).Draw(t, "entries") {
			name := names().Draw(t, "name")
			p := rapid.SampledFrom(folders).Draw(t, "folder") + name
			if name == "." || name == ".." || taken[p] || len(p) > 3000 {
				continue
			}
			taken[p] = true
			mode := fs.FileMode(rapid.IntRange(0, 0o777).Draw(t, "mode"))
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				folders = append(folders, p+"/")
				entries = append(entries, Entry{Path: p, Mode: fs.ModeDir | mode})
			case 1:
				folders = append(folders, p+"/") // implied, if something is put there
			case 2:
				entries = append(entries, symlink(p, strings.Repeat("t", rapid.SampledFrom([]int{1, 20, 300, 4064, 4065, MaxTargetBytes}).Draw(t, "target"))))
			default:
				seed := rapid.Byte().Draw(t, "content")
				content := make([]byte, sizes().Draw(t, "size"))
				for i := range content {
					content[i] = seed + byte(i) + byte(i>>8)
				}
				entries = append(entries, regular(p, string(content), mode))
			}
		}
		return rapid.Permutation(entries).Draw(t, "order")
	})
}

// The kernel and another implementation of the format see the tree that was packed.
func TestAnyTreeIsMountedAsItIs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("mounting needs root: run the tests as root")
	}
	target := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		entries := trees().Draw(r, "tree")
		image := build(t, entries)
		defer os.Remove(image.Name())
		defer image.Close()
		var seen map[string]found
		inMountNamespace(t, func() {
			if err := unix.Mount(image.Name(), target, "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
				r.Errorf("mount: %v", err)
				return
			}
			seen = look(t, rawDirectory(target), func(info fs.FileInfo) (int, bool) {
				s := info.Sys().(*syscall.Stat_t)
				return int(s.Nlink), s.Uid == 0 && s.Gid == 0 && s.Mtim == syscall.Timespec{}
			})
		})
		want := wanted(t, entries)
		if diff := cmp.Diff(want, seen); diff != "" {
			r.Fatalf("the kernel's tree (-want +got):\n%.3000s", diff)
		}
		if slices.ContainsFunc(entries, func(e Entry) bool { return !fs.ValidPath(e.Path) }) {
			return // package fs does not walk it
		}
		tree, err := goerofs.Open(image)
		if err != nil {
			r.Fatal(err)
		}
		read := look(t, tree, func(info fs.FileInfo) (int, bool) {
			s := info.Sys().(*goerofs.Stat)
			return s.Nlink, s.UID == 0 && s.GID == 0 && s.Mtime == 0
		})
		if diff := cmp.Diff(want, read); diff != "" {
			r.Fatalf("go-erofs' tree (-want +got):\n%.3000s", diff)
		}
	})
}

func TestAnImageIsHardlyLongerThanItsContents(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		entries := trees().Draw(r, "tree")
		all := wanted(t, entries) // with the implied directories
		most := int64(2*blockSize) + int64(len(all))*5000
		for _, e := range entries {
			most += e.Size + int64(len(e.Target))
		}
		image := build(t, entries)
		defer os.Remove(image.Name())
		defer image.Close()
		if info, err := image.Stat(); err != nil || info.Size() > most {
			r.Errorf("%d entries became %d bytes, want at most %d (%v)", len(entries), info.Size(), most, err)
		}
	})
}

// More subdirectories than the small form of an inode can count.
func TestADirectoryOfManyDirectoriesCountsThem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("mounting needs root: run the tests as root")
	}
	for _, n := range []int{maxCompactLinks - 2, maxCompactLinks - 1} {
		var entries []Entry
		for i := range n {
			entries = append(entries, directory(fmt.Sprint("d/", i)))
		}
		image, target := build(t, entries), t.TempDir()
		inMountNamespace(t, func() {
			if err := unix.Mount(image.Name(), target, "erofs", unix.MS_RDONLY, ""); err != nil {
				t.Errorf("mount: %v", err)
				return
			}
			var stat unix.Stat_t
			listed, err := os.ReadDir(target + "/d")
			if err != nil || len(listed) != n {
				t.Errorf("%d of %d directories are listed, %v", len(listed), n, err)
			}
			if err := unix.Lstat(target+"/d", &stat); err != nil || int(stat.Nlink) != n+2 || stat.Uid != 0 || stat.Gid != 0 || stat.Mtim != (unix.Timespec{}) || stat.Mode != unix.S_IFDIR|0o755 {
				t.Errorf("the directory of %d is %+v, %v", n, stat, err)
			}
			if err := unix.Lstat(fmt.Sprint(target, "/d/", n/2), &stat); err != nil || stat.Nlink != 2 {
				t.Errorf("one of %d is %+v, %v", n, stat, err)
			}
		})
	}
}
