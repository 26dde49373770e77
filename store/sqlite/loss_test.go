package sqlite

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ncruces/go-sqlite3"

	"cloister/lambda"
	"cloister/store"
)

// logged is the objects of a store whose log was not copied into its file, or only just now.
type logged struct {
	config  Config
	objects map[string]uint64 // name → revision
}

// leaveLog commits updates of a few objects, so that each page is in the log many times, and leaves the files as a
// killed process does: after so many commits or, if the log is copied into the file every so many pages, as soon as
// that has happened again.
func leaveLog(t *testing.T, commits, checkpointPages int) logged {
	t.Helper()
	c := testConfig(t.TempDir())
	c.checkpointPages = checkpointPages
	s := mustOpen(t, c)
	l := logged{objects: map[string]uint64{}}
	for i, before := 0, ""; ; i++ {
		settle(t, s)
		file := mustRead(t, c.Path)
		if i >= commits && (checkpointPages == 0 || file != before) {
			l.config = kill(t, s)
			return l
		}
		before = file
		name := fmt.Sprint(i % 7)
		revisions, err := s.Commit(t.Context(), store.Change{Key: key("1", name), Expect: store.AnyRevision, Body: make([]byte, 700)})
		if err != nil {
			t.Fatal(err)
		}
		l.objects[name] = revisions[0]
	}
}

// missing returns how many of the objects a store opens without, or with older states; -1 if it is refused.
func (l logged) missing(t *testing.T, c Config) (n int) {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		if !errors.Is(err, store.ErrLost) || !strings.Contains(err.Error(), "-mark to go on") {
			t.Errorf("Open gave %v, want ErrLost and what to do", err)
		}
		return -1
	}
	defer s.Close()
	for name, revision := range l.objects {
		if o, err := s.Get(t.Context(), key("1", name)); err != nil || o.Revision != revision {
			n++
		}
	}
	return n
}

// flips are places of a log: its header, and through frames and places in them.
func flips(log string) (offsets []int) {
	for offset := 0; offset < len(log); offset += 311 {
		offsets = append(offsets, offset)
	}
	return append(offsets, 4, 17, 25, 33, 40, 50, len(log)-1)
}

func flipped(files map[string]string, name string, offset int) map[string]string {
	bad := map[string]string{}
	for n, content := range files {
		bad[n] = content
	}
	b := []byte(bad[name])
	b[offset] ^= 8
	bad[name] = string(b)
	return bad
}

// SQLite's replay stops at a frame whose checksum is wrong and drops all behind it. Opening the store either
// finds that out, or nothing was lost.
func TestAFlippedBitInTheLogIsNoticed(t *testing.T) {
	l := leaveLog(t, 30, 0)
	files := snapshot(t, l.config)
	refused := 0
	for _, offset := range flips(files["meta.db-wal"]) {
		c := lay(t, flipped(files, "meta.db-wal", offset))
		before := snapshot(t, c)
		switch n := l.missing(t, c); {
		case n > 0:
			t.Errorf("with a flipped bit at %d the store opened without %d objects", offset, n)
		case n < 0:
			refused++
			if diff := cmp.Diff(before, snapshot(t, c)); diff != "" {
				t.Errorf("the files were changed: %.300s", diff)
			}
		}
		os.RemoveAll(c.Path)
	}
	if refused < 100 {
		t.Errorf("only %d places were refused", refused)
	}
}

// TestWithoutTheMarkAFlippedBitDropsCommits is the control: what the mark is for.
func TestWithoutTheMarkAFlippedBitDropsCommits(t *testing.T) {
	l := leaveLog(t, 30, 0)
	files := snapshot(t, l.config)
	delete(files, "meta.db"+markSuffix)
	if n := l.missing(t, lay(t, flipped(files, "meta.db-wal", len(files["meta.db-wal"])/2))); n < 1 {
		t.Errorf("%d objects are missing, want some", n)
	}
}

