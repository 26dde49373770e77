package test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cloister/test/service"
)

// sealedFiles are the files of one kind in the artifact store, "image" or "zip", with their contents.
func sealedFiles(t *testing.T, s *service.Service, kind string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := filepath.WalkDir(filepath.Join(s.Data, "front", "state", "artifacts", kind), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		found[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// newSealedFile is the one that there was not before.
func newSealedFile(t *testing.T, s *service.Service, before map[string][]byte) (path string, content []byte) {
	t.Helper()
	for p, c := range sealedFiles(t, s, "image") {
		if _, old := before[p]; !old {
			if path != "" {
				t.Fatalf("two new images: %s and %s", path, p)
			}
			path, content = p, c
		}
	}
	if path == "" {
		t.Fatal("no new image")
	}
	return path, content
}

// withNoise is a package of several sealed chunks whose code says so when it is loaded.
func withNoise(text string) map[string][]byte {
	noise := make([]byte, 1_500_000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	return map[string][]byte{"noise": noise, "app.py": []byte("print('" + text + "')\ndef handler(event, context):\n    return '" + text + "'\n")}
}

// noRetries makes the CLI report the first answer.
func noRetries(s *service.Service) { s.Environ = append(s.Environ, "AWS_MAX_ATTEMPTS=1") }

func TestAFlippedByteOfStoredCodeIsRefusedBeforeTheFunctionSeesIt(t *testing.T) {
	s := start(t)
	create(t, s, "neighbour", app)
	invoke(t, s, "neighbour", `{"name":"a"}`)
	create(t, s, "other", app) // cold, of the same code
	before := sealedFiles(t, s, "image")
	create(t, s, "victim", withNoise("loaded"))
	path, good := newSealedFile(t, s, before)
	noRetries(s)
	answer := filepath.Join(t.TempDir(), "answer")
	cold := func() error {
		_, err := s.AWS(t.Context(), "lambda", "invoke", "--function-name", "victim", answer)
		return err
	}
	for _, at := range []int{9, 40, 100, len(good) / 2, len(good) - 1} { // header, lock, and chunks
		bad := bytes.Clone(good)
		bad[at] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, cold(), "ServiceException")
		if got := invoke(t, s, "neighbour", `{"name":"b"}`); !strings.Contains(got, "Hello, b") {
			t.Errorf("beside damaged code a warm function answered %s", got)
		}
	}
	if got := invoke(t, s, "other", `{"name":"c"}`); !strings.Contains(got, "Hello, c") {
		t.Errorf("beside damaged code a cold function answered %s", got)
	}
	if groups := must(t)(s.AWS(t.Context(), "logs", "describe-log-groups", "--query", "logGroups[].logGroupName", "--output", "text")); strings.Contains(groups, "victim") {
		t.Errorf("the function was started: %s", logText(t, s, "/aws/lambda/victim"))
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := invoke(t, s, "victim", "{}"); got != `"loaded"` {
		t.Errorf("with its code whole again it answered %s", got)
	}
	// A control: the log would have shown a start.
	eventually(t, "the function's log did not arrive", func() bool {
		_, err := s.AWS(t.Context(), "logs", "describe-log-streams", "--log-group-name", "/aws/lambda/victim")
		return err == nil && strings.Contains(logText(t, s, "/aws/lambda/victim"), "loaded")
	})
	if n := strings.Count(logText(t, s, "/aws/lambda/victim"), "INIT_START"); n != 1 {
		t.Errorf("the function was started %d times, want once", n)
	}
}

func TestUploadingTheSamePackageRepairsIt(t *testing.T) {
	s := start(t)
	before := sealedFiles(t, s, "image")
	files := withNoise("whole")
	create(t, s, "f", files)
	path, content := newSealedFile(t, s, before)
	content[len(content)/2] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t)(s.AWS(t.Context(), "lambda", "update-function-code", "--function-name", "f", "--zip-file", "fileb://"+writeZip(t, files)))
	must(t)(s.AWS(t.Context(), "lambda", "wait", "function-updated-v2", "--function-name", "f"))
	if got := invoke(t, s, "f", "{}"); got != `"whole"` {
		t.Errorf("answered %s", got)
	}
}

func TestAFullDiskRefusesPackagesInWordsForTheOperator(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	if err := errors.Join(os.Mkdir(data, 0o755), unix.Mount("tmpfs", data, "tmpfs", 0, "size=1g")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the service has ended
		if err := unix.Unmount(data, 0); err != nil {
			t.Error(err)
		}
	})
	s := start(t, func(c *service.Config) { c.Data = data })
	create(t, s, "f", app)
	invoke(t, s, "f", `{"name":"a"}`)
	noRetries(s)
	images, zips := sealedFiles(t, s, "image"), sealedFiles(t, s, "zip")
	filler := fill(t, data, 1<<20)
	zip := "fileb://" + writeZip(t, withNoise("large"))
	const words = "disk of this Cloister installation is full"
	_, err := s.AWS(t.Context(), "lambda", "create-function", "--function-name", "g", "--runtime", python(), "--handler", "app.handler",
		"--role", roleOf(t, s, "f"), "--zip-file", zip)
	refused(t, err, "ServiceException", words)
	_, err = s.AWS(t.Context(), "lambda", "update-function-code", "--function-name", "f", "--zip-file", zip)
	refused(t, err, "ServiceException", words)
	if left, err := os.ReadDir(filepath.Join(data, "front", "state", "artifacts", "temporary")); err != nil || len(left) != 0 {
		t.Errorf("half a file is left: %v, %v", left, err)
	}
	if a, b := len(sealedFiles(t, s, "image")), len(sealedFiles(t, s, "zip")); a != len(images) || b != len(zips) {
		t.Errorf("%d images and %d zips, there were %d and %d", a, b, len(images), len(zips))
	}
	if got := invoke(t, s, "f", `{"name":"b"}`); !strings.Contains(got, "Hello, b") {
		t.Errorf("on a full disk the function answered %s", got)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	must(t)(s.AWS(t.Context(), "lambda", "update-function-code", "--function-name", "f", "--zip-file", zip))
	must(t)(s.AWS(t.Context(), "lambda", "wait", "function-updated-v2", "--function-name", "f"))
	if got := invoke(t, s, "f", "{}"); got != `"large"` {
		t.Errorf("with room again the function answered %s", got)
	}
}

// fill leaves that many bytes free where the directory lies.
func fill(t *testing.T, directory string, leave uint64) (path string) {
	t.Helper()
	var stat unix.Statfs_t
	if err := unix.Statfs(directory, &stat); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(directory, "worker", "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(stat.Bavail*uint64(stat.Bsize)-leave)); err != nil {
		t.Fatal(fmt.Errorf("fill the disk: %w", err))
	}
	return f.Name()
}

// roleOf is the execution role of a function.
func roleOf(t *testing.T, s *service.Service, function string) string {
	t.Helper()
	return must(t)(s.AWS(t.Context(), "lambda", "get-function-configuration", "--function-name", function, "--query", "Role", "--output", "text"))
}
