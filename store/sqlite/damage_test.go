package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ncruces/go-sqlite3"

	"cloister/internal/seal"
	"cloister/lambda"
	"cloister/store"
)

func key(account, name string) store.Key {
	return store.Key{Kind: "thing", Account: account, Name: name}
}

var byColor = store.Index{Name: "color", Value: "red"}

// filled is a closed store of a few hundred objects and its configuration.
func filled(t *testing.T) Config {
	t.Helper()
	c := testConfig(t.TempDir())
	s := mustOpen(t, c)
	for account := range 3 {
		var changes []store.Change
		for i := range 100 {
			k := key(fmt.Sprint(account), fmt.Sprintf("%03d", i))
			changes = append(changes, store.Change{Key: k, Body: bodyOf(k), Indexes: []store.Index{byColor}})
		}
		if _, err := s.Commit(t.Context(), changes...); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

func bodyOf(k store.Key) []byte { return []byte(strings.Repeat(k.Account+k.Name+" ", 50)) }

// tamper runs SQL on the file behind the engine's back.
func tamper(t *testing.T, c Config, sql string) {
	t.Helper()
	db, err := sqlite3.Open(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Exec(sql); err != nil {
		t.Fatal(err)
	}
}

func TestAChangedOrMovedBodyIsRefused(t *testing.T) {
	const row = "kind='thing' AND acct='1' AND key='050'"
	body := func(where string) string { return "(SELECT body FROM obj WHERE kind='thing' AND " + where + ")" }
	for name, sql := range map[string]string{
		"first byte changed":        "UPDATE obj SET body = CAST(x'00' || substr(body, 2) AS BLOB) WHERE " + row,
		"last byte changed":         "UPDATE obj SET body = CAST(substr(body, 1, length(body)-1) || x'00' AS BLOB) WHERE " + row,
		"cut":                       "UPDATE obj SET body = substr(body, 1, length(body)-1) WHERE " + row,
		"emptied":                   "UPDATE obj SET body = x'' WHERE " + row,
		"lengthened":                "UPDATE obj SET body = CAST(body || x'00' AS BLOB) WHERE " + row,
		"body of another row":       "UPDATE obj SET body = " + body("acct='1' AND key='051'") + " WHERE " + row,
		"body of another account":   "UPDATE obj SET body = " + body("acct='2' AND key='050'") + " WHERE " + row,
		"row of another account":    "DELETE FROM obj WHERE " + row + "; UPDATE obj SET acct='1' WHERE kind='thing' AND acct='2' AND key='050'",
		"row of another name":       "DELETE FROM obj WHERE " + row + "; UPDATE obj SET key='050' WHERE kind='thing' AND acct='1' AND key='099'",
		"row of another kind":       "DELETE FROM obj WHERE " + row + "; UPDATE obj SET kind='thing', acct='1', key='050' WHERE acct='2' AND key='001'",
		"another revision":          "UPDATE obj SET rev = rev + 1000 WHERE " + row,
		"the revision of another":   "UPDATE obj SET rev = (SELECT rev FROM obj WHERE acct='1' AND key='051') WHERE " + row,
		"a revision of another key": fmt.Sprintf("UPDATE obj SET rev = %d WHERE "+row, uint64(keyRevisions)*3),
		"a negative revision":       "UPDATE obj SET rev = -1 WHERE " + row,
	} {
		t.Run(name, func(t *testing.T) {
			c := filled(t)
			tamper(t, c, sql)
			s := mustOpen(t, c)
			_, errGet := s.Get(t.Context(), key("1", "050"))
			_, errList := s.List(t.Context(), "thing", "1", "", store.Page{Limit: 100})
			_, errLookup := s.Lookup(t.Context(), "thing", "1", byColor, store.Page{Limit: 100})
			for call, err := range map[string]error{"Get": errGet, "List": errList, "Lookup": errLookup} {
				if lambda.KindOf(err) != lambda.Corrupt {
					t.Errorf("%s gave %v, want Corrupt", call, err)
				}
			}
			// The rest of the store goes on.
			k := key("1", "049")
			if o, err := s.Get(t.Context(), k); err != nil || !bytes.Equal(o.Body, bodyOf(k)) {
				t.Errorf("another object gave %q, %v", o.Body, err)
			}
			if _, err := s.Commit(t.Context(), store.Change{Key: key("1", "050"), Expect: store.AnyRevision, Body: []byte("new")}); err != nil {
				t.Errorf("overwriting it gave %v", err)
			}
			if o, err := s.Get(t.Context(), key("1", "050")); err != nil || string(o.Body) != "new" {
				t.Errorf("overwritten, it gave %q, %v", o.Body, err)
			}
		})
	}
}

// A flipped bit anywhere in the file may make reads fail, never succeed with other data.
func TestAFlippedBitIsNeverRead(t *testing.T) {
	c := filled(t)
	good, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	detected := 0
	for offset := 50; offset < len(good); offset += 4096 + 777 { // through pages and places in them
		bad := bytes.Clone(good)
		bad[offset] ^= 4
		if err := os.WriteFile(c.Path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if readsAllOrFails(t, c, offset) {
			detected++
		}
	}
	if detected < len(good)/(4096+777)*9/10 { // free pages may go unread
		t.Errorf("only %d flipped bits were noticed in %d pages", detected, len(good)/4096)
	}
}

// A damaged page refuses what lies on it, for writing as for reading; all else goes on, also in the same group of commits.
func TestADamagedPageStopsOnlyWhatLiesOnIt(t *testing.T) {
	c := filled(t)
	content := []byte(mustRead(t, c.Path))
	sealed := sealedBody(t, c, key("1", "050"))
	at := bytes.Index(content, sealed[:100])
	if at < 0 {
		t.Fatal("the body is not in the file as it is")
	}
	content[at+10] ^= 1
	if err := os.WriteFile(c.Path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFaults(&c)
	s := mustOpen(t, c)
	entered, open := gate(f)
	results := make(chan error, 11)
	go func() { results <- put(s, t.Context(), "first") }()
	<-entered
	for i := range 10 {
		k := key("new", fmt.Sprint(i)) // a page of its own, in the end of the file
		if i == 5 {
			k = key("1", "050")
		}
		go func() {
			_, err := s.Commit(t.Context(), store.Change{Key: k, Expect: store.AnyRevision, Body: []byte("x")})
			results <- err
		}()
	}
	waitUntil(t, func() bool { return len(s.writer.requests) == 10 })
	open()
	damaged := 0
	for range 11 {
		if err := <-results; lambda.KindOf(err) == lambda.Corrupt {
			damaged++
		} else if err != nil {
			t.Error(err)
		}
	}
	if damaged != 1 {
		t.Errorf("%d commits of 11 were refused, want the one on the damaged page", damaged)
	}
	mustPut(t, s, "later")
}

// sealedBody is the bytes of an object's body in the file.
func sealedBody(t *testing.T, c Config, k store.Key) (sealed []byte) {
	t.Helper()
	db, err := sqlite3.Open(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	query := fmt.Sprintf("SELECT body FROM obj WHERE kind='%s' AND acct='%s' AND key='%s'", k.Kind, k.Account, k.Name)
	sealed, err = single(db, query, func(s *sqlite3.Stmt, column int) []byte { return s.ColumnBlob(column, nil) })
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// readsAllOrFails reports whether something failed.
func readsAllOrFails(t *testing.T, c Config, offset int) (failed bool) {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		return true
	}
	defer s.Close()
	for account := range 3 {
		for i := range 100 {
			k := key(fmt.Sprint(account), fmt.Sprintf("%03d", i))
			o, err := s.Get(t.Context(), k)
			if errors.Is(err, store.ErrNotFound) {
				t.Errorf("offset %d: %v is gone without an error", offset, k)
			}
			if failed = failed || err != nil; err == nil && !bytes.Equal(o.Body, bodyOf(k)) {
				t.Errorf("offset %d: %v came back as %q", offset, k, o.Body)
			}
		}
		found, err := s.Lookup(t.Context(), "thing", fmt.Sprint(account), byColor, store.Page{Limit: 1000})
		if failed = failed || err != nil; err == nil && len(found) != 100 {
			t.Errorf("offset %d: Lookup found %d objects of 100 without an error", offset, len(found))
		}
	}
	return failed
}

// snapshot is every file of a store but the index of the log, which SQLite makes anew, and a log that is empty.
func snapshot(t *testing.T, c Config) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(filepath.Dir(c.Path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "-shm") || e.IsDir() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(filepath.Dir(c.Path), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(e.Name(), "-wal") || len(content) > 0 {
			files[e.Name()] = string(content)
		}
	}
	return files
}

// lay makes files of a snapshot a store of their own.
func lay(t *testing.T, files map[string]string) Config {
	t.Helper()
	c := testConfig(t.TempDir())
	if err := os.Mkdir(filepath.Dir(c.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(filepath.Dir(c.Path), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// killed is a store as a killed process leaves it: its newest objects are in the log only.
func killed(t *testing.T) Config {
	t.Helper()
	s := mustOpen(t, filled(t))
	for i := range 20 {
		mustPut(t, s, fmt.Sprint("in the log ", i))
	}
	return kill(t, s)
}

// kill returns a copy of a store's files as they are now.
func kill(t *testing.T, s *Store) Config {
	t.Helper()
	settle(t, s)
	return lay(t, snapshot(t, s.config))
}

// settle waits until the writer has done all that follows earlier commits.
func settle(t *testing.T, s *Store) {
	t.Helper()
	if _, err := s.Commit(t.Context(), store.Change{Key: key("1", "none"), Check: true}); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAStoreThatIsNotOursIsRefusedAndUntouched(t *testing.T) {
	tampered := func(sql string) func(*testing.T, *Config) {
		return func(t *testing.T, c *Config) { tamper(t, *c, sql) }
	}
	holding := func(text string) func(*testing.T, *Config) {
		return func(t *testing.T, c *Config) {
			if err := os.WriteFile(c.Path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, c *Config)
		want   error
	}{
		"another root key":        {func(t *testing.T, c *Config) { c.Key = mustKey(seal.NewSecret()) }, store.ErrWrongKey},
		"the key of another file": {func(t *testing.T, c *Config) { c.Key = c.Key.Derive("another") }, store.ErrWrongKey},
		"a file of another installation": {func(t *testing.T, c *Config) {
			other := testConfig(t.TempDir())
			other.Key = mustKey(seal.NewSecret())
			if err := mustOpen(t, other).Close(); err != nil {
				t.Fatal(err)
			}
			holding(mustRead(t, other.Path))(t, c)
			if err := os.Remove(c.Path + "-wal"); err != nil {
				t.Fatal(err)
			}
		}, store.ErrWrongKey},
		"a newer schema":      {tampered(fmt.Sprintf("PRAGMA user_version=%d", schemaVersion+1)), store.ErrNewerSchema},
		"an unknown schema":   {tampered("PRAGMA user_version=0"), store.ErrForeign},
		"another application": {tampered("PRAGMA application_id=7"), store.ErrForeign},
		"text":                {holding("this is no database"), store.ErrForeign},
		"long text":           {holding(strings.Repeat("this is no database ", 1000)), store.ErrForeign},
		"nothing":             {holding(""), store.ErrForeign},
		"random bytes":        {holding(string(seal.NewSecret())), store.ErrForeign},
	} {
		t.Run(name, func(t *testing.T) {
			config := killed(t)
			c.change(t, &config)
			before := snapshot(t, config)
			for range 2 {
				if s, err := Open(config); !errors.Is(err, c.want) || s != nil {
					t.Fatalf("Open gave %v, want %v", err, c.want)
				}
			}
			if diff := cmp.Diff(before, snapshot(t, config)); diff != "" {
				t.Errorf("the files were changed: %.300s", diff)
			}
		})
	}
}

func TestARefusedKeyHarmsNothing(t *testing.T) {
	c := killed(t)
	wrong := c
	wrong.Key = mustKey(seal.NewSecret())
	if _, err := Open(wrong); !errors.Is(err, store.ErrWrongKey) {
		t.Fatalf("Open gave %v", err)
	}
	s := mustOpen(t, c)
	if o, err := s.Get(t.Context(), key("1", "050")); err != nil || !bytes.Equal(o.Body, bodyOf(o.Key)) {
		t.Errorf("with the right key Get gave %q, %v", o.Body, err)
	}
}

func TestALogWithoutItsFileIsNotReplayed(t *testing.T) {
	c := filled(t)
	if err := errors.Join(os.WriteFile(c.Path+"-wal", []byte("a log"), 0o600), os.Remove(c.Path)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c); err == nil || !strings.Contains(err.Error(), "log") {
		t.Errorf("Open gave %v, want an error about the log", err)
	}
	if _, err := os.Stat(c.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a new file was made: %v", err)
	}
}

func TestNothingPlainIsOnDiskAndFilesArePrivate(t *testing.T) {
	c := testConfig(t.TempDir())
	s := mustOpen(t, c)
	canary := []byte("canary-5c1f7e-secret")
	if _, err := s.Commit(t.Context(), store.Change{Key: key("1", "name"), Body: bytes.Repeat(canary, 10)}); err != nil {
		t.Fatal(err)
	}
	check := func(want int) {
		t.Helper()
		files, err := os.ReadDir(filepath.Dir(c.Path))
		if err != nil || len(files) < want {
			t.Fatalf("%d files, %v; want %d", len(files), err, want)
		}
		for _, f := range files {
			content, err := os.ReadFile(filepath.Join(filepath.Dir(c.Path), f.Name()))
			if err != nil || bytes.Contains(content, canary[:12]) {
				t.Errorf("%s holds the body in clear (%v)", f.Name(), err)
			}
			// The -shm file holds page numbers only.
			if info, err := f.Info(); err != nil || info.Mode() != 0o600 && !strings.HasSuffix(f.Name(), "-shm") {
				t.Errorf("%s: %v, %v; want mode 0600", f.Name(), info.Mode(), err)
			}
		}
	}
	check(4) // with the log and the mark
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(2)
	if info, err := os.Stat(filepath.Dir(c.Path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v, %v; want mode 0700", info.Mode(), err)
	}
}
