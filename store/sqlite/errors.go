package sqlite

import (
	"errors"

	"github.com/ncruces/go-sqlite3"

	"cloister/lambda"
)

// classifyRead turns the failed integrity checks of SQLite (page checksum, file structure) into
// the same kind as those of the bodies.
func classifyRead(err error) error {
	if errors.Is(err, sqlite3.IOERR_DATA) || errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, sqlite3.NOTADB) {
		return &lambda.Error{Kind: lambda.Corrupt, Op: "read the store", Err: err}
	}
	return err
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
