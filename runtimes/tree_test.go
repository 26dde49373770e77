package runtimes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTheKeyOfATreeFollowsEverythingThatGoesIn(t *testing.T) {
	host := filepath.Join(t.TempDir(), "file")
	write := func(content string, mode fs.FileMode, at time.Time) {
		t.Helper()
		if err := os.WriteFile(host, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chmod(host, mode), os.Chtimes(host, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	keyOf := func(change func(*tree)) string {
		t.Helper()
		tr := newTree()
		tr.directory("/etc")
		tr.content("/etc/text", []byte("text"))
		tr.link("/bin", "usr/bin")
		if change != nil {
			change(tr)
		}
		if err := tr.file("/copy", host); err != nil {
			t.Fatal(err)
		}
		return tr.key()
	}
	write("content", 0o644, noon)
	original := keyOf(nil)
	if again := keyOf(nil); again != original {
		t.Error("the same tree has another key")
	}
	keys := map[string]string{original: "nothing"}
	different := func(what, key string) {
		t.Helper()
		if other, dup := keys[key]; dup {
			t.Errorf("a change of %s gives the same key as a change of %s", what, other)
		}
		keys[key] = what
	}
	different("text", keyOf(func(tr *tree) { tr.content("/etc/text", []byte("Text")) }))
	different("a link", keyOf(func(tr *tree) { tr.link("/bin", "usr/sbin") }))
	different("the names", keyOf(func(tr *tree) { tr.directory("/etc/more") }))
	write("content", 0o755, noon)
	different("a mode", keyOf(nil))
	write("content", 0o644, noon.Add(time.Nanosecond))
	different("a time", keyOf(nil))
	write("longer content", 0o644, noon)
	different("a size", keyOf(nil))
}

func TestACopiedFileLosesAllOfItsModeButBeingAProgram(t *testing.T) {
	host := filepath.Join(t.TempDir(), "file")
	for mode, want := range map[fs.FileMode]fs.FileMode{0o600: 0o644, 0o666: 0o644, 0o700: 0o755, 0o777 | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky: 0o755} {
		if err := os.WriteFile(host, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(host, mode); err != nil {
			t.Fatal(err)
		}
		tr := newTree()
		if err := tr.file("/program", host); err != nil {
			t.Fatal(err)
		}
		if got := tr.entries["program"].Mode; got != want {
			t.Errorf("mode %v became %v, want %v", mode, got, want)
		}
	}
	if err := newTree().file("/folder", t.TempDir()); err == nil {
		t.Error("a folder was taken for a file")
	}
}

func TestAFolderIsCopiedWithoutWhatIsNotWanted(t *testing.T) {
	host := t.TempDir()
	for _, name := range []string{"a.py", "tests/t.py", "pkg/b.py"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(host, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(host, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link.py": "a.py", "dangling": "nowhere", "up": "/etc"} {
		if err := os.Symlink(target, filepath.Join(host, name)); err != nil {
			t.Fatal(err)
		}
	}
	tr := newTree()
	if err := tr.folder("/lib", host, func(relative string, d fs.DirEntry) bool { return d.Name() != "tests" }); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(func() (names []string) {
		for _, e := range tr.list() {
			names = append(names, e.Path)
		}
		return names
	}())
	if want := "[lib lib/a.py lib/link.py lib/pkg lib/pkg/b.py]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestTheLoadersConfigurationIsReadWithItsIncludes(t *testing.T) {
	folder := t.TempDir()
	for name, content := range map[string]string{
		"main.conf": "# comment\n/first # more\ninclude sub/*.conf\n\nrelative\n/last\n", "sub/b.conf": "/b\n", "sub/a.conf": "/a\n",
		"loop.conf": "include loop.conf\n",
	} {
		if err := os.MkdirAll(filepath.Join(folder, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, left := &libraries{}, maxLoaderIncludes
	if err := l.configure(filepath.Join(folder, "main.conf"), &left); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(l.directories); got != "[/first /a /b /last]" {
		t.Errorf("directories %s", got)
	}
	if err := l.configure(filepath.Join(folder, "loop.conf"), &left); err == nil {
		t.Error("a file that includes itself was read to its end")
	}
}

func TestAProgramInUsrBinComesBeforeThePath(t *testing.T) {
	folder := t.TempDir()
	sh := findProgram("sh")
	for name, content := range map[string][]byte{"sh": read(t, sh), "own": read(t, sh), "cloister-shim": []byte("#!/bin/sh\n")} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", "relative:"+folder)
	for name, want := range map[string]string{"sh": sh, "own": filepath.Join(folder, "own"), "cloister-shim": "", "no-such-program": ""} {
		if got := findProgram(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
