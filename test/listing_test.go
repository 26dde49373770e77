package test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ncruces/go-sqlite3"
)

// A reading says which fields' texts can be read in which file: paths in the data directory, and "standard error".
type reading map[string]map[string]bool

// forms are how a text may be written: in lower case, in hexadecimal and in UTF-16, to be looked for in content in lower case; and in
// base64 at each place that it can have in a longer text.
func forms(text string) (lower, base [][]byte) {
	small := []byte(strings.ToLower(text))
	lower = [][]byte{small, []byte(hex.EncodeToString([]byte(text))), []byte(hex.EncodeToString(small)), bytes.Join(bytes.Split(small, nil), []byte{0})}
	for shift := range 3 {
		whole := []byte(text[shift:])
		base = append(base, []byte(base64.StdEncoding.EncodeToString(whole[:len(whole)/3*3])))
	}
	return lower, base
}

// look adds what content, or a file's name, shows of the texts.
func (r reading) look(c *tracer, path string, content []byte) {
	if r[path] == nil {
		r[path] = map[string]bool{}
	}
	small := bytes.ToLower(content)
	shows := func(text string) bool {
		lower, base := forms(text)
		return slices.ContainsFunc(lower, func(form []byte) bool { return bytes.Contains(small, form) }) ||
			slices.ContainsFunc(base, func(form []byte) bool { return bytes.Contains(content, form) })
	}
	suspect := shows(canary) // all of them at once: some files are large
	for field, text := range c.texts {
		found := (suspect || !strings.HasPrefix(text, canary)) && shows(text)
		if found || strings.Contains(strings.ToLower(path), strings.ToLower(text)) {
			r[path][field] = true
		}
	}
}

// readAll looks at every file of a data directory, and at what functions have in /tmp: files without a name,
// which loop devices show.
func (r reading) readAll(t *testing.T, c *tracer, directory string) {
	t.Helper()
	err := filepath.WalkDir(directory, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a temporary file that has its name now
			}
			return err
		}
		name := strings.TrimPrefix(path, directory+"/")
		if strings.HasPrefix(name, "worker/") && r[name] != nil {
			return nil // a runtime image: large, and never changed
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		r.look(c, name, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, path := range backing {
		file, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(file), directory+"/worker/") || !strings.HasSuffix(strings.TrimSpace(string(file)), "(deleted)") {
			continue
		}
		device := "/dev/" + strings.Split(path, "/")[3]
		if f, err := os.Open(device); err == nil {
			r.readDevice(t, c, f)
			f.Close()
		}
	}
}

// readDevice looks at a file system in pieces that overlap.
func (r reading) readDevice(t *testing.T, c *tracer, f *os.File) {
	t.Helper()
	const overlap = 1 << 10
	piece := make([]byte, 4<<20)
	empty := make([]byte, len(piece))
	for at := int64(0); ; at += int64(len(piece) - overlap) {
		n, err := f.ReadAt(piece, at)
		if n > 0 && !bytes.Equal(piece[:n], empty[:n]) {
			r.look(c, "worker/without a name", piece[:n])
		}
		if err != nil || n < len(piece) {
			return
		}
	}
}

// A listing is the table of what is not sealed in docs/SECURITY.md: files, what of the customers' they show, and the
// columns of the store.
type listing struct {
	rows           []listed
	columns        map[string]bool // "table.column" → in clear
	linesOfColumns int
}

type listed struct {
	files  []string // patterns of package path; one that ends with / is all that is below
	fields map[string]bool
}

var quoted = regexp.MustCompile("`([^`]+)`")

func quotedIn(text string) (found []string) {
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

func parseListing(page string) listing {
	_, section, _ := strings.Cut(page, "\n## Not sealed\n")
	section, _, _ = strings.Cut(section, "\n## ")
	l := listing{columns: map[string]bool{}}
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| ") && len(cells) == 3 && strings.Contains(cells[0], "`") {
			row := listed{quotedIn(cells[0]), map[string]bool{}}
			for _, field := range quotedIn(cells[1]) {
				row.fields[field] = true
			}
			l.rows = append(l.rows, row)
		}
		for prefix, clear := range map[string]bool{"Columns in clear: ": true, "Sealed columns: ": false} {
			if strings.HasPrefix(line, prefix) {
				l.linesOfColumns++
				for _, column := range quotedIn(line) {
					l.columns[column] = clear
				}
			}
		}
	}
	return l
}

func (l listed) matches(path string) bool {
	return slices.ContainsFunc(l.files, func(pattern string) bool {
		if tree, ok := strings.CutSuffix(pattern, "/"); ok {
			return strings.HasPrefix(path, tree+"/")
		}
		ok, _ := filepath.Match(pattern, path)
		return ok
	})
}

// faults are the differences between what can be read and what is listed.
func (l listing) faults(r reading) (wrong []string) {
	seen := make([]map[string]bool, len(l.rows))
	for path, fields := range r {
		at := slices.IndexFunc(l.rows, func(row listed) bool { return row.matches(path) })
		if at < 0 {
			wrong = append(wrong, "no row for the file "+path)
			continue
		}
		if seen[at] == nil {
			seen[at] = map[string]bool{}
		}
		for field, found := range fields {
			seen[at][field] = seen[at][field] || found
			if found && !l.rows[at].fields[field] {
				wrong = append(wrong, fmt.Sprintf("%s shows the %s, which its row does not list", path, field))
			}
		}
	}
	for i, row := range l.rows {
		if seen[i] == nil {
			wrong = append(wrong, fmt.Sprintf("there is no file of the row %q", row.files))
		}
		for field := range row.fields {
			if seen[i] != nil && !seen[i][field] {
				wrong = append(wrong, fmt.Sprintf("the row %q lists the %s, which nothing shows", row.files, field))
			}
		}
	}
	return wrong
}

// columnFaults compares the columns of a store with the listing. Values of sealed columns must not be text or numbers.
func (l listing) columnFaults(t *testing.T, path string) (wrong []string) {
	t.Helper()
	db, err := sqlite3.OpenFlags(path, sqlite3.OPEN_READONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	each := func(sql string, visit func(*sqlite3.Stmt)) {
		s, _, err := db.Prepare(sql)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for s.Step() {
			visit(s)
		}
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
	}
	there := map[string]bool{}
	each("SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type='table'", func(s *sqlite3.Stmt) {
		table, name := s.ColumnText(0), s.ColumnText(1)
		column := table + "." + name
		there[column] = true
		clear, known := l.columns[column]
		if !known {
			wrong = append(wrong, "the column "+column+" is not listed")
		}
		if known && !clear {
			each("SELECT "+name+" FROM "+table, func(s *sqlite3.Stmt) {
				if b := s.ColumnBlob(0, nil); len(b) < 28 || utf8.Valid(b) {
					wrong = append(wrong, fmt.Sprintf("%s is listed as sealed and holds %q", column, b))
				}
			})
		}
	})
	for column := range l.columns {
		if !there[column] {
			wrong = append(wrong, "the column "+column+" is listed and is not there")
		}
	}
	return wrong
}
