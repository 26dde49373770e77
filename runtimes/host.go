package runtimes

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// hostProgramTimeout bounds the programs of the host that this package runs.
const hostProgramTimeout = 20 * time.Second

// findProgram returns the file of a program: the one in /usr/bin before any that the PATH
// leads to. Scripts do not count: they are the switches of version managers, not interpreters.
// The answer is empty if there is none.
func findProgram(name string) string {
	directories := append([]string{"/usr/bin"}, filepath.SplitList(os.Getenv("PATH"))...)
	for _, directory := range directories {
		if !filepath.IsAbs(directory) {
			continue
		}
		file, err := filepath.EvalSymlinks(filepath.Join(directory, name))
		if err != nil {
			continue
		}
		info, err := os.Stat(file)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		f, err := elf.Open(file)
		if err != nil {
			continue
		}
		f.Close()
		return file
	}
	return ""
}

// runHostProgram runs a program of the host with an empty environment and returns what it
// printed.
func runHostProgram(ctx context.Context, input []byte, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, hostProgramTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Env = []string{}
	c.Dir = "/"
	c.Stdin = bytes.NewReader(input)
	var complaint bytes.Buffer
	c.Stderr = &complaint
	output, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w: %.300s", program, err, complaint.String())
	}
	return output, nil
}

var nodeVersion = regexp.MustCompile(`^v(\d+)\.\d+\.\d+`)

// nodeMajor returns the major version of a Node.js program: "20".
func nodeMajor(ctx context.Context, program string) (string, error) {
	output, err := runHostProgram(ctx, nil, program, "--version")
	if err != nil {
		return "", err
	}
	m := nodeVersion.FindSubmatch(output)
	if m == nil {
		return "", fmt.Errorf("%s does not print a version of Node.js but %.50q", program, output)
	}
	return string(m[1]), nil
}
