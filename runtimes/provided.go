package runtimes

import (
	"errors"
	"path"
)

// shellTools are what bootstraps that are shell scripts call: the programs of the developer
// guide's tutorial and their usual companions. AWS's image has them, too. Those that the host
// lacks are left out. The images of the other runtimes have no shell.
var shellTools = []string{
	"basename", "cat", "chmod", "cp", "curl", "cut", "date", "dirname", "env", "expr", "false", "grep", "head", "id", "ls",
	"mkdir", "mktemp", "mv", "printf", "rm", "sed", "seq", "sleep", "sort", "tail", "tee", "test", "touch", "tr", "true", "uname", "uniq", "wc",
}

// planProvided describes the root of custom runtimes: the C and C++ libraries for programs that
// are linked to them, and a small shell for bootstraps that are scripts.
func planProvided(ca []byte) (*plan, error) {
	t := newTree()
	l, err := newLibraries()
	if err != nil {
		return nil, err
	}
	for _, name := range append([]string{"bash", "dash"}, shellTools...) {
		program := findProgram(name)
		if program == "" {
			continue
		}
		if err := l.add(program); errors.Is(err, errMissing) {
			continue
		} else if err != nil {
			return nil, err
		}
		if err := t.file(path.Join("/usr/bin", name), program); err != nil {
			return nil, err
		}
	}
	for _, shell := range []string{"dash", "bash"} { // on AWS sh is bash
		if t.has("/usr/bin/" + shell) {
			t.link("/usr/bin/sh", shell)
		}
	}
	if l.loader == "" {
		return nil, errors.New("the host has no shell to learn its dynamic loader from")
	}
	if err := addBase(t, l, ca); err != nil {
		return nil, err
	}
	return &plan{tree: t, bootstrap: []string{"/var/task/bootstrap"}, key: t.key()}, nil
}
