package zip

import (
	archivezip "archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloister/artifact/erofs"
	"cloister/artifact/zip/ziptest"
	"cloister/lambda"
)

// corpus is made once.
var corpus = sync.OnceValue(ziptest.Hostile)

// readAll reads a zip with all its contents, as package artifact does.
func readAll(data []byte) (map[string]string, error) {
	entries, err := Read(data)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, e := range entries {
		content := e.Target
		if e.Open != nil {
			b, err := readEntry(e)
			if err != nil {
				return nil, err
			}
			content = string(b)
		}
		found[e.Path] = fmt.Sprintf("%v %s", e.Mode, content)
	}
	return found, nil
}

func readEntry(e erofs.Entry) ([]byte, error) {
	r, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err == nil && int64(len(b)) != e.Size {
		err = fmt.Errorf("%q gave %d bytes, declared are %d", e.Path, len(b), e.Size)
	}
	return b, err
}

func TestHostileZipsAreRefusedWithAWSsTexts(t *testing.T) {
	refused, names := 0, map[string]bool{}
	zips := map[string]string{}
	for _, c := range corpus() {
		if names[c.Name] {
			t.Errorf("two cases are named %q", c.Name)
		}
		names[c.Name] = true
		if twin := zips[string(c.Zip)]; twin != "" {
			t.Errorf("%q and %q are the same zip", twin, c.Name)
		}
		zips[string(c.Zip)] = c.Name
		t.Run(c.Name, func(t *testing.T) {
			got, err := readAll(c.Zip)
			if c.Message == "" {
				if err != nil {
					t.Fatalf("a good zip is refused: %v", err)
				}
				if !maps.Equal(c.Tree, got) {
					t.Errorf("tree (-want +got):\n%.2000s", cmp.Diff(map[string]string(c.Tree), got))
				}
				return
			}
			refused++
			e, ok := errors.AsType[*lambda.Error](err)
			if !ok || e.Kind != lambda.InvalidParameter || e.Message != c.Message {
				t.Fatalf("got %v,\nwant a refusal with %q", err, c.Message)
			}
			if c.Message == ziptest.CouldNotUnzip && (e.Err == nil || !strings.HasPrefix(e.Err.Error(), c.Cause)) {
				t.Errorf("refused because of %v, want %q", e.Err, c.Cause)
			}
		})
	}
	if refused < 60 {
		t.Errorf("the corpus has %d hostile zips, want at least 60", refused)
	}
}

// A control for the corpus: these are bombs for a reader that is less strict.
func TestTheOverlappingZipsAreBombsForArchiveZip(t *testing.T) {
	for name, data := range map[string][]byte{"full": ziptest.FullOverlap(200), "quoted": ziptest.QuotedOverlap(50), "extra": ziptest.ExtraOverlap(50)} {
		reader, err := archivezip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		total := int64(0)
		for _, file := range reader.File {
			r, err := file.Open()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			n, err := io.Copy(io.Discard, r)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, file.Name, err)
			}
			total += n
		}
		if total < 50<<20 || int64(len(data))*1000 > total {
			t.Errorf("%s: %d bytes hold %d", name, len(data), total)
		}
	}
}

func TestTheZippedLimitIsAWSs(t *testing.T) {
	_, err := Read(make([]byte, ZippedLimit))
	if lambda.KindOf(err) != lambda.TooLarge || !strings.Contains(err.Error(), "Zipped size must be smaller than 52428800 bytes") {
		t.Errorf("got %v, want AWS's text of kind TooLarge", err)
	}
	if _, err := Read(make([]byte, ZippedLimit-1)); lambda.KindOf(err) != lambda.InvalidParameter {
		t.Errorf("a byte below the limit gave %v, want that it is no zip", err)
	}
}

func TestModesAreNormalised(t *testing.T) {
	for mode, want := range map[uint32]fs.FileMode{
		0: 0o644, 0o100644: 0o644, 0o100600: 0o644, 0o100000: 0o644, 0o100400: 0o644, 0o100666: 0o644,
		0o100755: 0o755, 0o100700: 0o755, 0o100001: 0o755, 0o106755: 0o755, 0o101644: 0o644, 0o755: 0o755,
	} {
		entries, err := Read(ziptest.Zip{Files: []ziptest.File{{Name: "f", Content: "x", Mode: mode}, {Name: "d/", Mode: mode&0o7777 | 0o040000}}}.Bytes())
		if err != nil {
			t.Errorf("mode %o: %v", mode, err)
			continue
		}
		if got := entries[0].Mode; got != want {
			t.Errorf("mode %o became %v, want %v", mode, got, want)
		}
		if got := entries[1].Mode; got != fs.ModeDir|0o755 {
			t.Errorf("directory mode %o became %v, want 0755", mode, got)
		}
	}
}

// sourceTree is a directory that other tools pack, and what must come of it.
func sourceTree(t *testing.T) (directory string, want map[string]string) {
	t.Helper()
	directory = t.TempDir()
	long := strings.Repeat("text ", 10_000)
	err := errors.Join(
		os.Mkdir(filepath.Join(directory, "lib"), 0o755),
		os.Mkdir(filepath.Join(directory, "void"), 0o755),
		os.WriteFile(filepath.Join(directory, "bootstrap"), []byte("#!/bin/sh\n"), 0o755),
		os.WriteFile(filepath.Join(directory, "lib/a.py"), []byte(long), 0o600),
		os.WriteFile(filepath.Join(directory, "lib/empty"), nil, 0o644),
		os.WriteFile(filepath.Join(directory, "caf\u00e9 日本.py"), []byte("x"), 0o644),
		os.Symlink("../bootstrap", filepath.Join(directory, "lib/link")))
	if err != nil {
		t.Fatal(err)
	}
	return directory, map[string]string{
		"bootstrap":       "-rwxr-xr-x #!/bin/sh\n",
		"caf\u00e9 日本.py": "-rw-r--r-- x",
		"lib/a.py":        "-rw-r--r-- " + long,
		"lib/empty":       "-rw-r--r-- ",
		"lib/link":        "Lrwxrwxrwx ../bootstrap",
		"lib":             "drwxr-xr-x ",
		"void":            "drwxr-xr-x ",
	}
}

