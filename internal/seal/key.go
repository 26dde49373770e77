package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"cloister/internal/durable"
)

// ErrCorrupt means that sealed bytes were changed or cut, belong to other additional
// data, or were sealed under another key. Which of these it was cannot be known.
var ErrCorrupt = errors.New("seal: the sealed bytes do not pass their integrity check")

// Overhead is by how many bytes sealed is longer than plain: nonce and tag.
const Overhead = 12 + 16

// maxFileBytes bounds ReadFile.
const maxFileBytes = 1 << 20

// A Key seals and opens. It may be used concurrently. Nonces are random, so one key must
// not seal more than 2^32 times; callers that might use Derive.
type Key struct {
	secret func() []byte // for Derive; a function as in Root
	aead   cipher.AEAD
}

// NewKey returns the key with this secret of KeySize bytes, which it copies.
func NewKey(secret []byte) (*Key, error) {
	if len(secret) != KeySize {
		return nil, fmt.Errorf("seal: a key has %d bytes, want %d", len(secret), KeySize)
	}
	return newKey(append([]byte(nil), secret...)), nil
}

func newKey(secret []byte) *Key {
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic(err) // only for other lengths
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // only for other ciphers
	}
	return &Key{secret: func() []byte { return secret }, aead: aead}
}

// Derive returns a key of its own for a part of this key's purpose.
func (k *Key) Derive(part string) *Key { return derive(k.secret(), "key: "+part) }

// Seal appends nonce, ciphertext and tag to dst. Additional data is not kept, but Open
// must be given the same.
func (k *Key) Seal(dst, plaintext, additional []byte) []byte {
	return k.aead.Seal(dst, nil, plaintext, additional)
}

// Open appends the plaintext to dst. The error is ErrCorrupt.
func (k *Key) Open(dst, sealed, additional []byte) ([]byte, error) {
	plain, err := k.aead.Open(dst, nil, sealed, additional)
	if err != nil {
		return nil, ErrCorrupt // the cipher's own text says no more
	}
	return plain, nil
}

// Sum returns a keyed hash of message (HMAC-SHA-256): a name or tag that nobody without
// the key can make or guess the message from. It uses another key than Seal does.
func (k *Key) Sum(message []byte) [sha256.Size]byte {
	h := hmac.New(sha256.New, k.Derive("sum").secret())
	h.Write(message)
	return [sha256.Size]byte(h.Sum(nil))
}

// Bind joins parts into additional data such that no two different lists of parts give
// the same bytes.
func Bind(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

// WriteFile seals data, of at most 1 MiB, into a durable file of mode 0600. Name says what
// the file is: a sealed file put in the place of another one does not open.
func (k *Key) WriteFile(path, name string, data []byte) error {
	if len(data) > maxFileBytes {
		return fmt.Errorf("seal: write %s: %d bytes, want at most %d", path, len(data), maxFileBytes)
	}
	return durable.WriteFile(path, k.Seal(nil, data, Bind("file", name)), 0o600)
}

// ReadFile returns what WriteFile sealed. Errors are ErrCorrupt or of package os.
func (k *Key) ReadFile(path, name string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read sealed file: %w", err)
	}
	defer f.Close()
	sealed, err := io.ReadAll(io.LimitReader(f, maxFileBytes+Overhead+1))
	if err != nil {
		return nil, fmt.Errorf("read sealed file: %w", err)
	}
	data, err := k.Open(nil, sealed, Bind("file", name))
	if err != nil {
		return nil, fmt.Errorf("read sealed file %s: %w", path, err)
	}
	return data, nil
}

// String hides the key.
func (k *Key) String() string { return redacted }

// Format hides the key from every verb of package fmt.
func (k *Key) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// LogValue hides the key from log/slog.
func (k *Key) LogValue() slog.Value { return slog.StringValue(redacted) }
