package artifact

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloister/artifact/zip"
	"cloister/artifact/zip/ziptest"
	"cloister/internal/seal"
	"cloister/lambda"
)

// Bounds of what one upload may cost, whatever it holds. The memory is the process's resident set, the
// upload itself included; the image, which is in a memory file, is bounded by its size.
const (
	maxResidentMiB   = 256
	maxProcessorTime = 30 * time.Second
)

// A cost is what a process of its own says about one upload.
type cost struct {
	Kind        lambda.Kind // of the error
	Error       string      // "" if it was taken
	ImageBytes  int64
	ResidentMiB int // the most there ever was
	used        time.Duration
}

// Variables of a child process of these tests: the file that it is to store, and whether it first reads all
// that is in it, for the control.
const (
	zipOfChild  = "ARTIFACT_TEST_ZIP"
	holdInChild = "ARTIFACT_TEST_HOLD"
)

// store is the child's part: it stores one zip as the front does, in a process that does nothing else.
func store(t *testing.T, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root, err := seal.LoadOrCreate(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Directory: t.TempDir(), Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(holdInChild) != "" {
		defer runtime.KeepAlive(hold(t, data))
	}
	var c cost
	a, _, _, err := s.PutZip(t.Context(), alice, data)
	if c.ImageBytes = a.Size; err != nil {
		c.Kind, c.Error = lambda.KindOf(err), err.Error()
	}
	// Not getrusage: its maximum is that of the process that forked this one, too.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if words := strings.Fields(line); words[0] == "VmHWM:" {
			kib, _ := strconv.Atoi(words[1])
			c.ResidentMiB = kib >> 10
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(c); err != nil {
		t.Fatal(err)
	}
}

// hold unpacks a zip to memory.
func hold(t *testing.T, data []byte) (all [][]byte) {
	entries, err := zip.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// measure has a child process store the zip, and checks what it cost.
func measure(t *testing.T, data []byte) cost {
	t.Helper()
	c := run(t, data)
	if c.ResidentMiB == 0 || c.ResidentMiB > maxResidentMiB*overhead || c.used > maxProcessorTime*overhead {
		t.Errorf("%d MiB resident and %v of a processor, want at most %d MiB and %v", c.ResidentMiB, c.used, maxResidentMiB, maxProcessorTime)
	}
	return c
}

func run(t *testing.T, data []byte) cost {
	t.Helper()
	path := filepath.Join(t.TempDir(), "zip")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAnUploadCostsBoundedMemoryAndTime$")
	child.Env = append(os.Environ(), zipOfChild+"="+path)
	out, err := child.Output()
	var c cost
	if err := errors.Join(err, json.NewDecoder(bytes.NewReader(out)).Decode(&c)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c.used = child.ProcessState.UserTime() + child.ProcessState.SystemTime()
	t.Logf("%d KiB: image of %d MiB, %d MiB resident, %v of a processor, %s", len(data)>>10, c.ImageBytes>>20, c.ResidentMiB, c.used.Round(time.Millisecond), c.Error)
	return c
}

// many is a zip of n files with size bytes each; of every thousand noise bytes do not compress.
// The names are filled up to nameBytes.
func many(n, size, noise, nameBytes int) []byte {
	random := rand.NewChaCha8([32]byte{})
	z := ziptest.Zip{Zip64: n > 0xffff}
	for i := range n {
		b := make([]byte, size)
		for j := 0; j < size; j += 1000 {
			random.Read(b[j:min(size, j+noise)])
		}
		z.Files = append(z.Files, ziptest.File{Name: fmt.Sprintf("d%d/%0*d", i/1000, nameBytes, i), Content: string(b), Stored: noise == 1000, Mode: 0o100644})
	}
	return z.Bytes()
}

// sized is a zip of exactly n bytes.
func sized(n int) []byte {
	content := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(content)
	pack := func(content []byte) []byte {
		return ziptest.Zip{Files: []ziptest.File{{Name: "noise", Content: string(content), Stored: true}}}.Bytes()
	}
	return pack(content[:n-len(pack(nil))])
}

func manyLinks(n, targetBytes int) []byte {
	z := ziptest.Zip{Zip64: true}
	for i := range n {
		z.Files = append(z.Files, ziptest.File{Name: fmt.Sprint(i), Content: strings.Repeat("t", targetBytes), Mode: 0o120777, Stored: true})
	}
	return z.Bytes()
}

func deep(n int) []byte {
	var z ziptest.Zip
	for i := range n {
		z.Files = append(z.Files, ziptest.File{Name: fmt.Sprint(i%400, "/", strings.Repeat("abcdefghijklmnopqr/", 190), i), Content: "x", Stored: true})
	}
	return z.Bytes()
}

func TestAnUploadCostsBoundedMemoryAndTime(t *testing.T) {
	if path := os.Getenv(zipOfChild); path != "" {
		store(t, path)
		return
	}
	const unzipped, zipped = zip.UnzippedLimit, zip.ZippedLimit
	tooMuch := fmt.Sprintf("Unzipped size must be smaller than %d bytes", unzipped)
	for _, c := range []struct {
		name string
		zip  func() []byte
		want string // "" if it is to be taken
	}{
		{"100,000 files", func() []byte { return many(99_900, 1, 0, 1) }, ""},
		{"100,000 files that need a block each", func() []byte { return many(99_900, 2_600, 110, 1) }, ""},
		{"files that fill a block with their inode", func() []byte { return many(64_400, 4_060, 100, 60) }, ""},
		{"names that fill the upload", func() []byte { return many(99_000, 1, 0, 190) }, ""},
		{"paths that fill the upload", func() []byte { return deep(7_000) }, ""},
		{"links that fill what is allowed", func() []byte { return manyLinks(99_000, 165) }, ""},
		{"the most that a package may hold", func() []byte { return many(1, unzipped-1, 150, 1) }, ""},
		{"a byte more than a package may hold", func() []byte { return many(1, unzipped, 150, 1) }, tooMuch},
		{"more than a package may hold in two files", func() []byte { return many(2, unzipped/2, 150, 1) }, tooMuch},
		{"zeros that fill what is allowed", func() []byte { return many(1, unzipped-1, 0, 1) }, ""},
		{"the largest upload", func() []byte { return sized(zipped - 1) }, ""},
		{"a byte more than the largest upload", func() []byte { return sized(zipped) }, fmt.Sprintf("Zipped size must be smaller than %d bytes", zipped)},
		{"a bomb of overlapping entries", func() []byte { return ziptest.QuotedOverlap(200) }, ziptest.CouldNotUnzip},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := measure(t, c.zip())
			if got.Error == "" != (c.want == "") || !strings.Contains(got.Error, c.want) {
				t.Errorf("got %q, want %q", got.Error, c.want)
			}
			kind := lambda.InvalidParameter
			if strings.HasPrefix(c.want, "Zipped") {
				kind = lambda.TooLarge
			}
			if c.want != "" && got.Kind != kind {
				t.Errorf("the error is of kind %v, want %v", got.Kind, kind)
			}
			if got.ImageBytes > 2*unzipped {
				t.Errorf("the image has %d bytes", got.ImageBytes)
			}
		})
	}
}

// A control: whoever holds the contents in memory does not keep the bound.
func TestTheMemoryBoundFindsWhoHoldsAPackageInMemory(t *testing.T) {
	t.Setenv(holdInChild, "yes")
	if got := run(t, many(64_400, 4_060, 100, 60)); got.Error != "" || got.ResidentMiB <= maxResidentMiB {
		t.Errorf("a process that holds 250 MiB has %d MiB resident: the measurement finds nothing (%s)", got.ResidentMiB, got.Error)
	}
}
