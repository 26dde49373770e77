package runtimes

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"regexp"
)

// A nodeHost is the Node.js of this host.
type nodeHost struct {
	major   string // "20"
	program string
}

// nodeVariables are those that AWS sets for Node.js beside the ones of every runtime.
func (n *nodeHost) variables() map[string]string {
	return map[string]string{
		"NODE_PATH": "/opt/nodejs/node" + n.major + "/node_modules:/opt/nodejs/node_modules:" + runtimeDirectory + "/node_modules:" + runtimeDirectory + ":/var/task",
	}
}

func (n *nodeHost) plan(ca []byte) (*plan, error) {
	t := newTree()
	l, err := newLibraries()
	if err != nil {
		return nil, err
	}
	if err := l.add(n.program); err != nil {
		return nil, err
	}
	program := path.Join(languageDirectory, "bin/node")
	if err := t.file(program, n.program); err != nil {
		return nil, err
	}
	t.link("/usr/bin/node", program)
	if err := n.addOutsideModules(t, l); err != nil {
		return nil, err
	}
	if err := addOpenSSL(t); err != nil {
		return nil, err
	}
	if err := addBase(t, l, ca); err != nil {
		return nil, err
	}
	if err := addBootstrap(t, ".js"); err != nil {
		return nil, err
	}
	return &plan{
		tree:      t,
		bootstrap: []string{program, path.Join(runtimeDirectory, "bootstrap.js")},
		key:       t.key(n.program),
		node:      true,
	}, nil
}

// outsideModules is where Debian's Node.js has parts of itself that other builds carry inside.
const outsideModules = "/usr/share/nodejs/"

var outsideModule = regexp.MustCompile(regexp.QuoteMeta(outsideModules) + `[A-Za-z0-9@._/-]+\.js`)

// addOutsideModules adds the files that the program, or its library, names by their path.
func (n *nodeHost) addOutsideModules(t *tree, l *libraries) error {
	if _, err := os.Stat(outsideModules); err != nil {
		return nil // this Node.js carries all of itself
	}
	files := []string{n.program}
	for name, file := range l.found {
		if ok, _ := path.Match("libnode.so*", name); ok {
			files = append(files, file)
		}
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("find modules of Node.js: %w", err)
		}
		for {
			i := bytes.Index(data, []byte(outsideModules))
			if i < 0 {
				break
			}
			data = data[i:]
			if name := outsideModule.Find(data[:min(len(data), 4096)]); name != nil && bytes.HasPrefix(data, name) {
				if err := t.fileIfPresent(string(name), string(name)); err != nil {
					return err
				}
			}
			data = data[len(outsideModules):]
		}
	}
	return nil
}
