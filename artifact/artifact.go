// Package artifact keeps customer code: it turns an uploaded zip into a read-only EROFS
// image, once, stores image and zip sealed, and hands images to workers by grants.
//
// It does not know functions or versions: package control remembers which artifact a
// version runs. It does not mount anything. control calls PutZip and OpenZip, placement calls
// Grant, the front's side of the worker protocol Redeem, and the worker itself, which has no
// root key, only Unseal.
//
// Invariants: code is never plain on disk; it is in memory while it is built or unsealed.
// Each file has a data key of its own, sealed under the root key and bound to owner and
// content, so that one key opens one artifact of one account; the same zip of two accounts is
// two files. What comes out of Unseal is what went in, or an error of kind lambda.Corrupt. File
// names are keyed hashes: whoever reads the disk cannot tell whether an account has a given file.
//
// An attacker chooses the zips, may write to the disk, and may be a worker: that gets, for 15
// minutes at most, the artifacts it was granted, and each only once per grant.
package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"cloister/artifact/zip"
	"cloister/internal/durable"
	"cloister/internal/seal"
	"cloister/lambda"
)

// builds is how many images are built at a time. One takes up to twice the unzipped limit of
// memory and all of a processor; the others wait.
const builds = 2

// Config says where artifacts are kept.
type Config struct {
	// Directory is made with mode 0700 if it is missing. One process owns it.
	Directory string

	// Root seals the data keys.
	Root *seal.Root

	// Now is the clock that grants expire by; nil is time.Now.
	Now func() time.Time
}

// A Store keeps artifacts. Its methods may be called concurrently.
type Store struct {
	directory string
	headers   *seal.Key     // seals data keys
	names     *seal.Key     // makes file names
	building  chan struct{} // holds a token per running build
	grants    *grants
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
	s := &Store{
		directory: c.Directory,
		headers:   c.Root.Key("artifact headers"),
		names:     c.Root.Key("artifact names"),
		building:  make(chan struct{}, builds),
		grants:    newGrants(c.Now),
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
// shows them. Errors of the package are of kind lambda.InvalidParameter or TooLarge with AWS's
// texts. It may wait for other builds.
func (s *Store) PutZip(ctx context.Context, owner string, data []byte) (a lambda.Artifact, codeSHA256 string, codeSize int64, err error) {
	sum := sha256.Sum256(data)
	id := hex.EncodeToString(sum[:])
	if a, err = s.findZip(owner, id); err != nil {
		a, err = s.putNewZip(ctx, owner, id, data)
	}
	if err != nil {
		if e, ok := errors.AsType[*lambda.Error](err); ok && zip.IsRefusal(err) {
			return lambda.Artifact{}, "", 0, e // the caller reads nothing of how it was found
		}
		return lambda.Artifact{}, "", 0, fmt.Errorf("store deployment package: %w", err)
	}
	return a, base64.StdEncoding.EncodeToString(sum[:]), int64(len(data)), nil
}

// findZip returns the image of a zip that the owner has stored before. Any error means to
// build it again; what is damaged is then replaced.
func (s *Store) findZip(owner, id string) (lambda.Artifact, error) {
	var a lambda.Artifact
	b, err := s.openBlob(zipKind, owner, id)
	if err != nil {
		return a, err
	}
	defer b.file.Close()
	if err := json.Unmarshal(b.note, &a); err != nil {
		return a, fmt.Errorf("read the note of a stored zip: %w", err)
	}
	image, err := s.openBlob(imageKind, owner, a.ID)
	if err != nil {
		return a, err
	}
	return a, image.file.Close()
}

func (s *Store) putNewZip(ctx context.Context, owner, id string, data []byte) (lambda.Artifact, error) {
	entries, err := zip.Read(data)
	if err != nil {
		return lambda.Artifact{}, err
	}
	select {
	case s.building <- struct{}{}:
		defer func() { <-s.building }()
	case <-ctx.Done():
		return lambda.Artifact{}, ctx.Err()
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
	// The image first: a stored zip promises it.
	if err := s.putBlob(content{imageKind, owner, a.ID, a.Size, io.NewSectionReader(image.file, 0, a.Size), nil}); err != nil {
		return lambda.Artifact{}, err
	}
	if err := s.putBlob(content{zipKind, owner, id, int64(len(data)), bytes.NewReader(data), note}); err != nil {
		return lambda.Artifact{}, err
	}
	return a, nil
}

// OpenZip returns the deployment package that PutZip stored under this SHA-256, and its
// size. Each part is checked before it is given. Errors are of kind lambda.NotFound or Corrupt.
func (s *Store) OpenZip(ctx context.Context, owner, codeSHA256 string) (io.ReadCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	sum, err := base64.StdEncoding.DecodeString(codeSHA256)
	if err != nil || len(sum) != sha256.Size {
		return nil, 0, lambda.Errorf(lambda.NotFound, "open deployment package", "no package has the SHA-256 %.64q", codeSHA256)
	}
	id := hex.EncodeToString(sum)
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
