package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goerofs "github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"

	"cloister/artifact/zip/ziptest"
	"cloister/internal/seal"
	"cloister/lambda"
)

const (
	alice = "111111111111"
	bob   = "222222222222"
)

// A fixture is a store in a fresh directory with a clock that stands still.
type fixture struct {
	*testing.T
	*Store
	directory string
	now       time.Time
	grace     time.Duration // of the store
}

func fresh(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, directory: filepath.Join(t.TempDir(), "artifacts"), now: time.Unix(1_800_000_000, 0)}
	f.reopen()
	return f
}

func (f *fixture) reopen() {
	f.Helper()
	root, err := seal.LoadOrCreate(filepath.Join(filepath.Dir(f.directory), "root.key"))
	if err != nil {
		f.Fatal(err)
	}
	f.Store, err = Open(Config{Directory: f.directory, Root: root, Now: func() time.Time { return f.now }, Grace: f.grace, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) put(owner string, zip []byte) lambda.Artifact {
	f.Helper()
	a, _, _, err := f.PutZip(f.Context(), owner, zip)
	if err != nil {
		f.Fatal(err)
	}
	return a
}

func (f *fixture) redeem(a lambda.Artifact) Sealed {
	f.Helper()
	g, err := f.Grant(a, "worker", time.Minute)
	if err != nil {
		f.Fatal(err)
	}
	s, err := f.Redeem(f.Context(), g, "worker")
	if err != nil {
		f.Fatal(err)
	}
	return s
}

func (f *fixture) unseal(s Sealed) ([]byte, error) {
	f.Helper()
	r, err := s.Open()
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	err = Unseal(&out, r, s.Key, s.Artifact)
	return out.Bytes(), err
}

// files returns all files of the store, by path.
func (f *fixture) files() map[string][]byte {
	f.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(f.directory, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return all
}

// code is a package of several chunks.
func code(seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	noise := make([]byte, 2_000_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	return ziptest.Zip{Files: []ziptest.File{
		{Name: "bootstrap", Content: "#!/bin/sh\n", Mode: 0o100755},
		{Name: "lib/data", Content: string(noise), Stored: true},
		{Name: "lib/link", Content: "../bootstrap", Mode: 0o120777},
		{Name: "empty/"},
	}}.Bytes()
}

func TestAZipComesOutAsItsImage(t *testing.T) {
	f := fresh(t)
	zip := code(1)
	a, codeSHA256, codeSize, err := f.PutZip(t.Context(), alice, zip)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(zip)
	if codeSHA256 != base64.StdEncoding.EncodeToString(sum[:]) || codeSize != int64(len(zip)) || a.Owner != alice {
		t.Errorf("PutZip gave %v, %q, %d", a, codeSHA256, codeSize)
	}
	image, err := f.unseal(f.redeem(a))
	if err != nil {
		t.Fatal(err)
	}
	if id := sha256.Sum256(image); int64(len(image)) != a.Size || hex.EncodeToString(id[:]) != a.ID {
		t.Errorf("the image has %d bytes and SHA-256 %x, the artifact is %v", len(image), id, a)
	}
	tree, err := goerofs.Open(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		got[p] = fmt.Sprint(info.Mode()&(fs.ModeType|fs.ModePerm), info.Mode().IsDir() || info.Size() > 0)
		return nil
	})
	want := map[string]string{".": "drwxr-xr-x true", "bootstrap": "-rwxr-xr-x true", "empty": "drwxr-xr-x true",
		"lib": "drwxr-xr-x true", "lib/data": "-rw-r--r-- true", "lib/link": "Lrwxrwxrwx true"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("tree: %v (-want +got):\n%s", err, diff)
	}
}

func TestAZipIsTurnedIntoAnImageOnce(t *testing.T) {
	f := fresh(t)
	first := f.put(alice, code(1))
	before := f.files()
	for range builds {
		f.building <- struct{}{} // any further build would wait
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	second, _, _, err := f.PutZip(ctx, alice, code(1))
	if err != nil || second != first {
		t.Errorf("the second PutZip gave %v, %v; want %v", second, err, first)
	}
	f.reopen()
	if third := f.put(alice, code(1)); third != first {
		t.Errorf("after reopening PutZip gave %v, want %v", third, first)
	}
	if diff := cmp.Diff(before, f.files()); diff != "" {
		t.Error("the files have changed")
	}
}

func TestDifferentZipsOfOneTreeShareTheImage(t *testing.T) {
	f := fresh(t)
	one := ziptest.Zip{Files: []ziptest.File{{Name: "a", Content: "x"}, {Name: "b", Content: "y"}}}
	two := ziptest.Zip{Files: []ziptest.File{{Name: "b", Content: "y", Stored: true}, {Name: "a", Content: "x", Mode: 0o100600}}}
	if a, b := f.put(alice, one.Bytes()), f.put(alice, two.Bytes()); a != b {
		t.Errorf("one tree became %v and %v", a, b)
	}
	if n := len(f.files()); n != 3 {
		t.Errorf("%d files, want one image and two zips", n)
	}
}

func TestTwoAccountsShareNothing(t *testing.T) {
	f := fresh(t)
	a, b := f.put(alice, code(1)), f.put(bob, code(1))
	if a.ID != b.ID || a.Owner == b.Owner {
		t.Errorf("artifacts %v and %v", a, b)
	}
	if bytes.Equal(f.redeem(a).Key, f.redeem(b).Key) {
		t.Error("two accounts have one data key")
	}
	files := slices.Collect(maps.Values(f.files()))
	if len(files) != 4 {
		t.Fatalf("%d files, want 4", len(files))
	}
	blocks := map[string]int{}
	for i, content := range files {
		for block := range slices.Chunk(content[headerBytes:], 64) {
			if j, shared := blocks[string(block)]; shared && j != i && len(block) == 64 {
				t.Fatal("two files share bytes")
			}
			blocks[string(block)] = i
		}
	}
	other := f.put(alice, code(2))
	other.Owner = bob
	g, err := f.Grant(other, "worker", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Redeem(t.Context(), g, "worker"); lambda.KindOf(err) != lambda.NotFound {
		t.Errorf("another account's image gave %v, want NotFound", err)
	}
}

func TestNothingPlainIsOnDisk(t *testing.T) {
	f := fresh(t)
	canary := "canary 7fd1c0ffee, not compressed"
	a := f.put(alice, ziptest.Zip{Files: []ziptest.File{{Name: "module_canary.py", Content: canary, Stored: true}}}.Bytes())
	for path, content := range f.files() {
		for _, leak := range []string{canary, canary[:12], "module_canary", a.ID, alice} {
			if bytes.Contains(content, []byte(leak)) || strings.Contains(path, leak) {
				t.Errorf("%s holds %q", path, leak)
			}
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", path, info.Mode(), err)
		}
	}
}

func TestTheZipComesBackForItsOwnerOnly(t *testing.T) {
	f := fresh(t)
	zip := code(1)
	_, sum, _, err := f.PutZip(t.Context(), alice, zip)
	if err != nil {
		t.Fatal(err)
	}
	r, size, err := f.OpenZip(t.Context(), alice, sum)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || size != int64(len(zip)) || !bytes.Equal(got, zip) {
		t.Errorf("OpenZip gave %d of %d bytes, %v", len(got), size, err)
	}
	for _, c := range [][2]string{{bob, sum}, {alice, sum[1:]}, {alice, ""}, {alice, base64.StdEncoding.EncodeToString(make([]byte, 32))}} {
		if _, _, err := f.OpenZip(t.Context(), c[0], c[1]); lambda.KindOf(err) != lambda.NotFound {
			t.Errorf("OpenZip(%q) gave %v, want NotFound", c, err)
		}
	}
	for path, content := range f.files() {
		content[len(content)-1] ^= 1
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r, _, err = f.OpenZip(t.Context(), alice, sum); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err = io.ReadAll(r); lambda.KindOf(err) != lambda.Corrupt || !bytes.HasPrefix(zip, got) {
		t.Errorf("a flipped bit gave %d bytes and %v, want Corrupt", len(got), err)
	}
}

func TestWhatAKilledProcessWasWritingIsSwept(t *testing.T) {
	f := fresh(t)
	left := filepath.Join(f.temporary(), ".durable-123")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after reopening the file is %v", err)
	}
}

func TestConcurrentUploadsOfOneZipAgree(t *testing.T) {
	f := fresh(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			a, _, _, err := f.PutZip(t.Context(), alice, code(1))
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := f.unseal(f.redeem(a)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(f.files()); n != 2 {
		t.Errorf("%d files, want an image and a zip", n)
	}
}

func TestACancelledUploadStops(t *testing.T) {
	f := fresh(t)
	for range builds {
		f.building <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, _, err := f.PutZip(ctx, alice, code(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("PutZip gave %v, want that its time is over", err)
	}
}

func TestAnotherRootKeyFindsNothing(t *testing.T) {
	f := fresh(t)
	a := f.put(alice, code(1))
	if err := os.Remove(filepath.Join(filepath.Dir(f.directory), "root.key")); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	g, err := f.Grant(a, "worker", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Redeem(t.Context(), g, "worker"); lambda.KindOf(err) != lambda.NotFound {
		t.Errorf("Redeem gave %v, want NotFound", err)
	}
}
