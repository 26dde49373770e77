package tidy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// root is the repository, seen from this package.
const root = "../.."

// A source is one Go file of the repository.
type source struct {
	path    string // slash-separated, relative to the root
	text    string
	file    *ast.File
	set     *token.FileSet
	test    bool
	written bool // by hand, not generated
}

func (s *source) folder() string { return path.Dir(s.path) }

// sources parses every Go file below the root.
func sources(t *testing.T) []*source {
	t.Helper()
	var all []*source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		s := &source{path: filepath.ToSlash(relative), text: string(b), set: token.NewFileSet(), test: strings.HasSuffix(name, "_test.go")}
		if s.file, err = parser.ParseFile(s.set, name, b, parser.ParseComments); err != nil {
			return err
		}
		s.written = !ast.IsGenerated(s.file)
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("found only %d Go files: is this the repository?", len(all))
	}
	return all
}
