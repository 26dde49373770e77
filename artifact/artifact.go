// Package artifact keeps customer code: it turns an uploaded zip into a read-only EROFS
// image, once, stores image and zip sealed, and hands images to workers by grants.
//
// It does not know functions or versions: package control remembers which artifact a
// version runs, and says so when garbage is collected. It does not mount anything. control calls
// PutZip, placement calls Grant and Revoke, the front's side of the worker protocol Redeem, and the worker
// itself, which has no root key, only Unseal.
//
// Invariants: code is never plain on disk; it is in memory while it is built or unsealed.
// Each file has a data key of its own, sealed under the root key and bound to owner and
// content, so that one key opens one artifact of one account; the same zip of two accounts is
// two files. What comes out of Unseal is what went in, or an error of kind lambda.Corrupt. File
// names are keyed hashes: whoever reads the disk cannot tell whether an account has a given file.
// A file goes only when no version has named it for half an hour and nobody has used it meanwhile.
//
// An attacker chooses the zips, may write to the disk, and may be a worker: that gets the artifacts of
// the environments that it has been ordered to make, each once, and only until the order is answered.
package artifact

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

	"cloister/artifact/zip"
	"cloister/internal/durable"
	"cloister/internal/seal"
	"cloister/lambda"
)

// builds is how many packages are read and built at a time. One takes up to 200 MiB of memory beside the
// upload, a memory file of twice the unzipped limit, and all of a processor; the others wait.
const builds = 2

// Config says where artifacts are kept.
type Config struct {
	// Directory is made with mode 0700 if it is missing. One process owns it.
	Directory string

	// Root seals the data keys.
	Root *seal.Root

	// Now is the clock that grants expire by and garbage ages by; nil is time.Now.
	Now func() time.Time

	// Grace is how long what nobody names is kept; 0 means 30 minutes. It must be longer than any
	// grant lives.
	Grace time.Duration

	Logger *slog.Logger // of Run; nil is slog.Default
}

// A Store keeps artifacts. Its methods may be called concurrently.
type Store struct {
	directory string
	headers   *seal.Key     // seals data keys
	names     *seal.Key     // makes file names
	locations *seal.Key     // seals addresses
	building  chan struct{} // holds a token per running build
	grants    *grants
	garbage   garbage
	logger    *slog.Logger
}

// The kinds of sealed files.
const (
	imageKind = "image"
	zipKind   = "zip"
)

// Open opens or makes a store, and removes what a killed process was writing.
func Open(c Config) (*Store, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	s := &Store{
		directory: c.Directory,
		headers:   c.Root.Key("artifact headers"),
		names:     c.Root.Key("artifact names"),
		locations: c.Root.Key("artifact locations"),
		building:  make(chan struct{}, builds),
		grants:    newGrants(c.Now),
		garbage:   newGarbage(c.Now, cmp.Or(c.Grace, defaultGrace)),
		logger:    c.Logger,
	}
	if err := errors.Join(durable.MakeDirectory(s.temporary(), 0o700), durable.Sweep(s.temporary())); err != nil {
		return nil, fmt.Errorf("open artifact store: %w", err)
	}
	return s, nil
}

func (s *Store) temporary() string { return filepath.Join(s.directory, "temporary") }

// path returns where a file lies.
func (s *Store) path(kind, owner, id string) string {
	sum := s.names.Sum(seal.Bind(kind, owner, id))
	name := hex.EncodeToString(sum[:])
	return filepath.Join(s.directory, kind, name[:2], name)
}

// PutZip checks a deployment package, makes its image unless that exists, and stores both
// for the owner. It returns the base64 SHA-256 and the size of the zip, as the Lambda API
// shows them. Both are kept until ctx ends, and for Config.Grace after that: who wants them longer must
// name them by then, see Run. Errors of the package are of kind lambda.InvalidParameter or TooLarge with
// AWS's texts; a full disk is of kind lambda.Unavailable. It may wait for other builds.
func (s *Store) PutZip(ctx context.Context, owner string, data []byte) (a lambda.Artifact, codeSHA256 string, codeSize int64, err error) {
	sum := sha256.Sum256(data)
	id := hex.EncodeToString(sum[:])
	s.hold(ctx, s.path(zipKind, owner, id))
	if a, err = s.findZip(ctx, owner, id); err != nil {
		a, err = s.putNewZip(ctx, owner, id, data)
	}
	if err != nil {
		if e, ok := errors.AsType[*lambda.Error](err); ok && zip.IsRefusal(err) {
			return lambda.Artifact{}, "", 0, e // the caller reads nothing of how it was found
		}
		return lambda.Artifact{}, "", 0, fmt.Errorf("store deployment package: %w", kindOfWrite(err))
	}
	return a, base64.StdEncoding.EncodeToString(sum[:]), int64(len(data)), nil
}

