package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestAWrittenFileHasItsBytesAndMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, content := range []string{"first", "second, longer", ""} {
		if err := WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != content || info.Mode() != 0o640 {
			t.Errorf("got %q with mode %v, want %q with 0640", got, info.Mode(), content)
		}
	}
	onlyEntry(t, filepath.Dir(path), "file")
}

func TestANewFileNeverReplacesAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := WriteNewFile(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteNewFile(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second WriteNewFile gave %v, want fs.ErrExist", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "first" {
		t.Errorf("the file holds %q, want what was written first", got)
	}
	onlyEntry(t, filepath.Dir(path), "file")
}

func TestANameIsNotSeenBeforeCommit(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "file")
	f, err := Create(directory, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before Commit the name gave %v, want fs.ErrNotExist", err)
	}
	if err := f.Commit(path); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(path); err == nil {
		t.Error("a second Commit succeeded")
	}
	f.Abort()
	onlyEntry(t, directory, "file")
}

func TestAbortAndFailedCommitLeaveNothing(t *testing.T) {
	directory := t.TempDir()
	f, err := Create(directory, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Abort()
	f, err = Create(directory, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(filepath.Join(directory, "missing", "file")); err == nil {
		t.Error("Commit into a missing directory succeeded")
	}
	onlyEntry(t, directory)
}

func TestSweepRemovesOnlyTemporaryFiles(t *testing.T) {
	directory := t.TempDir()
	f, err := Create(directory, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.file.Close() // as if the process had been killed
	if err := WriteFile(filepath.Join(directory, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(directory); err != nil {
		t.Fatal(err)
	}
	onlyEntry(t, directory, "kept")
}

func TestMakeDirectoryMakesWhatIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 {
		if err := MakeDirectory(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the parent is %v, %v; want mode 0700", info, err)
	}
	file := filepath.Join(path, "file")
	if err := WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MakeDirectory(filepath.Join(file, "below"), 0o700); err == nil {
		t.Error("a directory below a file was made")
	}
	for range 2 {
		if err := Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	onlyEntry(t, path)
}

// onlyEntry checks that a directory holds exactly these names.
func onlyEntry(t *testing.T, directory string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Fatalf("%s holds %v, want %v", directory, entries, want)
	}
	for i, e := range entries {
		if e.Name() != want[i] {
			t.Errorf("%s holds %s, want %s", directory, e.Name(), want[i])
		}
	}
}
