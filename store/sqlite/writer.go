package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"

	"cloister/lambda"
	"cloister/store"
)

// Bounds of a group: commits that share one transaction and so one fsync.
const (
	groupChanges = 2_000
	groupBytes   = 16 << 20

	// waitingRequests is how many commits wait in line without blocking their callers in
	// the channel; it bounds nothing else.
	waitingRequests = 1_024
)

// The write-ahead log is copied into the file when it has checkpointPages of 4 KiB. Long reads can delay
// that; at restartPages the writer waits for them, so that it does not grow without bound.
const (
	checkpointPages = 1_000
	restartPages    = 16_000
)

// The states of a request. Writer and caller decide by compare-and-swap who has it.
const (
	waiting   = iota
	taken     // the writer will answer
	withdrawn // the caller has gone; nothing of it is written
)

// A request is one Commit on its way through the writer.
type request struct {
	changes []store.Change
	state   atomic.Int32
	done    chan struct{} // closed when the fields below are set

	revisions []uint64
	err       error
}

func (r *request) bytes() (n int) {
	for _, c := range r.changes {
		n += c.Size()
	}
	return n
}

// The writer is the one goroutine that changes the file.
type writer struct {
	connection *sqlite3.Conn
	bodies     *bodies
	mark       plainFile
	fail       func(error) // closes the engine
	changed    func()      // wakes watchers
	requests   chan *request
	stopped    chan struct{} // closed when run has returned

	// All below belong to the goroutine.
	broken       error         // why nothing is written any more
	held         *request      // did not fit into the last group
	events       []store.Event // of the running transaction
	logPages     int           // in the write-ahead log
	checkpointAt int           // at so many pages it is copied
	checkpointBy int           // so many pages later, if readers were in the way

	begin, end, rollback, lastRevision, putEvents, trimEvents, restart *sqlite3.Stmt
	revisionOf, put, remove, removeIndexes, putIndex                   *sqlite3.Stmt
}

// prepareWriter readies a connection to write.
func (s *Store) prepareWriter(db *sqlite3.Conn, m plainFile) (*writer, error) {
	w := &writer{
		connection: db, bodies: &s.bodies, mark: m, fail: s.fail, changed: s.changes.ring,
		requests: make(chan *request, waitingRequests), stopped: make(chan struct{}),
		checkpointAt: s.config.checkpointPages, checkpointBy: s.config.checkpointPages,
	}
	mode, err := single(db, "PRAGMA journal_mode=WAL", (*sqlite3.Stmt).ColumnText)
	if err != nil || mode != "wal" {
		return nil, fmt.Errorf("switch to a write-ahead log: mode %q, %w", mode, err)
	}
	db.WALHook(func(_ *sqlite3.Conn, _ string, pages int) error {
		w.logPages = pages
		return nil
	})
	return w, prepare(db, map[**sqlite3.Stmt]string{
		&w.begin:        "BEGIN IMMEDIATE",
		&w.end:          "COMMIT",
		&w.rollback:     "ROLLBACK",
		&w.lastRevision: lastRevision,
		&w.putEvents:    "INSERT INTO log (last, first, events) VALUES (?, ?, ?)",
		&w.trimEvents:   "DELETE FROM log WHERE last<=?",
		&w.restart:      "UPDATE meta SET value=value+1 WHERE name='restarts'",
		&w.revisionOf:   "SELECT rev FROM obj WHERE kind=? AND acct=? AND key=?",
		&w.put: "INSERT INTO obj (kind, acct, key, rev, body) VALUES (?, ?, ?, ?, ?) " +
			"ON CONFLICT (kind, acct, key) DO UPDATE SET rev=excluded.rev, body=excluded.body",
		&w.remove:        "DELETE FROM obj WHERE kind=? AND acct=? AND key=?",
		&w.removeIndexes: "DELETE FROM idx WHERE kind=? AND acct=? AND key=?",
		&w.putIndex:      "INSERT OR IGNORE INTO idx (kind, acct, key, name, val) VALUES (?, ?, ?, ?, ?)",
	})
}

// commit hands changes to the writer and waits. Once the writer has taken them the
// context counts no more: the caller must learn the outcome.
func (w *writer) commit(ctx context.Context, changes []store.Change) ([]uint64, error) {
	r := &request{changes: changes, done: make(chan struct{})}
	select {
	case w.requests <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.state.CompareAndSwap(waiting, withdrawn) {
			return nil, ctx.Err()
		}
		<-r.done
	}
	return r.revisions, r.err
}