// kindOfWrite gives the error of a full disk its kind, and words for whoever can make room.
func kindOfWrite(err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return &lambda.Error{Kind: lambda.Unavailable, Op: "write sealed file", Err: err, Message: "The deployment package was not stored: the disk of " +
		"this Cloister installation is full. Its operator must make room in the data directory (front/state/artifacts); then try again."}
}

// findZip returns the image of a zip that the owner has stored before, if both are whole. Any error means to
// build it again; what is damaged is then replaced.
func (s *Store) findZip(ctx context.Context, owner, id string) (lambda.Artifact, error) {
	var a lambda.Artifact
	note, err := s.checkBlob(zipKind, owner, id)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(note, &a); err != nil {
		return a, fmt.Errorf("read the note of a stored zip: %w", err)
	}
	s.hold(ctx, s.path(imageKind, owner, a.ID))
	_, err = s.checkBlob(imageKind, owner, a.ID)
	return a, err
}

func (s *Store) putNewZip(ctx context.Context, owner, id string, data []byte) (lambda.Artifact, error) {
	select { // before the zip is read: its list of files may take as much memory as the zip
	case s.building <- struct{}{}:
		defer func() { <-s.building }()
	case <-ctx.Done():
		return lambda.Artifact{}, ctx.Err()
	}
	entries, err := zip.Read(data)
	if err != nil {
		return lambda.Artifact{}, err
	}
	image, err := buildImage(ctx, entries)
	if err != nil {
		return lambda.Artifact{}, err
	}
	defer image.file.Close()
	a := lambda.Artifact{ID: image.id, Size: image.size, Owner: owner}
	note, err := json.Marshal(a)
	if err != nil {
		return lambda.Artifact{}, err
	}
	s.hold(ctx, s.path(imageKind, owner, a.ID))
	// The image first: a stored zip promises it.
	if err := s.putBlob(content{imageKind, owner, a.ID, a.Size, io.NewSectionReader(image.file, 0, a.Size), nil}); err != nil {
		return lambda.Artifact{}, err
	}
	if err := s.putBlob(content{zipKind, owner, id, int64(len(data)), bytes.NewReader(data), note}); err != nil {
		return lambda.Artifact{}, err
	}
	return a, nil
}

// zipID returns the id of the zip with this base64 SHA-256, if it is one.
func zipID(codeSHA256 string) (string, bool) {
	sum, err := base64.StdEncoding.DecodeString(codeSHA256)
	return hex.EncodeToString(sum), err == nil && len(sum) == sha256.Size
}

// OpenZip returns the deployment package that PutZip stored under this SHA-256, and its
// size. Each part is checked before it is given. Errors are of kind lambda.NotFound or Corrupt.
func (s *Store) OpenZip(ctx context.Context, owner, codeSHA256 string) (io.ReadCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	id, ok := zipID(codeSHA256)
	if !ok {
		return nil, 0, lambda.Errorf(lambda.NotFound, "open deployment package", "no package has the SHA-256 %.64q", codeSHA256)
	}
	b, err := s.openBlob(zipKind, owner, id)
	if err != nil {
		return nil, 0, kindOfOpen(err, "open deployment package")
	}
	return &zipReader{chunks: b.chunks(id), file: b.file}, b.header.size, nil
}

// kindOfOpen gives an error of openBlob its kind.
func kindOfOpen(err error, operation string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &lambda.Error{Kind: lambda.NotFound, Op: operation, Err: err}
	}
	return fmt.Errorf("%s: %w", operation, err)
}