// pythonPack writes a zip of the working directory to its argument or to standard output.
const pythonPack = `
import sys, zipfile, os
z = zipfile.ZipFile(sys.stdout.buffer if sys.argv[1] == '-' else sys.argv[1], 'w', zipfile.ZIP_DEFLATED)
for d, ds, fs in os.walk('.'):
    for n in ds + fs:
        if not os.path.islink(os.path.join(d, n)):
            z.write(os.path.join(d, n))
i = zipfile.ZipInfo('lib/link')
i.create_system, i.external_attr = 3, 0o120777 << 16
z.writestr(i, '../bootstrap')
z.close()`

// Real tools write what real users upload.
func TestZipsOfOtherToolsAreTaken(t *testing.T) {
	source, all := sourceTree(t)
	for name, c := range map[string]struct {
		script string   // $0 is where the zip goes
		lacks  []string // what the tool cannot write or leaves out
	}{
		"Info-ZIP":             {"zip -qry $0 .", nil},
		"Info-ZIP to a pipe":   {"zip -qry - . -x lib/link | cat > $0", []string{"lib/link"}},
		"Info-ZIP with zip64":  {"zip -qry -fz $0 .", nil},
		"Info-ZIP, stored":     {"zip -qry0 $0 .", nil},
		"Info-ZIP, no dirs":    {"zip -qryD $0 .", []string{"lib", "void"}},
		"Info-ZIP, no extras":  {"zip -qryX $0 .", nil},
		"Info-ZIP with a note": {"echo note | zip -qryz $0 . > /dev/null", nil},
		"Python":               {`python3 -c "$1" $0`, nil},
		"Python to a pipe":     {`python3 -c "$1" - | cat > $0`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.zip")
			pack := exec.Command("sh", "-c", c.script, out, pythonPack)
			pack.Dir = source
			if text, err := pack.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			data, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(data)
			if err != nil {
				t.Fatal(err)
			}
			want := maps.Clone(all)
			for _, name := range c.lacks {
				delete(want, name)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error("files (-want +got):\n" + diff)
			}
		})
	}
}

func TestZipsOfGoAreTaken(t *testing.T) {
	var b bytes.Buffer
	w := archivezip.NewWriter(&b)
	want := map[string]string{}
	for i := range 70_000 { // more than fit without zip64
		f, err := w.Create(fmt.Sprint("d/", i))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, i)
		want[fmt.Sprint("d/", i)] = fmt.Sprint("-rw-r--r-- ", i)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := readAll(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(want, got) {
		t.Errorf("files (-want +got):\n%.2000s", cmp.Diff(want, got))
	}
}

// What is refused must not cost what it claims: the corpus claims gigabytes.
func TestHostileZipsCostLittleMemory(t *testing.T) {
	for _, c := range corpus() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		entries, err := Read(c.Zip)
		for _, e := range entries {
			if e.Open != nil && err == nil {
				err = drain(e)
			}
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 128<<20 {
			t.Errorf("%s: %d MiB allocated for a zip of %d bytes (%v)", c.Name, used>>20, len(c.Zip), err)
		}
	}
}

func drain(e erofs.Entry) error {
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

func TestTargetsStayInsideByAnyRoute(t *testing.T) {
	for target, inside := range map[string]bool{
		"x": true, "./x": true, "..": true, "../..": true, "../../x/y": true, "../.././x": true, "x/./y/": true,
		"": false, "/": false, "/x": false, "../../..": false, "../../../x": false, "x/..": false, "x/../y": false,
		"../x/../y": false, "./../../../x": false, "..//../..": false, "a\x00": false,
	} {
		if err := checkTarget("a/b/link", target); (err == nil) != inside {
			t.Errorf("a/b/link to %q: %v, want inside %v", target, err, inside)
		}
	}
}

// FuzzRead compares with archive/zip: what we take, it reads as the same files.
func FuzzRead(f *testing.F) {
	for _, c := range corpus() {
		if len(c.Zip) < 10_000 {
			f.Add(c.Zip)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readAll(data)
		if err != nil {
			if !IsRefusal(err) {
				t.Errorf("an error that is no refusal: %v", err)
			}
			return
		}
		reader, err := archivezip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatalf("archive/zip refuses what we take: %v", err)
		}
		seen := map[string]bool{}
		for _, file := range reader.File {
			name := path.Clean(file.Name)
			if seen[name] = true; name == "." || strings.HasSuffix(file.Name, "/") {
				continue
			}
			r, err := file.Open()
			if err != nil {
				t.Fatalf("archive/zip does not open %q: %v", file.Name, err)
			}
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatalf("archive/zip does not read %q: %v", file.Name, err)
			}
			if _, ours, _ := strings.Cut(got[name], " "); ours != string(content) {
				t.Errorf("%q differs from archive/zip", name)
			}
		}
		for name := range got {
			if !seen[name] || name[0] == '/' || strings.Contains("/"+name+"/", "/../") {
				t.Errorf("the path %q came out of nowhere", name)
			}
		}
	})
}
