package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"cloister/internal/seal"
	"cloister/lambda"
)

// A chunkReader opens one chunk after the other.
type chunkReader struct {
	source io.Reader // stands at the first chunk
	header header
	key    *seal.Key
	id     string
	index  int64  // of the next chunk
	sealed []byte // buffers
	plain  []byte
}

func newChunkReader(source io.Reader, h header, key *seal.Key, id string) *chunkReader {
	return &chunkReader{
		source: source, header: h, key: key, id: id,
		sealed: make([]byte, h.chunkBytes(0)+seal.Overhead),
		plain:  make([]byte, 0, h.chunkBytes(0)),
	}
}

// next returns the next chunk, valid until the following call, or io.EOF if there is no
// more and nothing follows. Every byte that it returns has passed the check.
func (c *chunkReader) next() ([]byte, error) {
	if c.index == c.header.chunks() {
		return nil, c.expectEnd()
	}
	sealed := c.sealed[:c.header.chunkBytes(c.index)+seal.Overhead]
	if _, err := io.ReadFull(c.source, sealed); err != nil {
		return nil, unread(err)
	}
	plain, err := c.key.Open(c.plain, sealed, c.header.place(c.id, c.index))
	if err != nil {
		return nil, damaged(fmt.Errorf("chunk %d: %w", c.index, err))
	}
	c.index++
	return plain, nil
}

func (c *chunkReader) expectEnd() error {
	switch n, err := io.ReadFull(c.source, c.sealed[:1]); {
	case n != 0:
		return damaged(errors.New("bytes behind the last chunk"))
	case err != io.EOF:
		return unread(err)
	}
	return io.EOF
}

// Unseal reads a whole sealed image, as Sealed.Open gives it, and writes the plain one to
// w. It needs no root key: the worker calls it. Every chunk is checked before any byte of it is
// written; at the end the image must be a, byte for byte. Errors are of kind lambda.Corrupt, or
// w's or sealed's own. After an error what was written is to be thrown away.
func Unseal(w io.Writer, sealed io.Reader, key []byte, a lambda.Artifact) error {
	k, err := seal.NewKey(key)
	if err != nil {
		return fmt.Errorf("unseal image: %w", err)
	}
	h, _, err := readHeader(sealed)
	if err != nil {
		return fmt.Errorf("unseal image: %w", err)
	}
	if h.size != a.Size {
		return damaged(fmt.Errorf("an image of %d bytes, want %d", h.size, a.Size))
	}
	chunks, sum := newChunkReader(sealed, h, k, a.ID), sha256.New()
	for {
		plain, err := chunks.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("unseal image: %w", err)
		}
		sum.Write(plain)
		if _, err := w.Write(plain); err != nil {
			return fmt.Errorf("unseal image: %w", err)
		}
	}
	if id := hex.EncodeToString(sum.Sum(nil)); id != a.ID {
		return damaged(fmt.Errorf("the image is %s, want %s", id, a.ID))
	}
	return nil
}

// A zipReader gives a stored zip as a stream.
type zipReader struct {
	chunks *chunkReader
	rest   []byte // of the current chunk
	file   io.Closer
}

func (b *blob) chunks(id string) *chunkReader {
	key, err := seal.NewKey(b.secret)
	if err != nil {
		panic(err) // openBlob cut the secret to its size
	}
	return newChunkReader(b.file, b.header, key, id)
}

// Read implements io.Reader.
func (z *zipReader) Read(p []byte) (int, error) {
	for len(z.rest) == 0 {
		plain, err := z.chunks.next()
		if err != nil {
			return 0, err
		}
		z.rest = plain
	}
	n := copy(p, z.rest)
	z.rest = z.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (z *zipReader) Close() error { return z.file.Close() }
