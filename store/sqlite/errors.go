package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/ncruces/go-sqlite3"

	"cloister/lambda"
)

// classifyRead turns the failed integrity checks of SQLite (page checksum, file structure) into
// the same kind as those of the bodies.
func classifyRead(err error) error {
	if isDamage(err) {
		return &lambda.Error{Kind: lambda.Corrupt, Op: "read the store", Err: err}
	}
	return err
}

// isDamage reports whether a page did not pass its checks.
func isDamage(err error) bool {
	return errors.Is(err, sqlite3.IOERR_DATA) || errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, sqlite3.NOTADB)
}

// isDiskFailure reports whether err is one after which the disk is not to be trusted. A bad
// page is not: the other pages may be good, and nothing was written.
func isDiskFailure(err error) bool {
	return errors.Is(err, sqlite3.IOERR) && !errors.Is(err, sqlite3.IOERR_DATA)
}

// isHarmless reports whether a failed transaction is known to have left nothing behind:
// the disk was full before the log was complete, or an operator's tool kept the file busy.
func isHarmless(err error) bool {
	return errors.Is(err, sqlite3.FULL) || errors.Is(err, sqlite3.BUSY)
}

// explainOpen adds what to do to an error of Open.
func explainOpen(path string, err error) error {
	const needed = 256 << 10 // the file of an empty store and the index of its log
	var disk syscall.Statfs_t
	switch {
	case lambda.KindOf(err) == lambda.Corrupt:
		return fmt.Errorf("%w: put back a copy of %s and its log that is whole", err, path)
	case errors.Is(err, sqlite3.IOERR) || errors.Is(err, sqlite3.FULL):
		// SQLite does not tell a full disk from a broken one here.
		if syscall.Statfs(filepath.Dir(path), &disk) == nil && disk.Bavail*uint64(disk.Bsize) < needed {
			return fmt.Errorf("no space left on the disk: make room and start again: %w", err)
		}
	}
	return err
}
