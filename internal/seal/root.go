// Package seal keeps bytes secret and whole at rest: AES-256-GCM under keys that are
// derived, one per purpose, from the installation's one root key.
//
// It does not decide what is sealed, rotates nothing, and is not package kms, which manages
// keys that tenants own. Everything that writes customer data to the disk calls it.
//
// Invariants: the root key is in memory and in one file of mode 0600, nowhere else; no key
// is ever printed, whatever verb or logger is used. Sealed bytes open only under the same key
// with the same additional data; anything else is ErrCorrupt and gives no plaintext. An
// attacker may read, change, cut, move and replay sealed bytes; only replay of an older
// sealing under the same additional data is not noticed here, so callers put what must not
// be swapped into it.
package seal

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"cloister/internal/durable"
)

// KeySize is the length of root keys and of data keys in bytes.
const KeySize = 32

// A Root is the installation's root key. It seals nothing itself.
type Root struct {
	secret func() []byte // a function: package fmt prints unexported fields around Format, see TestKeysAreNeverPrinted
}

func newRoot(secret []byte) *Root { return &Root{func() []byte { return secret }} }

// Load reads a root key. The file must be a regular file, not reached through a symbolic
// link as its last element, of mode 0600 exactly, owned by this user (root reads
// anybody's), and KeySize bytes long. A missing file is fs.ErrNotExist.
func Load(path string) (*Root, error) {
	// O_NONBLOCK: a FIFO in this place must be refused, not waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("root key %s: it is a symbolic link", path)
	}
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	defer f.Close()
	if err := checkFile(f); err != nil {
		return nil, fmt.Errorf("root key %s: %w", path, err)
	}
	secret := make([]byte, KeySize)
	if _, err := io.ReadFull(f, secret); err != nil {
		return nil, fmt.Errorf("root key %s: %w", path, err)
	}
	return newRoot(secret), nil
}

func checkFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	if info.Mode() != 0o600 {
		return fmt.Errorf("its mode is %#o, want 0600: others may have read the key; chmod 600 it if nobody else has", info.Mode().Perm())
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() != 0 && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d", s.Uid)
	}
	if info.Size() != KeySize {
		return fmt.Errorf("it has %d bytes, want %d: put back the key as it was", info.Size(), KeySize)
	}
	return nil
}

// LoadOrCreate is Load, but makes a new random key if the file is missing. When two
// processes do so at once, both get the same key. Its directory must exist.
func LoadOrCreate(path string) (*Root, error) {
	r, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	err = durable.WriteNewFile(path, NewSecret(), 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("root key: %w", err)
	}
	return Load(path)
}

// Key returns the key for a purpose. The same purpose gives the same key; nothing about
// the root or about another purpose's key follows from it.
func (r *Root) Key(purpose string) *Key { return derive(r.secret(), "root: "+purpose) }

// NewSecret returns KeySize fresh random bytes for NewKey.
func NewSecret() []byte {
	b := make([]byte, KeySize)
	rand.Read(b) // never fails: the runtime ends the process instead
	return b
}

func derive(secret []byte, info string) *Key {
	b, err := hkdf.Key(sha256.New, secret, nil, "cloister seal v1 "+info, KeySize)
	if err != nil {
		panic(err) // only for lengths over 255 hashes
	}
	return newKey(b)
}

const redacted = "redacted key"

// String hides the key.
func (r *Root) String() string { return redacted }

// Format hides the key from every verb of package fmt.
func (r *Root) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// LogValue hides the key from log/slog.
func (r *Root) LogValue() slog.Value { return slog.StringValue(redacted) }
