package artifact

import (
	"bytes"
	"encoding/binary"
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

// damages returns sealed images that are not good any more. Older is an earlier sealing of the same
// artifact, foreign one of another. Those whose names begin with "lock" differ only in the lock, which workers
// do not open.
func damages(good, older, foreign []byte) map[string][]byte {
	chunk := func(b []byte, i int) []byte {
		from := firstChunk + i*sealedChunk
		return b[from:min(from+sealedChunk, len(b))]
	}
	mixed := func(change func(b []byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		return b
	}
	last := (len(good) - firstChunk) / sealedChunk
	all := map[string][]byte{
		"a byte more":                             append(bytes.Clone(good), 0),
		"a chunk more":                            append(bytes.Clone(good), chunk(good, 0)...),
		"the last byte cut":                       good[:len(good)-1],
		"the last chunk cut":                      good[:firstChunk+last*sealedChunk],
		"cut in the header":                       good[:10],
		"cut in the lock":                         good[:headerBytes+10],
		"empty":                                   nil,
		"a chunk twice":                           mixed(func(b []byte) { copy(chunk(b, 2), chunk(good, 1)) }),
		"all of another image":                    foreign,
		"header and lock of an earlier sealing":   append(bytes.Clone(older[:firstChunk]), good[firstChunk:]...),
		"header and chunks of an earlier sealing": mixed(func(b []byte) { copy(b[firstChunk:], older[firstChunk:]) }),
		"lock of another image":                   mixed(func(b []byte) { copy(b[headerBytes:firstChunk], foreign[headerBytes:firstChunk]) }),
		"zeros":                                   make([]byte, len(good)),
		"a chunk of zeros":                        mixed(func(b []byte) { clear(chunk(b, 1)) }),
		"chunks rotated": mixed(func(b []byte) {
			copy(b[firstChunk:], good[firstChunk+sealedChunk:firstChunk+last*sealedChunk])
			copy(chunk(b, last-1), chunk(good, 0))
		}),
		"another size of chunks":     mixed(func(b []byte) { binary.BigEndian.PutUint32(b[8:], chunkSize/2) }),
		"another size":               mixed(func(b []byte) { binary.BigEndian.PutUint64(b[12:], binary.BigEndian.Uint64(b[12:])-1) }),
		"another length of the lock": mixed(func(b []byte) { binary.BigEndian.PutUint32(b[20:], binary.BigEndian.Uint32(b[20:])-1) }),
		"a size of 2^63":             mixed(func(b []byte) { b[12] = 0x80 }),
		"a lock of 4 GiB":            mixed(func(b []byte) { copy(b[20:], "\xff\xff\xff\xff") }),
		"chunks of 4 GiB":            mixed(func(b []byte) { copy(b[8:], "\xff\xff\xff\xff") }),
		"chunks of no bytes":         mixed(func(b []byte) { clear(b[8:12]) }),
	}
	for i := range last + 1 {
		for _, at := range []int{0, 11, 12, len(chunk(good, i)) / 2, len(chunk(good, i)) - 17, len(chunk(good, i)) - 1} { // nonce, text and tag
			all[fmt.Sprintf("bit of byte %d of chunk %d flipped", at, i)] = mixed(func(b []byte) { chunk(b, i)[at] ^= 1 << (at % 8) })
		}
		all[fmt.Sprint("chunk ", i, " of another image")] = mixed(func(b []byte) { copy(chunk(b, i), chunk(foreign, i)) })
		all[fmt.Sprint("chunk ", i, " of an earlier sealing")] = mixed(func(b []byte) { copy(chunk(b, i), chunk(older, i)) })
		for j := range i {
			if n := min(len(chunk(good, i)), len(chunk(good, j))); n == sealedChunk {
				all[fmt.Sprint("chunks ", j, " and ", i, " swapped")] = mixed(func(b []byte) { copy(chunk(b, i), chunk(good, j)); copy(chunk(b, j), chunk(good, i)) })
			}
		}
	}
	for i := range firstChunk {
		name := fmt.Sprint("byte ", i, " flipped")
		if headerBytes <= i {
			name = "lock " + name
		}
		all[name] = mixed(func(b []byte) { b[i] ^= 0x40 })
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
	older, err3 := f.sealedAgain(a)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for name, bad := range damages(good, older, foreign) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := Unseal(&out, bytes.NewReader(bad), s.Key, a)
			if lambda.KindOf(err) != lambda.Corrupt && !strings.HasPrefix(name, "lock") && !strings.HasPrefix(name, "header and lock") {
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

// sealedAgain returns a sealed file of the same artifact under another data key.
func (f *fixture) sealedAgain(a lambda.Artifact) ([]byte, error) {
	image, err := f.unseal(f.redeem(a))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = f.seal(&out, content{imageKind, a.Owner, a.ID, a.Size, bytes.NewReader(image), nil})
	return out.Bytes(), err
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
	// A source that breaks off says nothing of the artifact: the worker may try again.
	for _, n := range []int64{0, 10, headerBytes + 10, 1000, firstChunk + sealedChunk, s.SealedSize} {
		if err := Unseal(io.Discard, io.MultiReader(io.LimitReader(mustOpen(t, s), n), brokenReader{}), s.Key, s.Artifact); !errors.Is(err, errBroken) || lambda.KindOf(err) == lambda.Corrupt {
			t.Errorf("a source that broke off after %d bytes gave %v", n, err)
		}
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
	a, sum, _, err := f.PutZip(t.Context(), alice, code(1))
	if err != nil {
		t.Fatal(err)
	}
	damage := func(change func(content []byte) []byte) {
		t.Helper()
		for path, content := range f.files() {
			if err := os.WriteFile(path, change(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if again := f.put(alice, code(1)); again != a {
			t.Errorf("PutZip gave %v, want %v", again, a)
		}
		if err := f.whole(pack{a, sum}); err != nil {
			t.Errorf("after another upload: %v", err)
		}
	}
	for _, cut := range []int{0, 50, 1000} {
		damage(func(content []byte) []byte { return content[:cut] })
	}
	for _, at := range []int{0, headerBytes + 1, firstChunk + 1000, firstChunk + sealedChunk + 5} {
		damage(func(content []byte) []byte { content[at] ^= 1; return content })
	}
	damage(func(content []byte) []byte { content[len(content)-1] ^= 1; return content })
}
