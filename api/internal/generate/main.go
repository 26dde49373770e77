// Command generate writes the packages of package api's services from the
// service models in botocore: types, errors, the Server interface, operations
// and constraints. `make generate` runs it; the models themselves are not
// kept in the repository. With -drift it says instead what the models of another,
// newer distribution add, remove and change; `make drift` runs it so.
//
// It is no general code generator: a trait of the models that it does not know
// and a pattern that cannot be checked stop it, so that nothing in a model is
// dropped unseen. Its input is pinned by version and SHA-256; nothing in it is
// chosen by a tenant.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"

	"cloister/api/internal/botocore"
)

// A target is one generated package.
type target struct {
	name      string // the service, and the package without "api"
	directory string // of the model inside botocore's data
	version   string // of the model

	validationCode string // what the service calls a failed validation
	failureCode    string // what the service calls an internal failure
	payloadType    string // content type of blobs that are a whole response
	faultType      bool   // errors say "Type":"User" or "Service"
	errorNamespace string // before the __type of errors

	// unchecked are enums that the service checks itself, with another error
	// than a failed validation, and why.
	unchecked map[string]string

	notNull  bool              // errors say that parts of lists and maps must not be null
	nullable map[string]string // of these they do not, and how that is known
}

var targets = []target{
	{
		name: "lambda", directory: "lambda", version: "2015-03-31",
		validationCode: "ValidationException", failureCode: "ServiceException",
		payloadType: "application/json", faultType: true,
		unchecked: map[string]string{
			"Runtime": "answered with InvalidParameterValueException by the service, which also takes an ARN",
		},
		notNull: true,
		nullable: map[string]string{
			"SubnetIds":        "an answer of November 2025",
			"SecurityGroupIds": "an answer of November 2025",
		},
	},
	{
		name: "iam", directory: "iam", version: "2010-05-08",
		validationCode: "ValidationError", failureCode: "ServiceFailure",
	},
	{
		name: "sts", directory: "sts", version: "2011-06-15",
		validationCode: "ValidationError", failureCode: "InternalFailure",
	},
	{
		name: "kms", directory: "kms", version: "2014-11-01",
		validationCode: "ValidationException", failureCode: "KMSInternalException",
	},
	{
		name: "logs", directory: "logs", version: "2014-03-28",
		validationCode: "InvalidParameterException", failureCode: "InternalServerException",
	},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("generate: ")
	output := flag.String("output", ".", "directory of package api")
	newer := flag.String("drift", "", "another source distribution of botocore, to be compared with the pinned one")
	flag.Parse()
	pinned, err := botocore.OpenPinned(isModel)
	switch {
	case err != nil:
	case *newer != "":
		err = printDrift(os.Stdout, pinned, *newer)
	default:
		err = writeAll(*output, pinned)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// isModel says whether a file of the distribution is one of the targets' models.
func isModel(path string) bool {
	return slices.ContainsFunc(targets, func(t target) bool { return path == botocore.ModelPath(t.directory, t.version) })
}

func printDrift(w io.Writer, pinned *botocore.Archive, path string) error {
	newer, err := botocore.Open(path, isModel)
	if err != nil {
		return err
	}
	version, _ := botocore.Pin()
	fmt.Fprintf(w, "botocore %s is pinned; compared with %s:\n", version, filepath.Base(path))
	lines, err := drift(pinned, newer)
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
	if err == nil && len(lines) == 0 {
		fmt.Fprintln(w, "no difference in what Cloister serves")
	}
	return err
}

func writeAll(output string, pinned *botocore.Archive) error {
	for _, t := range targets {
		files, err := t.files(pinned)
		if err != nil {
			return err
		}
		for name, text := range files {
			path := filepath.Join(output, t.name+"api", name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, text, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// files returns the target's files by name, as they stand in the repository.
func (t target) files(models *botocore.Archive) (map[string][]byte, error) {
	m, err := models.Model(t.directory, t.version)
	if err != nil {
		return nil, err
	}
	texts, err := generate(t, m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	for name, text := range texts {
		if texts[name], err = finish(name, t, text); err != nil {
			return nil, fmt.Errorf("%s: format %s: %w", t.name, name, err)
		}
	}
	return texts, nil
}

// finish formats one file below its header.
func finish(name string, t target, text []byte) ([]byte, error) {
	var b bytes.Buffer
	version, _ := botocore.Pin()
	fmt.Fprintf(&b, "// Code generated by cloister/api/internal/generate from botocore %s; DO NOT EDIT.\n\n", version)
	if name == "service.go" {
		packageComment(&b, t)
	}
	fmt.Fprintf(&b, "package %sapi\n\n", t.name)
	b.Write(text)
	return format.Source(b.Bytes())
}