// When the log was copied into the file its old frames must never be replayed over the newer pages.
func TestAFlippedBitInACopiedLogLosesNothing(t *testing.T) {
	// Long enough for the last rows of the log of changes to lie in pages that the beginning does not know: then
	// what is left of the log has old objects and the newest revision.
	l := leaveLog(t, 130, 500)
	files := snapshot(t, l.config)
	for offset := 32 + 40; offset < len(files["meta.db-wal"]); offset += 9 * (24 + 4096) { // in every ninth frame
		if n := l.missing(t, lay(t, flipped(files, "meta.db-wal", offset))); n > 0 {
			t.Errorf("with a flipped bit at %d the store opened without %d objects", offset, n)
		}
	}
}

func TestFilesThatAreMissingOrOldAreNoticed(t *testing.T) {
	l := leaveLog(t, 30, 0)
	s := mustOpen(t, l.config)
	older := snapshot(t, l.config)
	mustPut(t, s, "newer")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	newer := snapshot(t, s.config)
	older["meta.db"+markSuffix] = newer["meta.db"+markSuffix]
	without := func(files map[string]string, name string) map[string]string {
		left := map[string]string{}
		for n, content := range files {
			if n != name {
				left[n] = content
			}
		}
		return left
	}
	for name, files := range map[string]map[string]string{
		"the log is missing":     without(older, "meta.db-wal"),
		"older file and log":     older,
		"only the mark is there": without(without(newer, "meta.db"), "meta.db-wal"),
	} {
		t.Run(name, func(t *testing.T) {
			c := lay(t, files)
			if n := l.missing(t, c); n != -1 {
				t.Fatalf("the store opened, without %d objects", n)
			}
			if diff := cmp.Diff(files, snapshot(t, c)); diff != "" {
				t.Errorf("the files were changed: %.300s", diff)
			}
			// As the error says: an operator can accept the loss.
			if err := os.Remove(c.Path + markSuffix); err != nil {
				t.Fatal(err)
			}
			mustPut(t, mustOpen(t, c), "later")
		})
	}
}

