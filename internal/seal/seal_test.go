package seal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testRoot is a root key of zeros.
func testRoot() *Root { return newRoot(make([]byte, KeySize)) }

func TestTheRootKeyIsMadeOnceAndFoundAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	first, err := LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 || info.Size() != KeySize {
		t.Errorf("the key file is %v, %v; want %d bytes of mode 0600", info, err, KeySize)
	}
	second, err := LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.secret(), second.secret()) {
		t.Error("the second start has another key")
	}
}

func TestConcurrentFirstStartsAgreeOnOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	roots := make([]*Root, 8)
	var all sync.WaitGroup
	for i := range roots {
		all.Go(func() {
			r, err := LoadOrCreate(path)
			if err != nil {
				t.Error(err)
			}
			roots[i] = r
		})
	}
	all.Wait()
	for _, r := range roots {
		if r == nil || roots[0] == nil || !bytes.Equal(r.secret(), roots[0].secret()) {
			t.Fatal("two first starts have different keys")
		}
	}
}

func TestARootKeyFileThatIsNotAsWrittenIsRefused(t *testing.T) {
	key := make([]byte, KeySize)
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"readable by the group": {func(p string) error { return writeMode(p, key, 0o640) }, "mode"},
		"readable by all":       {func(p string) error { return writeMode(p, key, 0o604) }, "mode"},
		"executable":            {func(p string) error { return writeMode(p, key, 0o700) }, "mode"},
		"set user id":           {func(p string) error { return writeMode(p, key, 0o600|fs.ModeSetuid) }, "mode"},
		"empty":                 {func(p string) error { return writeMode(p, nil, 0o600) }, "0 bytes"},
		"a byte short":          {func(p string) error { return writeMode(p, key[1:], 0o600) }, "31 bytes"},
		"a byte long":           {func(p string) error { return writeMode(p, append(key, '\n'), 0o600) }, "33 bytes"},
		"a directory":           {func(p string) error { return os.Mkdir(p, 0o600) }, "regular"},
		"a pipe":                {func(p string) error { return syscall.Mkfifo(p, 0o600) }, "regular"},
		"a symbolic link": {func(p string) error {
			return errors.Join(writeMode(p+".real", key, 0o600), os.Symlink(p+".real", p))
		}, "symbolic link"},
		"a dangling symbolic link": {func(p string) error { return os.Symlink(p+".missing", p) }, "symbolic link"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "root.key")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			for _, load := range []func(string) (*Root, error){Load, LoadOrCreate} {
				if r, err := load(path); r != nil || err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, %v; want an error about %q", r, err, c.want)
				}
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gave %v, want fs.ErrNotExist", err)
	}
}

func writeMode(path string, data []byte, mode fs.FileMode) error {
	return errors.Join(os.WriteFile(path, data, 0o600), os.Chmod(path, mode))
}

func TestSealedBytesOpenOnlyUnchangedAndInTheirPlace(t *testing.T) {
	root := testRoot()
	key, plain, place := root.Key("test"), []byte("the secret"), Bind("table", "row")
	sealed := key.Seal(nil, plain, place)
	if len(sealed) != len(plain)+Overhead {
		t.Errorf("sealed has %d bytes, want %d more than %d", len(sealed), Overhead, len(plain))
	}
	got, err := root.Key("test").Open(nil, sealed, place)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("Open gave %q, %v", got, err)
	}
	refused := func(what string, key *Key, sealed, place []byte) {
		t.Helper()
		if got, err := key.Open(nil, sealed, place); !errors.Is(err, ErrCorrupt) || got != nil {
			t.Errorf("%s: Open gave %q, %v; want ErrCorrupt", what, got, err)
		}
	}
	for i := range sealed {
		for bit := range 8 {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d flipped", bit, i), key, changed, place)
		}
		refused(fmt.Sprintf("cut to %d bytes", i), key, sealed[:i], place)
	}
	refused("a byte more", key, append(bytes.Clone(sealed), 0), place)
	refused("another row", key, sealed, Bind("table", "other"))
	refused("another purpose", root.Key("other"), sealed, place)
	refused("a derived key", key.Derive("part"), sealed, place)
	refused("another root", newRoot(NewSecret()).Key("test"), sealed, place)
}

