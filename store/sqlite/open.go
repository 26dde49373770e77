package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ncruces/go-sqlite3"

	"cloister/internal/durable"
	"cloister/internal/seal"
	"cloister/store"
)

const (
	applicationID = 0x436c7374 // "Clst", marks our files
	schemaVersion = 2

	// busyMilliseconds is how long a connection waits for an operator's tool.
	busyMilliseconds = 10_000
)

// A row of obj is an object; its idx rows say under which indexes it can be found. A row of log
// is what one transaction changed; the last one holds the last revision, so that it is never empty
// once something was written. meta holds a sealed check value that only the right key opens, and
// how often the write-ahead log began anew.
const (
	schema = `
CREATE TABLE obj (
	kind TEXT NOT NULL, acct TEXT NOT NULL, key TEXT NOT NULL,
	rev INTEGER NOT NULL, body BLOB NOT NULL,
	PRIMARY KEY (kind, acct, key)
) STRICT;
CREATE TABLE idx (
	kind TEXT NOT NULL, acct TEXT NOT NULL, name TEXT NOT NULL, val TEXT NOT NULL, key TEXT NOT NULL,
	PRIMARY KEY (kind, acct, name, val, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idx_by_object ON idx (kind, acct, key);
CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;` + schemaLog

	schemaLog = `
CREATE TABLE log (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, events BLOB NOT NULL) STRICT;
INSERT INTO meta VALUES ('restarts', 0);`

	lastRevision = "SELECT last FROM log ORDER BY last DESC LIMIT 1"
)

// createIfMissing makes the file complete under another name first, so that a killed
// process never leaves half a store.
func createIfMissing(c Config) error {
	if exists, err := exists(c.Path); exists || err != nil {
		return err
	}
	if err := checkNoRemains(c); err != nil {
		if exists, _ := exists(c.Path); exists {
			return nil // another process made it at this moment
		}
		return err
	}
	directory := filepath.Dir(c.Path)
	if err := durable.MakeDirectory(directory, 0o700); err != nil {
		return err
	}
	f, err := durable.Create(directory, 0o600)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := writeNew(f.Name(), c.Key); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := f.CommitNew(c.Path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil // made by us, or at the same moment by another process
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// checkNoRemains refuses to begin anew beside what is left of a store.
func checkNoRemains(c Config) error {
	// SQLite would replay such a log into the new, different file.
	if info, err := os.Lstat(c.Path + "-wal"); err == nil && info.Size() > 0 {
		return fmt.Errorf("the file is missing but its log %s-wal is not: put back the file, or move the log away", c.Path)
	}
	m, err := c.disk.openPlain(c.Path + markSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the mark: %w", err)
	}
	defer m.Close()
	acknowledged, err := readMark(m)
	if err == nil && acknowledged > 0 {
		err = lost(c.Path, acknowledged, 0)
	}
	return err
}

// lock keeps others from the file. The kernel drops the lock with the process. It does not
// meet SQLite's own locks, which are of another sort.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, store.ErrInUse
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

func writeNew(path string, key *seal.Key) (err error) {
	db, err := sqlite3.OpenFlags(path, sqlite3.OPEN_READWRITE)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.EnableChecksums("main"); err != nil {
		return err
	}
	if err := db.Exec(fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d;", applicationID, schemaVersion)); err != nil {
		return err
	}
	if err := db.Exec(schema); err != nil {
		return err
	}
	return insertBlob(db, "INSERT INTO meta VALUES ('check', ?)", key.Seal(nil, nil, seal.Bind("check")))
}

func insertBlob(db *sqlite3.Conn, sql string, blob []byte) error {
	s, _, err := db.Prepare(sql)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.BindBlob(1, blob); err != nil {
		return err
	}
	return s.Exec()
}

// connect opens a connection over a disk and checks that the file is ours.
func connect(c Config, disk string) (_ *sqlite3.Conn, err error) {
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return nil, err
	}
	// modeof gives the log the mode of the file, whatever the umask.
	query := url.Values{"modeof": {path}, "vfs": {disk}}
	name := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	db, err := sqlite3.OpenFlags(name.String(), sqlite3.OPEN_READWRITE|sqlite3.OPEN_URI)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	// Closing must not copy the log into the file: after an error of the disk that would be a
	// second fsync. writer.stop does it when all is well.
	if _, err := db.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true); err != nil {
		return nil, err
	}
	if err := db.Exec(fmt.Sprintf("PRAGMA busy_timeout=%d", busyMilliseconds)); err != nil {
		return nil, err
	}
	if err := verify(db, c.Key); err != nil {
		return nil, err
	}
	return db, db.Exec("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF")
}

// checkHeader refuses what is no store of ours before SQLite sees it: beside an empty file it deletes the log.
// What the log says about the header comes later, in verify.
func checkHeader(file *os.File) error {
	var header [100]byte
	if _, err := file.ReadAt(header[:], 0); errors.Is(err, io.EOF) {
		return store.ErrForeign
	} else if err != nil {
		return err
	}
	if string(header[:16]) != "SQLite format 3\x00" || binary.BigEndian.Uint32(header[68:]) != applicationID {
		return store.ErrForeign
	}
	return checkVersion(int64(binary.BigEndian.Uint32(header[60:])))
}

func checkVersion(version int64) error {
	switch {
	case version > schemaVersion:
		return fmt.Errorf("%w: it has schema %d, this release knows %d", store.ErrNewerSchema, version, schemaVersion)
	case version < 1:
		return fmt.Errorf("%w: it has schema %d", store.ErrForeign, version)
	}
	return nil
}

// verify changes nothing.
func verify(db *sqlite3.Conn, key *seal.Key) error {
	version, err := single(db, "PRAGMA user_version", (*sqlite3.Stmt).ColumnInt64)
	if err != nil {
		return classifyRead(err)
	}
	if err := checkVersion(version); err != nil {
		return err
	}
	check, err := single(db, "SELECT value FROM meta WHERE name='check'", func(s *sqlite3.Stmt, column int) []byte {
		return s.ColumnBlob(column, nil)
	})
	if err != nil {
		return classifyRead(err)
	}
	if _, err := key.Open(nil, check, seal.Bind("check")); err != nil {
		return store.ErrWrongKey
	}
	return nil
}

// single returns the first column of the only row.
func single[T any](db *sqlite3.Conn, sql string, column func(*sqlite3.Stmt, int) T) (value T, err error) {
	s, _, err := db.Prepare(sql)
	if err != nil {
		return value, err
	}
	defer s.Close()
	if s.Step() {
		return column(s, 0), nil
	}
	if err := s.Err(); err != nil {
		return value, err
	}
	return value, fmt.Errorf("%s: no row", sql)
}

// prepare compiles statements that live as long as the connection.
func prepare(db *sqlite3.Conn, statements map[**sqlite3.Stmt]string) (err error) {
	for s, sql := range statements {
		if *s, _, err = db.PrepareFlags(sql, sqlite3.PREPARE_PERSISTENT); err != nil {
			return fmt.Errorf("prepare %q: %w", sql, err)
		}
	}
	return nil
}

// closeConnection ends the statements of a connection, then itself.
func closeConnection(db *sqlite3.Conn) error {
	var open []*sqlite3.Stmt
	for s := range db.Stmts() {
		open = append(open, s)
	}
	for _, s := range open {
		s.Close() // repeats the error of the last step, which was reported then
	}
	return db.Close()
}
