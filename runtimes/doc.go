// Package runtimes provides the managed runtimes: what a function's environment has as its
// root file system, which program starts in it, and which runtime identifiers exist at all.
//
// A runtime is one read-only EROFS image, made once from the interpreter that is installed on
// this host: the files that it needs and no others, the shared libraries that they load, and
// Cloister's own bootstrap (folder bootstrap). The host's /usr is never visible in an
// environment. Images are kept in a directory and named by the digest of what they were made from
// and the digest of what they are, so that a changed host makes a new image and a
// changed image is noticed and made again.
//
// It does not mount images, start processes or compose a function's environment variables
// (package worker does), and decides nothing about functions (package control does). It runs in
// the privileged worker process; the pure checks of identifiers are for anybody.
//
// Invariants: images hold directories, regular files and symbolic links with modes 0755 and 0644
// only, owned by root; nothing in them comes from a tenant. Two processes are run, both the
// host's own: "node --version", and the Python interpreter in isolated mode to compile the
// bootstrap. An attacker inside an environment can read everything in an image; no secret
// is in it.
package runtimes

import (
	"fmt"
	"os"
	"strconv"
)

// A Runtime is a managed runtime that is ready to start environments.
type Runtime struct {
	Identifier string // "python3.11"
	VersionARN string // "arn:aws:lambda:us-east-1::runtime:<SHA-256 of the image>"

	// Bootstrap is the program that runs the function, and its arguments. Command adds what
	// depends on the function.
	Bootstrap []string

	// Key names the image: runtimes of the same Key have the same root.
	Key  string
	Size int64  // of the image, in bytes
	File string // path of the image; Open opens it

	// ExecutionEnvironment is the value of AWS_EXECUTION_ENV; empty: the variable is not set.
	ExecutionEnvironment string

	// Environment holds the variables that this runtime presets. A function may override
	// them. It must not be changed.
	Environment map[string]string

	node bool // whether Command adds the options of Node.js
}

// Open opens the image. The caller closes it.
func (r Runtime) Open() (*os.File, error) {
	f, err := os.Open(r.File)
	if err != nil {
		return nil, fmt.Errorf("open image of runtime %s: %w", r.Identifier, err)
	}
	return f, nil
}

// Shares of a function's memory that Node.js may use for old and for new objects, in per cent.
const (
	oldSpacePercent  = 90
	semiSpacePercent = 5
)

// Command returns the program and its arguments for a function with this much memory. Wrapper is
// the function's AWS_LAMBDA_EXEC_WRAPPER; if it is not empty it is the program, and
// is given the command to run. It comes from the customer.
func (r Runtime) Command(memoryMiB int, wrapper string) []string {
	var command []string
	if wrapper != "" && r.ExecutionEnvironment != "" { // AWS: not for custom runtimes
		command = append(command, wrapper)
	}
	command = append(command, r.Bootstrap[0])
	if r.node {
		command = append(command,
			"--expose-gc",
			"--max-http-header-size=81920",
			"--max-semi-space-size="+strconv.Itoa(max(1, memoryMiB*semiSpacePercent/100)),
			"--max-old-space-size="+strconv.Itoa(memoryMiB*oldSpacePercent/100))
	}
	return append(command, r.Bootstrap[1:]...)
}
