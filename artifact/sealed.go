package artifact

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"cloister/internal/durable"
	"cloister/internal/seal"
	"cloister/lambda"
)

// A sealed file is
//
//	magic, chunk size, size, length of the lock      24 bytes, in clear
//	lock: data key and note, under the root key      bound to kind, owner, id and the 24 bytes
//	chunks, under the data key                       each bound to id, index and whether it is the last
//
// The size says how many chunks there are and how long each is, so cut, added, swapped or
// repeated chunks do not open.
const (
	magic         = "clstseal"
	chunkSize     = 512 << 10
	minChunkSize  = 4 << 10 // readers take others than ours within these bounds
	maxChunkSize  = 4 << 20
	headerBytes   = 24
	maxNoteBytes  = 1 << 10
	maxLockBytes  = seal.KeySize + maxNoteBytes + seal.Overhead
	maxPlainBytes = 16 << 30
)

// A header is the part of a sealed file that needs no key to read, and none to forge: the
// lock shows whether it is true.
type header struct {
	chunkSize int
	size      int64 // of the plain content
	lockBytes int
}

func (h header) bytes() []byte {
	b := append(make([]byte, 0, headerBytes), magic...)
	b = binary.BigEndian.AppendUint32(b, uint32(h.chunkSize))
	b = binary.BigEndian.AppendUint64(b, uint64(h.size))
	return binary.BigEndian.AppendUint32(b, uint32(h.lockBytes))
}

// sealedBytes returns the length of the whole file.
func (h header) sealedBytes() int64 {
	return headerBytes + int64(h.lockBytes) + h.size + h.chunks()*seal.Overhead
}

// chunks returns their number; an empty content has one.
func (h header) chunks() int64 {
	return max(1, (h.size+int64(h.chunkSize)-1)/int64(h.chunkSize))
}

// readHeader reads header and lock.
func readHeader(r io.Reader) (h header, lock []byte, err error) {
	b := make([]byte, headerBytes)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, nil, unread(err)
	}
	h.chunkSize = int(binary.BigEndian.Uint32(b[8:]))
	h.size = int64(binary.BigEndian.Uint64(b[12:]))
	h.lockBytes = int(binary.BigEndian.Uint32(b[20:]))
	if string(b[:8]) != magic || h.chunkSize < minChunkSize || h.chunkSize > maxChunkSize ||
		h.size < 0 || h.size > maxPlainBytes || h.lockBytes < seal.KeySize+seal.Overhead || h.lockBytes > maxLockBytes {
		return h, nil, damaged(errors.New("no header of a sealed file"))
	}
	lock = make([]byte, h.lockBytes)
	if _, err := io.ReadFull(r, lock); err != nil {
		return h, nil, unread(err)
	}
	return h, lock, nil
}

// damaged is an error of kind lambda.Corrupt.
func damaged(cause error) error {
	return &lambda.Error{Kind: lambda.Corrupt, Op: "open sealed file", Err: cause}
}

// unread is what reading has ended with before all was there: a file that ends too early is damaged,
// any other error says nothing of the file and stays what it is.
func unread(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF { // not wrapped: a connection's end is another matter
		return damaged(errors.New("the sealed file is cut"))
	}
	return fmt.Errorf("read sealed file: %w", err)
}

// A content is what putBlob stores.
type content struct {
	kind, owner, id string
	size            int64
	plain           io.Reader
	note            []byte // small, sealed with the data key
}

// putBlob stores content durably, unless a good file with it is there.
func (s *Store) putBlob(c content) error {
	path := s.path(c.kind, c.owner, c.id)
	switch _, err := s.checkBlob(c.kind, c.owner, c.id); {
	case err == nil:
		return nil
	case lambda.KindOf(err) == lambda.Corrupt:
		if err := durable.Remove(path); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := durable.MakeDirectory(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := durable.Create(s.temporary(), 0o600)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := s.seal(f, c); err != nil {
		return fmt.Errorf("seal %s: %w", c.kind, err)
	}
	if err := f.CommitNew(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil // written by us, or at the same time by another call
}

func (s *Store) seal(w io.Writer, c content) error {
	if len(c.note) > maxNoteBytes {
		return fmt.Errorf("a note of %d bytes, want at most %d", len(c.note), maxNoteBytes)
	}
	secret := seal.NewSecret()
	key, err := seal.NewKey(secret)
	if err != nil {
		return err
	}
	lock := append(secret, c.note...)
	h := header{chunkSize: chunkSize, size: c.size, lockBytes: len(lock) + seal.Overhead}
	clear := h.bytes()
	out := s.headers.Seal(bytes.Clone(clear), lock, lockPlace(c.kind, c.owner, c.id, clear))
	if _, err := w.Write(out); err != nil {
		return err
	}
	plain := make([]byte, chunkSize)
	sealed := make([]byte, 0, chunkSize+seal.Overhead)
	for i := range h.chunks() {
		p := plain[:h.chunkBytes(i)]
		if _, err := io.ReadFull(c.plain, p); err != nil {
			return fmt.Errorf("read plain content: %w", err)
		}
		if _, err := w.Write(key.Seal(sealed, p, h.place(c.id, i))); err != nil {
			return err
		}
	}
	return nil
}

// chunkBytes returns the plain length of a chunk.
func (h header) chunkBytes(i int64) int {
	return int(min(int64(h.chunkSize), h.size-i*int64(h.chunkSize)))
}

// place binds a chunk to where it is.
func (h header) place(id string, i int64) []byte {
	b := binary.BigEndian.AppendUint64(seal.Bind("chunk", id), uint64(i))
	if i == h.chunks()-1 {
		return append(b, 1)
	}
	return append(b, 0)
}

func lockPlace(kind, owner, id string, clear []byte) []byte {
	return append(seal.Bind("lock", kind, owner, id), clear...)
}

// A blob is an open sealed file whose lock has opened.
type blob struct {
	file   *os.File // stands at the first chunk
	header header
	secret []byte // the data key
	note   []byte
}

// openBlob finds a file. A missing one is fs.ErrNotExist, a bad one of kind lambda.Corrupt.
func (s *Store) openBlob(kind, owner, id string) (_ *blob, err error) {
	f, err := os.Open(s.path(kind, owner, id))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	h, lock, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	opened, err := s.headers.Open(nil, lock, lockPlace(kind, owner, id, h.bytes()))
	if err != nil {
		return nil, damaged(err)
	}
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.Size() != h.sealedBytes() {
		return nil, damaged(fmt.Errorf("the file has %d bytes, want %d", info.Size(), h.sealedBytes()))
	}
	return &blob{f, h, opened[:seal.KeySize], opened[seal.KeySize:]}, nil
}

// checkBlob reads a whole file and returns its note. Errors are those of openBlob.
func (s *Store) checkBlob(kind, owner, id string) (note []byte, err error) {
	b, err := s.openBlob(kind, owner, id)
	if err != nil {
		return nil, err
	}
	defer b.file.Close()
	chunks := b.chunks(id)
	for err == nil {
		_, err = chunks.next()
	}
	if err != io.EOF {
		return nil, err
	}
	return b.note, nil
}