func TestTheSamePlaintextNeverSealsTheSameTwice(t *testing.T) {
	key := testRoot().Key("test")
	seen := map[string]bool{}
	for range 1000 {
		seen[string(key.Seal(nil, nil, nil))] = true
	}
	if len(seen) != 1000 {
		t.Errorf("1000 sealings gave %d different results", len(seen))
	}
}

// The key bytes are pinned: another derivation would lose every installation's data.
func TestDerivedKeysNeverChange(t *testing.T) {
	key := testRoot().Key("test")
	got := []string{hex.EncodeToString(key.secret()), hex.EncodeToString(key.Derive("part").secret())}
	want := []string{
		"c86caa7634c5ae751964b7abc94f76341b56920ea0b69a9ec1833c377a54cdbd",
		"1de99d5b39539be9d1bd50596155f3f6fc63018418ef6c9d7ac38710356fdde2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("derived keys (-want +got):\n" + diff)
	}
}

func TestASumDependsOnKeyAndMessage(t *testing.T) {
	root := testRoot()
	sum := root.Key("test").Sum([]byte("message"))
	if sum != root.Key("test").Sum([]byte("message")) {
		t.Error("the same key and message have two sums")
	}
	if sum == root.Key("test").Sum([]byte("messagf")) || sum == root.Key("other").Sum([]byte("message")) {
		t.Error("another message or key has the same sum")
	}
}

func TestNoTwoListsOfPartsBindAlike(t *testing.T) {
	long := strings.Repeat("x", 200)
	lists := [][]string{{}, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"", "ab"}, {"ab", ""}, {"\x02ab"}, {"\x01a\x01b"},
		{long}, {long, ""}, {long[1:], "x"}}
	seen := map[string][]string{}
	for _, l := range lists {
		b := string(Bind(l...))
		if other, dup := seen[b]; dup {
			t.Errorf("%q and %q bind to the same bytes", l, other)
		}
		seen[b] = l
	}
}

func TestKeysAreNeverPrinted(t *testing.T) {
	secret := bytes.Repeat([]byte{0xAB}, KeySize)
	key, err := NewKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(secret)
	holder := struct {
		Root *Root
		Key  *Key
		root *Root
		key  *Key
	}{root, key, root, key}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%U", "%c"} {
		fmt.Fprintf(&out, verb+verb+verb+"\n", root, key, holder)
	}
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	logger.Info("keys", "root", root, "key", key, "holder", holder)
	slog.New(slog.NewTextHandler(&out, nil)).Info("keys", "root", root, "key", key, "holder", holder)
	fmt.Fprintln(&out, root.String(), key.String())
	text := strings.ToLower(out.String())
	for _, leak := range []string{"ababab", "171 171 171", "\\xab\\xab\\xab", "10101011 10101011", "253 253 253"} {
		if strings.Contains(text, leak) {
			t.Errorf("output holds key bytes as %q:\n%s", leak, text)
		}
	}
}

func TestASealedFileOpensOnlyUnderItsOwnName(t *testing.T) {
	key := testRoot().Key("test")
	path := filepath.Join(t.TempDir(), "file")
	want := []byte("the administrator's key")
	if err := key.WriteFile(path, "administrator", want); err != nil {
		t.Fatal(err)
	}
	got, err := key.ReadFile(path, "administrator")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("ReadFile gave %q, %v", got, err)
	}
	if raw, _ := os.ReadFile(path); bytes.Contains(raw, want[:8]) {
		t.Error("the file holds plaintext")
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v; want mode 0600", info, err)
	}
	if _, err := key.ReadFile(path, "other"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("under another name ReadFile gave %v, want ErrCorrupt", err)
	}
	if err := os.Truncate(path, 20); err != nil {
		t.Fatal(err)
	}
	if _, err := key.ReadFile(path, "administrator"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut, ReadFile gave %v, want ErrCorrupt", err)
	}
	if _, err := key.ReadFile(path+".none", "administrator"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing, ReadFile gave %v, want fs.ErrNotExist", err)
	}
	if err := key.WriteFile(path, "administrator", make([]byte, maxFileBytes+1)); err == nil {
		t.Error("a file over the limit was written")
	}
}
