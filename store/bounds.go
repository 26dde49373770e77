package store

import (
	"strings"
	"unicode/utf8"

	"cloister/lambda"
)

// Bounds of every engine. One commit fits into the smallest group of commits.
const (
	MaxNameBytes     = 1024 // each of kind, account, name, index name and index value
	MaxBodyBytes     = 8 << 20
	MaxIndexes       = 16 // of one object
	MaxCommitChanges = 1000
	MaxCommitBytes   = 16 << 20 // bodies and names of one commit
	MaxPageLimit     = 10_000
	KeptChanges      = 10_000 // writes that the log of changes goes back at least
)

// CheckCommit returns an error of kind lambda.InvalidParameter unless the changes are within
// the bounds, name valid UTF-8 without NUL, and have different keys. Engines call it first.
func CheckCommit(changes []Change) error {
	if len(changes) > MaxCommitChanges {
		return refuse("a commit of %d changes, want at most %d", len(changes), MaxCommitChanges)
	}
	var seen map[Key]struct{}
	if len(changes) > 1 { // a commit of one change is the most frequent, and cannot name a key twice
		seen = make(map[Key]struct{}, len(changes))
	}
	total := 0
	for _, c := range changes {
		if err := checkChange(c); err != nil {
			return err
		}
		if _, dup := seen[c.Key]; dup {
			return refuse("two changes of %s %q in one commit", c.Kind, c.Name)
		}
		if seen != nil {
			seen[c.Key] = struct{}{}
		}
		total += c.Size()
	}
	if total > MaxCommitBytes {
		return refuse("a commit of %d bytes, want at most %d", total, MaxCommitBytes)
	}
	return nil
}

func checkChange(c Change) error {
	if err := checkKey(c.Key); err != nil {
		return err
	}
	if c.Check && (c.Expect == AnyRevision || c.Delete || len(c.Body) > 0 || len(c.Indexes) > 0) {
		return refuse("a check of %s %q expects no revision, or is a write as well", c.Kind, c.Name)
	}
	if len(c.Body) > MaxBodyBytes {
		return refuse("%s %q has a body of %d bytes, want at most %d", c.Kind, c.Name, len(c.Body), MaxBodyBytes)
	}
	if len(c.Indexes) > MaxIndexes {
		return refuse("%s %q has %d indexes, want at most %d", c.Kind, c.Name, len(c.Indexes), MaxIndexes)
	}
	for _, x := range c.Indexes {
		if !validName(x.Name) || x.Name == "" || !validName(x.Value) {
			return refuse("%s %q has the bad index %q = %.64q", c.Kind, c.Name, x.Name, x.Value)
		}
	}
	return nil
}

func checkKey(k Key) error {
	if k.Kind == "" || k.Name == "" || !validName(k.Kind) || !validName(k.Account) || !validName(k.Name) {
		return refuse("bad key: kind %.64q, account %.64q, name %.64q", k.Kind, k.Account, k.Name)
	}
	return nil
}

func validName(s string) bool {
	return len(s) <= MaxNameBytes && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// Size is what the change counts against MaxCommitBytes.
func (c Change) Size() int {
	n := len(c.Kind) + len(c.Account) + len(c.Name) + len(c.Body)
	for _, x := range c.Indexes {
		n += len(x.Name) + len(x.Value)
	}
	return n
}

// Check returns an error of kind lambda.InvalidParameter unless the page is within the bounds.
func (p Page) Check() error {
	if p.Limit < 1 || p.Limit > MaxPageLimit {
		return refuse("a page of %d objects, want 1 to %d", p.Limit, MaxPageLimit)
	}
	return nil
}

// CheckLimit returns an error of kind lambda.InvalidParameter unless Watch may return so many events.
func CheckLimit(limit int) error {
	if limit < 1 || limit > MaxPageLimit {
		return refuse("at most %d events, want 1 to %d", limit, MaxPageLimit)
	}
	return nil
}

func refuse(format string, args ...any) error {
	return lambda.Errorf(lambda.InvalidParameter, "check store call", format, args...)
}
