package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"cloister/internal/seal"
	"cloister/lambda"
)

const (
	firstChunk  = headerBytes + seal.KeySize + seal.Overhead // images have no note
	sealedChunk = chunkSize + seal.Overhead
)

// damages returns sealed images that are not good any more. Those whose names begin with
// "lock" differ only in the lock, which workers do not open.
func damages(good, foreign []byte) map[string][]byte {
	chunk := func(b []byte, i int) []byte { return b[firstChunk+i*sealedChunk : firstChunk+(i+1)*sealedChunk] }
	swapped, twice, mixed := bytes.Clone(good), bytes.Clone(good), bytes.Clone(good)
	copy(chunk(swapped, 0), chunk(good, 1))
	copy(chunk(swapped, 1), chunk(good, 0))
	copy(chunk(twice, 2), chunk(good, 1))
	copy(chunk(mixed, 1), chunk(foreign, 1))
	all := map[string][]byte{
		"a byte more":          append(bytes.Clone(good), 0),
		"a chunk more":         append(bytes.Clone(good), chunk(good, 0)...),
		"the last byte cut":    good[:len(good)-1],
		"the last chunk cut":   good[:firstChunk+3*sealedChunk],
		"cut in the header":    good[:10],
		"cut in the lock":      good[:headerBytes+10],
		"empty":                nil,
		"two chunks swapped":   swapped,
		"a chunk twice":        twice,
		"a foreign chunk":      mixed,
		"all of another image": foreign,
	}
	for _, i := range []int{0, 8, 9, 11, 15, 19, 23, headerBytes, firstChunk - 1, firstChunk, firstChunk + 20, firstChunk + sealedChunk, len(good) - 1} {
		name := fmt.Sprint("byte ", i, " flipped")
		if headerBytes <= i && i < firstChunk {
			name = "lock " + name
		}
		all[name] = bytes.Clone(good)
		all[name][i] ^= 0x40
	}
	return all
}

func TestADamagedImageIsRefusedBeforeAWrongByteIsWritten(t *testing.T) {
	f := fresh(t)
	a := f.put(alice, code(1))
	s := f.redeem(a)
	image, err := f.unseal(s)
	if err != nil {
		t.Fatal(err)
	}
	good, err1 := os.ReadFile(s.path)
	foreign, err2 := os.ReadFile(f.redeem(f.put(alice, code(2))).path)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for name, bad := range damages(good, foreign) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := Unseal(&out, bytes.NewReader(bad), s.Key, a)
			if lambda.KindOf(err) != lambda.Corrupt && !strings.HasPrefix(name, "lock") {
				t.Errorf("Unseal gave %v, want Corrupt", err)
			}
			if !bytes.HasPrefix(image, out.Bytes()) {
				t.Error("a wrong byte was written")
			}
			if err := os.WriteFile(s.path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			g, err := f.Grant(a, "worker", time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.Redeem(t.Context(), g, "worker")
			if err == nil { // header, lock and length are right
				_, err = f.unseal(got)
			}
			if lambda.KindOf(err) != lambda.Corrupt {
				t.Errorf("Redeem and Unseal gave %v, want Corrupt", err)
			}
		})
	}
}

// FuzzUnseal takes any bytes for a sealed image.
func FuzzUnseal(f *testing.F) {
	secret := make([]byte, seal.KeySize)
	f.Add([]byte{})
	f.Add(append(header{chunkSize: minChunkSize, size: 3, lockBytes: 60}.bytes(), make([]byte, 200)...))
	f.Add(append(header{chunkSize: maxChunkSize, size: maxPlainBytes, lockBytes: maxLockBytes}.bytes(), make([]byte, 2000)...))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		var out bytes.Buffer
		if err := Unseal(&out, bytes.NewReader(sealed), secret, lambda.Artifact{ID: "id", Size: 3}); lambda.KindOf(err) != lambda.Corrupt || out.Len() != 0 {
			t.Errorf("Unseal wrote %d bytes and gave %v", out.Len(), err)
		}
	})
}

func TestUnsealGivesOnlyTheArtifactItWasAskedFor(t *testing.T) {
	f := fresh(t)
	s := f.redeem(f.put(alice, code(1)))
	other := f.redeem(f.put(alice, code(2)))
	for name, change := range map[string]func(*Sealed){
		"another key":    func(s *Sealed) { s.Key = other.Key },
		"another id":     func(s *Sealed) { s.Artifact.ID = other.Artifact.ID },
		"another size":   func(s *Sealed) { s.Artifact.Size++ },
		"another image":  func(s *Sealed) { s.path = other.path },
		"a key cut":      func(s *Sealed) { s.Key = s.Key[1:] },
		"everything new": func(s *Sealed) { s.Key, s.path = other.Key, other.path },
	} {
		changed := s
		change(&changed)
		if out, err := f.unseal(changed); err == nil || len(out) != 0 {
			t.Errorf("%s: Unseal wrote %d bytes and gave %v", name, len(out), err)
		}
	}
	if err := Unseal(brokenWriter{}, mustOpen(t, s), s.Key, s.Artifact); !errors.Is(err, errBroken) {
		t.Errorf("a broken writer gave %v", err)
	}
	if err := Unseal(io.Discard, io.MultiReader(io.LimitReader(mustOpen(t, s), 1000), brokenReader{}), s.Key, s.Artifact); !errors.Is(err, errBroken) {
		t.Errorf("a broken reader gave %v", err)
	}
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

func mustOpen(t *testing.T, s Sealed) io.Reader {
	t.Helper()
	r, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestADamagedFileIsReplacedByTheNextUpload(t *testing.T) {
	f := fresh(t)
	a := f.put(alice, code(1))
	for _, cut := range []int64{0, 50, 1000} {
		for path := range f.files() {
			if err := os.Truncate(path, cut); err != nil {
				t.Fatal(err)
			}
		}
		if again := f.put(alice, code(1)); again != a {
			t.Errorf("PutZip gave %v, want %v", again, a)
		}
		if _, err := f.unseal(f.redeem(a)); err != nil {
			t.Errorf("after a cut to %d bytes and another upload: %v", cut, err)
		}
	}
}
