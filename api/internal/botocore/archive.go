// Package botocore reads AWS's own descriptions of its services, and the cases
// that test them, from the source distribution of the Python package botocore.
// Nothing of it is kept in the repository: pip downloads the version that pin.txt
// names, by its digest, into .cache.
//
// It decides nothing about what is served. The generator is its caller, and tests
// of package api, which build services from the models in the cases.
//
// Invariant: whatever a model says is either in the Package that Describe returns
// or declared here as without meaning for a server. A trait that is not declared
// is an error.
//
// Nobody attacks it: the pinned distribution is checked by digest, and drift is
// looked for by developers. It still bounds what it unpacks.
package botocore

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed" // the pin
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// fileLimit bounds an unpacked file and sizeLimit all that are kept, in bytes. The
// largest model has 2.5 MB.
const (
	fileLimit = 16 << 20
	sizeLimit = 64 << 20
)

// The only input of the generator. To move to another version change the line, which
// pip understands too, and read what "make drift" says about the new one.
//
//go:embed pin.txt
var pin string

// Pin returns the version and the SHA-256, in hexadecimal, of the distribution
// that everything here is made for.
func Pin() (version, digest string) {
	_, rest, _ := strings.Cut(strings.TrimSpace(pin), "==")
	version, digest, _ = strings.Cut(rest, " --hash=sha256:")
	return version, digest
}

// An Archive is an opened distribution.
type Archive struct {
	files map[string][]byte // by path below the distribution's folder
}

// OpenPinned opens the pinned distribution in the folder that CLOISTER_BOTOCORE
// names, which is .cache/botocore of the repository if it is empty. The error says
// what to do if it is not there or is another one. Of the files only those are kept
// for whose path keep returns true.
func OpenPinned(keep func(path string) bool) (*Archive, error) {
	version, digest := Pin()
	folder := os.Getenv("CLOISTER_BOTOCORE")
	if folder == "" {
		var err error
		if folder, err = cacheFolder(); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(folder, "botocore-"+version+".tar.gz")
	packed, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("botocore %s is not there, \"make botocore\" downloads it: %w", version, err)
	}
	if sum := sha256.Sum256(packed); hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("%s has SHA-256 %x, want %s", path, sum, digest)
	}
	return unpack(packed, keep)
}

// cacheFolder finds .cache/botocore beside go.mod.
func cacheFolder() (string, error) {
	folder, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(folder, "go.mod")); missing == nil {
			return filepath.Join(folder, ".cache", "botocore"), nil
		}
		if folder == filepath.Dir(folder) {
			err = errors.New("name the folder of botocore's source distribution in CLOISTER_BOTOCORE")
		}
		folder = filepath.Dir(folder)
	}
	return "", err
}

// Open opens any source distribution, such as one newer than the pinned one.
func Open(path string, keep func(path string) bool) (*Archive, error) {
	packed, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return unpack(packed, keep)
}

func unpack(packed []byte, keep func(string) bool) (*Archive, error) {
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("open distribution: %w", err)
	}
	a := &Archive{files: map[string][]byte{}}
	reader, size := tar.NewReader(unpacked), int64(0)
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read distribution: %w", err)
		}
		_, path, _ := strings.Cut(header.Name, "/")
		if header.Typeflag != tar.TypeReg || !keep(path) {
			continue
		}
		if size += header.Size; header.Size > fileLimit || size > sizeLimit {
			return nil, fmt.Errorf("%s: more than is read of a distribution", path)
		}
		if a.files[path], err = io.ReadAll(reader); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
}

// File returns a file by its path below the distribution's folder.
func (a *Archive) File(path string) ([]byte, error) {
	text, ok := a.files[path]
	if !ok {
		return nil, fmt.Errorf("the distribution has no %s", path)
	}
	return text, nil
}

// ModelPath is where a distribution has the model of a service.
func ModelPath(service, version string) string {
	return "botocore/data/" + service + "/" + version + "/service-2.json"
}

// Model reads the model of one service and checks that its references resolve.
func (a *Archive) Model(service, version string) (*Model, error) {
	text, err := a.File(ModelPath(service, version))
	if err != nil {
		return nil, err
	}
	m, err := ParseModel(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", service, err)
	}
	return m, nil
}

// ParseModel reads a model. A trait that this package does not know is an error.
func ParseModel(text []byte) (*Model, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var m Model
	if err := decoder.Decode(&m); err != nil {
		return nil, err
	}
	return &m, m.check()
}
