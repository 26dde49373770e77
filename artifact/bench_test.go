package artifact

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"cloister/artifact/zip/ziptest"
	"cloister/internal/seal"
)

// bigCode is a package like a large node_modules: many small files and some large ones,
// of megabytes together, that compress to about a third.
func bigCode(megabytes int) []byte {
	random := rand.New(rand.NewPCG(1, 1))
	text := func(n int) string {
		var b strings.Builder
		for b.Len() < n {
			fmt.Fprintf(&b, "const value%x = require('module-%d');\n", random.Uint64(), random.IntN(50))
		}
		return b.String()[:n]
	}
	var z ziptest.Zip
	for i, left := 0, megabytes<<20; left > 0; i++ {
		n := min(left, 200+random.IntN(16<<10))
		if i%50 == 0 {
			n = min(left, 1<<20)
		}
		left -= n
		z.Files = append(z.Files, ziptest.File{Name: fmt.Sprintf("node_modules/m%d/lib/f%d.js", i/40, i), Content: text(n)})
	}
	return z.Bytes()
}

func openStore(b *testing.B) *Store {
	directory := b.TempDir()
	root, err := seal.LoadOrCreate(directory + "/root.key")
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(Config{Directory: directory + "/artifacts", Root: root})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkPutZip measures check, image, sealing and fsync of a package that unzips to 64 MiB.
func BenchmarkPutZip(b *testing.B) {
	s, data := openStore(b), bigCode(64)
	b.SetBytes(64 << 20)
	b.ResetTimer()
	for i := range b.N {
		if _, _, _, err := s.PutZip(b.Context(), fmt.Sprint(i), data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUnseal measures the worker's side: sealed file to memory file.
func BenchmarkUnseal(b *testing.B) {
	s := openStore(b)
	a, _, _, err := s.PutZip(b.Context(), "owner", bigCode(64))
	if err != nil {
		b.Fatal(err)
	}
	g, err := s.Grant(a, "worker", time.Minute)
	if err != nil {
		b.Fatal(err)
	}
	sealed, err := s.Redeem(b.Context(), g, "worker")
	if err != nil {
		b.Fatal(err)
	}
	content, err := os.ReadFile(sealed.path)
	if err != nil {
		b.Fatal(err)
	}
	out, err := memoryFile()
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	b.SetBytes(a.Size)
	b.ResetTimer()
	for range b.N {
		if _, err := out.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		if err := Unseal(out, bytes.NewReader(content), sealed.Key, a); err != nil {
			b.Fatal(err)
		}
	}
}
