// Package zip reads the deployment packages that tenants upload and refuses every zip that
// could be read in two ways or that is not simply a tree of files.
//
// It is not a general reader: archive/zip guesses offsets, takes a checksum of zero for
// none, compares no local headers and allocates for entries that nobody has counted, all of
// which is right for a tool and wrong here. Nothing is unpacked: Read returns entries whose
// contents package artifact/erofs streams into an image. Only package artifact calls it.
//
// Invariants: memory grows with the upload, not with what it claims; no more is ever
// decompressed than the limits allow; what Read and the entries' contents accept,
// archive/zip reads as the same files. Every byte is the attacker's.
package zip

import (
	"errors"
	"fmt"

	"cloister/artifact/erofs"
	"cloister/lambda"
)

// Limits of AWS Lambda in bytes; the texts say "smaller than".
const (
	ZippedLimit   = 52_428_800
	UnzippedLimit = 262_144_000
)

// Limits of ours, far above what real packages have.
const (
	maxFiles       = 100_000 // with the directories that no entry names
	maxPathBytes   = 4_000   // Linux takes 4,095, with /var/task/ before it
	maxDepth       = 200
	maxTargetBytes = 16 << 20 // of all symbolic links together; they are held in memory
)

// Messages of AWS Lambda.
const (
	couldNotUnzip    = "Could not unzip uploaded file. Please check your file, then try to upload again."
	emptyZip         = "Uploaded file must be a non-empty zip"
	zippedTooLarge   = "Zipped size must be smaller than 52428800 bytes"
	unzippedTooLarge = "Unzipped size must be smaller than 262144000 bytes"
)

// corrupt refuses bytes that are no zip. The caller reads AWS's text, the operator's log has
// the reason.
func corrupt(format string, args ...any) error {
	return &lambda.Error{Kind: lambda.InvalidParameter, Op: "read zip", Message: couldNotUnzip, Err: fmt.Errorf(format, args...)}
}

// refuse refuses one entry of a zip that other tools might unpack, so the caller is told why.
func refuse(name, format string, args ...any) error {
	return lambda.Errorf(lambda.InvalidParameter, "read zip", "%s (%.200q: %s)", couldNotUnzip, name, fmt.Sprintf(format, args...))
}

// refuseWhole is refuse for what is not the fault of one entry.
func refuseWhole(format string, args ...any) error {
	return lambda.Errorf(lambda.InvalidParameter, "read zip", "%s (%s)", couldNotUnzip, fmt.Sprintf(format, args...))
}

// Read checks a zip and returns its files and directories, with permissions made 0755 for
// directories and for files that anybody may execute, and 0644 for others. Errors are of kind
// lambda.InvalidParameter or TooLarge with AWS's texts. Contents are checked while they are
// read: the entries' Open and the readers that it gives return the same kinds of error.
//
// The entries read from data, which must not change.
func Read(data []byte) ([]erofs.Entry, error) {
	if len(data) >= ZippedLimit {
		return nil, lambda.Errorf(lambda.TooLarge, "read zip", zippedTooLarge)
	}
	if len(data) == 0 {
		return nil, lambda.Errorf(lambda.InvalidParameter, "read zip", emptyZip)
	}
	directory, err := findDirectory(data)
	if err != nil {
		return nil, err
	}
	if directory.records == 0 {
		return nil, lambda.Errorf(lambda.InvalidParameter, "read zip", emptyZip)
	}
	records, err := directory.read(data)
	if err != nil {
		return nil, err
	}
	if err := checkLocalHeaders(data, directory, records); err != nil {
		return nil, err
	}
	return entries(data, records)
}

// entries turns records into a tree.
func entries(data []byte, records []record) ([]erofs.Entry, error) {
	list := make([]erofs.Entry, 0, len(records))
	names := newNames()
	contents := &contents{data: data}
	var unzipped uint64
	for _, r := range records {
		path, err := cleanPath(r.name)
		if err != nil {
			return nil, err
		}
		mode, err := r.mode()
		if err != nil {
			return nil, err
		}
		if unzipped += r.size; unzipped >= UnzippedLimit || r.size >= UnzippedLimit {
			return nil, lambda.Errorf(lambda.InvalidParameter, "read zip", unzippedTooLarge)
		}
		if path == "" { // the root itself, as some tools write it
			if mode.IsDir() {
				continue
			}
			return nil, refuse(r.name, "it has no name")
		}
		if isNew, err := names.add(path, mode.IsDir()); err != nil {
			return nil, err
		} else if !isNew {
			continue
		}
		e, err := contents.entry(r, path, mode)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// IsRefusal reports whether err, from Read or from an entry's contents, lies in the zip and
// not in the machine.
func IsRefusal(err error) bool {
	var e *lambda.Error
	return errors.As(err, &e) && (e.Kind == lambda.InvalidParameter || e.Kind == lambda.TooLarge)
}