// stop ends the writer after the requests in line. No commit may begin any more.
func (w *writer) stop() error {
	close(w.requests)
	<-w.stopped
	if w.broken != nil {
		return nil
	}
	_, _, err := w.connection.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
	if errors.Is(err, sqlite3.BUSY) {
		return nil // an operator's tool reads; the next start copies the log
	}
	return err
}

func (w *writer) run() {
	defer close(w.stopped)
	for {
		group := w.gather()
		if len(group) == 0 {
			return
		}
		w.commitGroup(group)
		for _, r := range group {
			close(r.done)
		}
		w.checkpoint()
	}
}

// gather waits for a request and takes all that are in line behind it, within the bounds
// of a group. It returns none when no more can come.
func (w *writer) gather() []*request {
	var group []*request
	changes, bytes := 0, 0
	for {
		r := w.next(len(group) == 0)
		if r == nil {
			return group
		}
		changes, bytes = changes+len(r.changes), bytes+r.bytes()
		if len(group) > 0 && (changes > groupChanges || bytes > groupBytes) {
			w.held = r
			return group
		}
		group = append(group, r)
	}
}

// next returns the next request that is now ours, or nil.
func (w *writer) next(wait bool) *request {
	if r := w.held; r != nil {
		w.held = nil
		return r
	}
	for {
		var r *request
		if wait {
			r = <-w.requests
		} else {
			select {
			case r = <-w.requests:
			default:
			}
		}
		if r == nil || r.state.CompareAndSwap(waiting, taken) {
			return r
		}
	}
}

// commitGroup sets the outcome of every request. Only if the transaction as a whole fails
// does one request's error reach another.
func (w *writer) commitGroup(group []*request) {
	err := w.broken
	if err == nil {
		err = w.transaction(func() error { return w.applyGroup(group) })
	}
	switch {
	case err == nil:
		w.acknowledge()
		return
	case w.broken != nil:
		err = fmt.Errorf("%w: %w", store.ErrClosed, w.broken)
	case isDamage(err) && len(group) > 1: // of a page that some of them do not need
		for _, r := range group {
			w.commitGroup([]*request{r})
		}
		return
	case isDamage(err):
		err = classifyRead(err)
	default:
		if errors.Is(err, sqlite3.FULL) {
			err = fmt.Errorf("no space left on the disk: make room: %w", err)
		}
		err = &lambda.Error{Kind: lambda.Unavailable, Op: "commit to the store", Message: "the store cannot write now", Err: err}
	}
	for _, r := range group {
		r.revisions, r.err = nil, err
	}
}

// transaction runs what changes the file. If it fails and the writer is not broken afterwards,
// nothing was written.
func (w *writer) transaction(change func() error) error {
	err := w.begin.Exec()
	if err == nil {
		err = change()
	}
	damaged := isDamage(err)
	if err == nil {
		err = w.end.Exec()
	}
	if err == nil {
		return nil
	}
	if !damaged && !isHarmless(err) || !w.undo() {
		w.breakDown(fmt.Errorf("commit: %w", err))
	}
	return err
}

// acknowledge makes the commit that is now durable known: to the mark, then to watchers, and then,
// when it has returned, to the callers.
func (w *writer) acknowledge() {
	if len(w.events) == 0 {
		return
	}
	last := w.events[len(w.events)-1].Revision
	// A full disk leaves an older mark, which is never wrong; the next commit tries again.
	if _, err := w.mark.WriteAt(encodeMark(last), 0); err != nil && !isFull(err) {
		w.breakDown(fmt.Errorf("write the mark: %w", err))
	}
	w.changed()
}

func (w *writer) breakDown(cause error) {
	if w.broken == nil {
		w.broken = cause
		w.fail(cause)
	}
}

// undo ends a failed transaction and reports whether that worked.
func (w *writer) undo() bool {
	return w.connection.GetAutocommit() || w.rollback.Exec() == nil
}

// applyGroup writes the requests of a transaction and what the log says about them.
func (w *writer) applyGroup(group []*request) error {
	w.events = w.events[:0]
	// Read each time: a group that was rolled back must not leave a gap or a repetition.
	before, err := w.integer(w.lastRevision)
	if err != nil {
		return fmt.Errorf("read the last revision: %w", err)
	}
	last := before
	for _, r := range group {
		if last, err = w.apply(r, last); err != nil {
			return err
		}
	}
	if last == before {
		return nil
	}
	if err := bindIntegers(w.putEvents, last, before+1); err != nil {
		return err
	}
	if err := w.putEvents.BindBlob(3, w.bodies.sealEvents(before+1, w.events)); err != nil {
		return err
	}
	if err := w.putEvents.Exec(); err != nil {
		return fmt.Errorf("write the log of changes: %w", err)
	}
	if last/trimEvery == before/trimEvery || last <= store.KeptChanges {
		return nil
	}
	if err := bindIntegers(w.trimEvents, last-store.KeptChanges); err != nil {
		return err
	}
	return w.trimEvents.Exec()
}

