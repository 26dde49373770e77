package sqlite

import (
	"fmt"
	"path/filepath"

	"github.com/ncruces/go-sqlite3"

	"cloister/internal/durable"
)

// migrate brings a store of an earlier schema to this one, in one transaction, after a copy of it
// was made beside it. A copy that is there from an attempt cut short is replaced. It returns the last
// revision.
func migrate(c Config, db *sqlite3.Conn, b *bodies) (held uint64, err error) {
	version, err := single(db, "PRAGMA user_version", (*sqlite3.Stmt).ColumnInt64)
	if err != nil {
		return 0, err
	}
	if version < schemaVersion {
		if err := backup(db, fmt.Sprintf("%s-schema%d", c.Path, version)); err != nil {
			return 0, fmt.Errorf("copy the store before its schema is changed: %w", err)
		}
		if err := addLog(db, b); err != nil {
			return 0, fmt.Errorf("change the schema: %w", err)
		}
	}
	held, err = single(db, "SELECT coalesce(max(last), 0) FROM log", columnUint64)
	return held, classifyRead(err)
}

// addLog goes from schema 1 to 2: a log of changes, which takes over the last revision.
func addLog(db *sqlite3.Conn, b *bodies) (err error) {
	transaction, err := db.BeginImmediate()
	if err != nil {
		return err
	}
	defer transaction.End(&err)
	last, err := single(db, "SELECT value FROM meta WHERE name='revision'", columnUint64)
	if err != nil {
		return err
	}
	if err := db.Exec(fmt.Sprintf("DELETE FROM meta WHERE name='revision'; PRAGMA user_version=%d; %s", schemaVersion, schemaLog)); err != nil || last == 0 {
		return err
	}
	// A row without events: what led to this revision is not known.
	return insertBlob(db, fmt.Sprintf("INSERT INTO log (last, first, events) VALUES (%d, %d, ?)", last, last+1), b.sealEvents(last+1, nil))
}

func columnUint64(s *sqlite3.Stmt, column int) uint64 { return uint64(s.ColumnInt64(column)) }

// backup makes a durable copy of all that the connection sees.
func backup(db *sqlite3.Conn, path string) error {
	f, err := durable.Create(filepath.Dir(path), 0o600)
	if err != nil {
		return err
	}
	defer f.Abort()
	s, _, err := db.Prepare("VACUUM INTO ?")
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.BindText(1, f.Name()); err != nil {
		return err
	}
	if err := s.Exec(); err != nil {
		return err
	}
	return f.Commit(path)
}
