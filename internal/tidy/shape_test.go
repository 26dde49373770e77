package tidy

import (
	"go/ast"
	"regexp"
	"strings"
	"testing"
)

// Guidance, not walls: a function is at most 60 lines, or has a reason to be clearly longer. The
// band between is refused so that short functions cannot creep.
const (
	maxFunctionLines = 60
	creepLines       = 69
	maxFileLines     = 500
	maxPackageFiles  = 15
)

// longer names what may exceed the guidance, with the reason.
var longer = map[string]string{
	"api": "one codec per protocol side by side",
}

func TestFunctionsAndFilesStayReadable(t *testing.T) {
	perPackage := map[string]int{}
	for _, s := range sources(t) {
		if !s.written || s.test {
			continue
		}
		perPackage[s.folder()]++
		if lines := strings.Count(s.text, "\n"); lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d: split it by what it does", s.path, lines, maxFileLines)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			lines := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1
			if lines > maxFunctionLines && lines <= creepLines {
				t.Errorf("%s: %s has %d lines; %d are the guidance", s.path, f.Name.Name, lines, maxFunctionLines)
			}
		}
	}
	for folder, files := range perPackage {
		if files > maxPackageFiles && longer[folder] == "" {
			t.Errorf("%s has %d files, more than %d: it does more than one thing", folder, files, maxPackageFiles)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	comments := map[string]string{}
	for _, s := range sources(t) {
		if s.test || s.file.Name.Name != "main" && !s.written {
			continue
		}
		if _, seen := comments[s.folder()]; !seen {
			comments[s.folder()] = ""
		}
		if s.file.Doc != nil {
			comments[s.folder()] += s.file.Doc.Text()
		}
	}
	for folder, comment := range comments {
		if len(strings.Fields(comment)) < 12 {
			t.Errorf("%s has no package comment that says what it is", folder)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !s.written {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc == nil {
					t.Errorf("%s: %s is exported and has no comment", s.path, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil {
						t.Errorf("%s: type %s is exported and has no comment", s.path, ts.Name.Name)
					}
				}
			}
		}
	}
}

// exportedReceiver says whether a function can be reached from outside: methods of unexported
// types are documented where their interface is.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	t := f.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if index, ok := t.(*ast.IndexExpr); ok {
		t = index.X
	}
	name, ok := t.(*ast.Ident)
	return ok && name.IsExported()
}

var (
	catchAll = regexp.MustCompile(`(^|/)(util|utils|common|helper|helpers|base|models|types|core|impl|manager|misc)(/|$)`)
	openTask = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	numbered = regexp.MustCompile(`\bTODO\(#\d+\)`)
)

func TestNamesSayWhatThingsAre(t *testing.T) {
	for _, s := range sources(t) {
		if catchAll.MatchString(s.folder()) {
			t.Errorf("%s: a folder that can hold anything explains nothing", s.path)
		}
		if strings.HasPrefix(s.path, "internal/tidy/") {
			continue
		}
		if n, m := len(openTask.FindAllString(s.text, -1)), len(numbered.FindAllString(s.text, -1)); n > m {
			t.Errorf("%s: an open task without an issue number", s.path)
		}
	}
}

// globals may be tables and errors, set once; init functions hide order.
func TestNothingHappensByImport(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !s.written {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", s.path)
			}
		}
	}
}