func bindIntegers(s *sqlite3.Stmt, values ...uint64) error {
	for i, v := range values {
		if err := s.BindInt64(i+1, int64(v)); err != nil {
			return err
		}
	}
	return nil
}

// apply writes one request, or refuses it if an expectation does not hold. All expectations
// are checked before anything is written, so that there is nothing to take back.
func (w *writer) apply(r *request, last uint64) (uint64, error) {
	r.revisions, r.err = nil, nil // of an attempt that was rolled back
	exists := make([]bool, len(r.changes))
	for i, c := range r.changes {
		current, err := w.current(c.Key)
		if err != nil {
			return last, fmt.Errorf("read a revision: %w", err)
		}
		exists[i] = current != 0
		if c.Expect != store.AnyRevision && (c.Expect != current || c.Delete && current == 0) {
			r.err = &store.Conflict{Key: c.Key, Expected: c.Expect, Current: current}
			return last, nil
		}
	}
	r.revisions = make([]uint64, len(r.changes))
	for i, c := range r.changes {
		if c.Check {
			r.revisions[i] = c.Expect
			continue
		}
		last++
		if err := w.write(c, last, exists[i]); err != nil {
			return last, fmt.Errorf("write %s %q: %w", c.Kind, c.Name, err)
		}
		r.revisions[i] = last
		w.events = append(w.events, store.Event{Key: c.Key, Revision: last, Deleted: c.Delete})
	}
	return last, nil
}

// current returns the revision of an object, 0 if there is none.
func (w *writer) current(k store.Key) (uint64, error) {
	if err := bindText(w.revisionOf, k.Kind, k.Account, k.Name); err != nil {
		return 0, err
	}
	return w.integer(w.revisionOf)
}

// integer returns the only column of the only row, 0 if there is none.
func (w *writer) integer(s *sqlite3.Stmt) (uint64, error) {
	var n uint64
	if s.Step() {
		n = uint64(s.ColumnInt64(0))
	}
	return n, errors.Join(s.Err(), s.Reset())
}

func (w *writer) write(c store.Change, revision uint64, exists bool) error {
	if exists {
		if err := execute(w.removeIndexes, c.Key); err != nil {
			return err
		}
	}
	if c.Delete {
		return execute(w.remove, c.Key)
	}
	if err := w.put.BindInt64(4, int64(revision)); err != nil {
		return err
	}
	if err := w.put.BindBlob(5, w.bodies.seal(c.Key, revision, c.Body)); err != nil {
		return err
	}
	if err := execute(w.put, c.Key); err != nil {
		return err
	}
	for _, x := range c.Indexes {
		if err := execute(w.putIndex, c.Key, x.Name, x.Value); err != nil {
			return err
		}
	}
	return nil
}

func execute(s *sqlite3.Stmt, k store.Key, more ...string) error {
	if err := bindText(s, append([]string{k.Kind, k.Account, k.Name}, more...)...); err != nil {
		return err
	}
	return s.Exec()
}

// checkpoint copies a long log into the file. SQLite's own automatic checkpoint would ignore
// an error of fsync and try again later, on pages that the kernel has dropped.
//
// It relies on the lock of the Store: go-sqlite3 0.37.0 panics in a checkpoint of a file with
// page checksums if another connection wrote the last frames.
func (w *writer) checkpoint() {
	if w.broken != nil || w.logPages < w.checkpointAt {
		return
	}
	mode := sqlite3.CHECKPOINT_PASSIVE
	if w.logPages >= restartPages {
		mode = sqlite3.CHECKPOINT_RESTART
	}
	pages, copied, err := w.connection.WALCheckpoint("main", mode)
	if err != nil && !isHarmless(err) {
		w.breakDown(fmt.Errorf("copy the log into the file: %w", err))
		return
	}
	if err == nil && pages == copied {
		// A commit of our own begins the log anew at once. Otherwise the old one would stay until the next
		// commit, and if it was damaged meanwhile its undamaged beginning would be replayed over newer pages. A
		// failure is one of the disk, which has been noted, or the next commit does it.
		_ = w.transaction(w.restart.Exec)
	}
	w.checkpointAt = w.logPages + w.checkpointBy
}
