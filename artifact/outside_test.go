package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	archivezip "archive/zip"
	goerofs "github.com/erofs/go-erofs"

	"cloister/artifact/erofs"
	"cloister/artifact/zip"
	"cloister/artifact/zip/ziptest"
	"cloister/lambda"
)

// withMounts runs f on a thread with mounts of its own, which go when it ends.
func withMounts(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("mounting needs root: run the tests as root")
	}
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

// onlyWritable makes everything but one directory read-only for the calling thread.
func onlyWritable(directory string) error {
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	writable := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if err := unix.Mount(directory, directory, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", directory, err)
	}
	if err := unix.MountSetattr(-1, "/", unix.AT_RECURSIVE, &readOnly); err != nil {
		return fmt.Errorf("make all read-only: %w", err)
	}
	return unix.MountSetattr(-1, directory, 0, &writable)
}

// unpack is what a careless reader does with a zip.
func unpack(data []byte, to string) error {
	reader, err := archivezip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	for _, f := range reader.File {
		if err := os.WriteFile(to+"/"+f.Name, nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func TestHostileZipsLeaveNothingBehind(t *testing.T) {
	f := fresh(t)
	cases := ziptest.Hostile()
	bait := filepath.Dir(f.directory) // what a step up from the store would meet
	if err := os.WriteFile(filepath.Join(bait, "evil"), []byte("bait"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, bait, f.directory)
	withMounts(t, func() {
		if err := onlyWritable(f.directory); err != nil {
			t.Error(err)
			return
		}
		// A control: whoever unpacks a zip fails here.
		if err := unpack(ziptest.Of("../evil", "x"), f.directory); !errors.Is(err, unix.EROFS) {
			t.Errorf("a zip that is unpacked wrote outside the store: %v", err)
		}
		for _, c := range cases {
			_, _, _, err := f.PutZip(t.Context(), alice, c.Zip)
			if c.Message == "" {
				if err != nil {
					t.Errorf("%s: a good zip is refused: %v", c.Name, err)
				}
				continue
			}
			e, ok := err.(*lambda.Error) // itself, not wrapped: the text is for the caller
			if !ok || e.Kind != lambda.InvalidParameter || e.Message != c.Message {
				t.Errorf("%s: got %v, want a refusal with %q", c.Name, err, c.Message)
			}
		}
	})
	if left, err := os.ReadDir(f.temporary()); err != nil || len(left) != 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
	for path := range f.files() {
		kind := strings.Split(strings.TrimPrefix(path, f.directory+"/"), "/")
		if len(kind) != 3 || kind[0] != imageKind && kind[0] != zipKind || len(kind[2]) != 64 || kind[1] != kind[2][:2] {
			t.Errorf("the file %s was written", path)
		}
	}
	if after := snapshot(t, bait, f.directory); after != before {
		t.Errorf("around the store there were\n%sand are\n%s", before, after)
	}
}

// snapshot lists what is below a directory, but not in one of its directories.
func snapshot(t *testing.T, directory, without string) string {
	t.Helper()
	var found strings.Builder
	err := filepath.WalkDir(directory, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == without {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&found, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found.String()
}

func TestAHundredThousandFilesAreMountedAndListed(t *testing.T) {
	f := fresh(t)
	const files, folders = 99_000, 1000
	var z ziptest.Zip
	z.Zip64 = true
	for i := range files {
		z.Files = append(z.Files, ziptest.File{Name: fmt.Sprintf("d%d/module%d.py", i%folders, i), Content: fmt.Sprint(i), Stored: true, Mode: 0o100644})
	}
	image, err := f.unseal(f.redeem(f.put(alice, z.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	path, target := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	withMounts(t, func() {
		if err := unix.Mount(path, target, "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
			t.Errorf("mount: %v", err)
			return
		}
		seen := 0
		err := filepath.WalkDir(target, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			seen++
			var folder, i int
			if _, err := fmt.Sscanf(strings.TrimPrefix(path, target+"/"), "d%d/module%d.py", &folder, &i); err != nil || folder != i%folders {
				return fmt.Errorf("the file %s: %w", path, err)
			}
			if content, err := os.ReadFile(path); err != nil || string(content) != fmt.Sprint(i) {
				return fmt.Errorf("%s holds %q: %w", path, content, err)
			}
			return nil
		})
		if err != nil || seen != files {
			t.Errorf("%d of %d files are there: %v", seen, files, err)
		}
	})
}

// FuzzAPackageBecomesTheImageOfItsFiles takes any bytes for a package: what is taken is, read by another
// implementation of the image's format, the files that the zip holds.
func FuzzAPackageBecomesTheImageOfItsFiles(f *testing.F) {
	for _, c := range ziptest.Hostile() {
		if len(c.Zip) < 4_000 {
			f.Add(c.Zip)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := zip.Read(data)
		if err != nil {
			return // FuzzRead judges refusals
		}
		image, err := buildImage(t.Context(), entries)
		if err != nil {
			if !zip.IsRefusal(err) {
				t.Errorf("an error that is no refusal: %v", err)
			}
			return
		}
		defer image.file.Close()
		tree, err := goerofs.Open(image.file)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !fs.ValidPath(e.Path) {
				continue // package fs has no such names; the kernel's test has
			}
			if got, err := contentIn(tree, e); err != nil || got != wantedOf(t, e) {
				t.Errorf("%q is %q, %v", e.Path, got, err)
			}
		}
	})
}

func contentIn(tree fs.FS, e erofs.Entry) (string, error) {
	switch e.Mode.Type() {
	case fs.ModeDir:
		info, err := fs.Stat(tree, e.Path)
		if err != nil || !info.IsDir() {
			return "no directory", err
		}
		return "", nil
	case fs.ModeSymlink:
		return fs.ReadLink(tree, e.Path)
	}
	b, err := fs.ReadFile(tree, e.Path)
	return string(b), err
}

func wantedOf(t *testing.T, e erofs.Entry) string {
	if e.Open == nil {
		return e.Target
	}
	r, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
