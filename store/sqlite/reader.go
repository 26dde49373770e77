package sqlite

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"cloister/store"
)

// A reader is a connection that only reads. It belongs to one goroutine at a time.
type reader struct {
	connection *sqlite3.Conn
	bodies     *bodies

	getOne, listFrom, lookupFrom, logFrom, lastRevision *sqlite3.Stmt
}

// readerCacheKiB bounds the pages that each reader keeps in memory.
const readerCacheKiB = 512

func openReader(c Config, disk string, b *bodies) (*reader, error) {
	db, err := connect(c, disk)
	if err != nil {
		return nil, err
	}
	r := &reader{connection: db, bodies: b}
	err = db.Exec(fmt.Sprintf("PRAGMA query_only=ON; PRAGMA cache_size=-%d", readerCacheKiB))
	if err == nil {
		err = prepare(db, map[**sqlite3.Stmt]string{
			&r.getOne:   "SELECT rev, body FROM obj WHERE kind=? AND acct=? AND key=?",
			&r.listFrom: "SELECT rev, body, key FROM obj WHERE kind=? AND acct=? AND key>=? ORDER BY key",
			&r.lookupFrom: "SELECT rev, body, key FROM idx CROSS JOIN obj USING (kind, acct, key) " +
				"WHERE kind=? AND acct=? AND name=? AND val=? AND key>? ORDER BY key",
			&r.logFrom:      "SELECT last, first, events FROM log WHERE last>? ORDER BY last",
			&r.lastRevision: lastRevision,
		})
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *reader) close() error { return closeConnection(r.connection) }

func (r *reader) get(k store.Key) (store.Object, error) {
	s := r.getOne
	defer s.Reset()
	if err := bindText(s, k.Kind, k.Account, k.Name); err != nil {
		return store.Object{}, err
	}
	if !s.Step() {
		if s.Err() != nil {
			return store.Object{}, s.Err()
		}
		return store.Object{}, fmt.Errorf("%w: %s %q of account %q", store.ErrNotFound, k.Kind, k.Name, k.Account)
	}
	return r.object(s, k)
}

func (r *reader) list(kind, account, prefix string, p store.Page) ([]store.Object, error) {
	from := prefix
	if p.After >= prefix {
		from = p.After + "\x00" // the next possible name
	}
	return r.collect(r.listFrom, kind, account, prefix, p.Limit, from)
}

func (r *reader) lookup(kind, account string, x store.Index, p store.Page) ([]store.Object, error) {
	return r.collect(r.lookupFrom, kind, account, "", p.Limit, x.Name, x.Value, p.After)
}

// collect runs a statement whose columns are revision, body and name, in order of names,
// until limit or the first name without the prefix.
func (r *reader) collect(s *sqlite3.Stmt, kind, account, prefix string, limit int, more ...string) ([]store.Object, error) {
	defer s.Reset()
	if err := bindText(s, append([]string{kind, account}, more...)...); err != nil {
		return nil, err
	}
	var found []store.Object
	for len(found) < limit && s.Step() {
		k := store.Key{Kind: kind, Account: account, Name: s.ColumnText(2)}
		if !strings.HasPrefix(k.Name, prefix) {
			return found, nil
		}
		o, err := r.object(s, k)
		if err != nil {
			return nil, err
		}
		found = append(found, o)
	}
	return found, s.Err()
}

// object reads the current row.
func (r *reader) object(s *sqlite3.Stmt, k store.Key) (store.Object, error) {
	revision := uint64(s.ColumnInt64(0))
	body, err := r.bodies.open(k, revision, s.ColumnRawBlob(1))
	if err != nil {
		return store.Object{}, err
	}
	return store.Object{Key: k, Revision: revision, Body: body}, nil
}

func bindText(s *sqlite3.Stmt, values ...string) error {
	for i, v := range values {
		if err := s.BindText(i+1, v); err != nil {
			return err
		}
	}
	return nil
}