func TestAMarkThatIsNoneIsMadeAnew(t *testing.T) {
	l := leaveLog(t, 3, 0)
	for name, mark := range map[string]string{"empty": "", "torn": string(encodeMark(1 << 40))[:20], "zeros": strings.Repeat("\x00", 30), "flipped": "1" + string(encodeMark(3))[1:]} {
		files := snapshot(t, l.config)
		files["meta.db"+markSuffix] = mark
		c := lay(t, files)
		s, err := Open(c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		mustPut(t, s, "next")
		now, err := s.Now(t.Context())
		if got := mustRead(t, c.Path+markSuffix); err != nil || !strings.HasPrefix(got, string(encodeMark(now.Revision))) {
			t.Errorf("%s: after revision %d the mark is %q, %v", name, now.Revision, got, err)
		}
	}
}

// What is not noticed, as DESIGN.md and docs/SECURITY.md say: a whole older row, with its revision.
func TestABodyOfAnOlderRevisionIsRefusedButAnOlderRowIsNot(t *testing.T) {
	c := filled(t)
	const row = "kind='thing' AND acct='1' AND key='050'"
	tamper(t, c, "CREATE TABLE kept AS SELECT rev, body FROM obj WHERE "+row)
	s := mustOpen(t, c)
	k := key("1", "050")
	if _, err := s.Commit(t.Context(), store.Change{Key: k, Expect: store.AnyRevision, Body: []byte("new")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tamper(t, c, "UPDATE obj SET body=(SELECT body FROM kept) WHERE "+row)
	s = mustOpen(t, c)
	if o, err := s.Get(t.Context(), k); lambda.KindOf(err) != lambda.Corrupt {
		t.Errorf("the body of an older revision gave %q, %v", o.Body, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tamper(t, c, "UPDATE obj SET rev=(SELECT rev FROM kept) WHERE "+row)
	s = mustOpen(t, c)
	if o, err := s.Get(t.Context(), k); err != nil || string(o.Body) != string(bodyOf(k)) {
		t.Errorf("an older row gave %q, %v", o.Body, err)
	}
}

func TestAChangedLogOfChangesIsRefused(t *testing.T) {
	for name, sql := range map[string]string{
		"changed":  "UPDATE log SET events = CAST(substr(events, 1, length(events)-1) || x'00' AS BLOB) WHERE last=200",
		"cut":      "UPDATE log SET events = x'' WHERE last=200",
		"moved":    "UPDATE log SET events = (SELECT events FROM log WHERE last=300) WHERE last=200",
		"removed":  "DELETE FROM log WHERE last=200",
		"shorter":  "UPDATE log SET first = first+1 WHERE last=200",
		"longer":   "UPDATE log SET first = first-1 WHERE last=200",
		"renamed":  "UPDATE log SET last = 201 WHERE last=200",
		"backward": "UPDATE log SET first = 500 WHERE last=200",
	} {
		t.Run(name, func(t *testing.T) {
			c := filled(t) // three commits of 100 changes
			tamper(t, c, sql)
			s := mustOpen(t, c)
			if events, err := s.Watch(t.Context(), 0, store.MaxPageLimit); lambda.KindOf(err) != lambda.Corrupt {
				t.Errorf("Watch gave %d events, %v; want Corrupt", len(events), err)
			}
			if events, err := s.Watch(t.Context(), 200, store.MaxPageLimit); name != "renamed" && (err != nil || len(events) != 100) {
				t.Errorf("behind the damage Watch gave %d events, %v", len(events), err)
			}
		})
	}
}

// TestAStoreOfSchema1IsBroughtForward opens one that the first version of this package has written.
func TestAStoreOfSchema1IsBroughtForward(t *testing.T) {
	old := mustRead(t, "testdata/schema1.db")
	c := lay(t, map[string]string{"meta.db": old})
	for range 2 {
		s := mustOpen(t, c)
		for i := range 5 {
			k := key("1", fmt.Sprintf("%03d", i))
			if o, err := s.Get(t.Context(), k); err != nil || string(o.Body) != string(bodyOf(k)) {
				t.Errorf("%v gave %q, %v", k, o.Body, err)
			}
		}
		if found, err := s.Lookup(t.Context(), "thing", "1", byColor, store.Page{Limit: 10}); err != nil || len(found) != 5 {
			t.Errorf("Lookup found %d objects, %v", len(found), err)
		}
		if now, err := s.Now(t.Context()); err != nil || now.Revision != 7 {
			t.Errorf("the last revision is %d, %v; want 7", now.Revision, err)
		}
		if events, err := s.Watch(t.Context(), 3, 10); !errors.Is(err, store.ErrTooOld) {
			t.Errorf("Watch gave %v, %v; want ErrTooOld", events, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := mustOpen(t, c)
	revisions, err := s.Commit(t.Context(), store.Change{Key: key("1", "005"), Body: []byte("new")})
	if err != nil || revisions[0] != 8 {
		t.Errorf("the next revision is %v, %v", revisions, err)
	}
	if events, err := s.Watch(t.Context(), 7, 10); err != nil || len(events) != 1 {
		t.Errorf("Watch gave %v, %v", events, err)
	}
	// The copy that was made before is a store as it was.
	copied := lay(t, map[string]string{"meta.db": mustRead(t, c.Path+"-schema1")})
	if version := userVersion(t, copied); version != 1 {
		t.Errorf("the copy has schema %d", version)
	}
	if o, err := mustOpen(t, copied).Get(t.Context(), key("1", "004")); err != nil || o.Revision != 5 {
		t.Errorf("the copy gave revision %d, %v", o.Revision, err)
	}
}

func userVersion(t *testing.T, c Config) int64 {
	t.Helper()
	db, err := sqlite3.OpenFlags(c.Path, sqlite3.OPEN_READONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	version, err := single(db, "PRAGMA user_version", (*sqlite3.Stmt).ColumnInt64)
	if err != nil {
		t.Fatal(err)
	}
	return version
}
