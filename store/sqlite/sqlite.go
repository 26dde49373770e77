// Package sqlite is the embedded engine of package store: one SQLite file with a
// write-ahead log, one goroutine that writes, several connections that read.
//
// It is not a general SQL layer: nobody outside sees a table. cmd opens one Store for each of
// the files meta.db, queue.db and audit.db and hands them to the services. DESIGN.md in the folder
// above tells the life of a commit.
//
// Invariants: Commit returns nil only after fsync of the log. After an error of the disk
// while writing nothing is written any more and fsync is never tried again: every later call
// is store.ErrClosed, and a new process decides from the files. One Store at a time has the
// file; a lock that ends with the process sees to that.
//
// An attacker who can write the file can drop or bring back whole rows and change kinds,
// names and index values; bodies that are changed, cut or moved are refused. Tenants choose
// bodies and some names, within the bounds of package store.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"cloister/internal/seal"
	"cloister/store"
)

// readers is the most connections that read; each is opened when the others are busy. More do not
// help: a read takes microseconds, and each costs memory of its own.
const readers = 4

// Config says where the store is.
type Config struct {
	// Path is the file. Missing directories above it are made with mode 0700.
	Path string

	// Key seals the bodies. It must be the one that the file was made with, and of this
	// file only, or a body could be moved from one file to another.
	Key *seal.Key

	// Now is the store's clock; nil is the system's.
	Now func() time.Time

	// Logger takes the error that closes the engine.
	Logger *slog.Logger

	// Failed, unless nil, is called once with that error. The process should end: a new one finds out from
	// the files what is durable, and can go on if the disk is good again.
	Failed func(error)

	disk            disk // what tests put faults into; nil is the system's
	checkpointPages int  // 0 is the constant
}

// A Store is an open engine; it implements store.Store.
type Store struct {
	config  Config
	disk    string // the name that registerDisk gave
	lock    *os.File
	mark    plainFile
	bodies  bodies
	writing *sqlite3.Conn // the writer's
	writer  *writer
	changes bell

	reading chan struct{} // holds one element per call that reads just now
	failure atomic.Pointer[error]

	mu     sync.RWMutex // held for reading by every call while it does not wait, for writing by Close
	closed bool         // guarded by mu

	idleMu sync.Mutex
	idle   []*reader // connections that nobody reads from just now, guarded by idleMu; the last used is taken first
}

var _ store.Store = (*Store)(nil)

// Open opens the store, or makes it if there is no file. The error may be
// store.ErrWrongKey, ErrNewerSchema, ErrForeign, ErrInUse or ErrLost; then nothing was changed.
func Open(c Config) (*Store, error) {
	if c.disk == nil {
		c.disk = newSystemDisk()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.checkpointPages == 0 {
		c.checkpointPages = checkpointPages
	}
	s := &Store{config: c, bodies: bodies{key: c.Key}, reading: make(chan struct{}, readers)}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Path, errors.Join(explainOpen(c.Path, err), s.release()))
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if err := createIfMissing(s.config); err != nil {
		return err
	}
	if s.lock, err = lock(s.config.Path); err != nil {
		return err
	}
	if err := checkHeader(s.lock); err != nil {
		return err
	}
	s.disk = registerDisk(s.config.disk)
	if s.writing, err = connect(s.config, s.disk); err != nil {
		return err
	}
	held, err := migrate(s.config, s.writing, &s.bodies)
	if err != nil {
		return err
	}
	if s.mark, err = openMark(s.config, held); err != nil {
		return err
	}
	// The process that left a log may have ended because an fsync of it had failed.
	if err := rewrite(s.config.disk, s.config.Path+"-wal"); err != nil {
		return err
	}
	w, err := s.prepareWriter(s.writing, s.mark)
	if err != nil {
		return err
	}
	s.writer = w
	go w.run()
	return nil
}

// begin starts a call; the caller must call s.mu.RUnlock if the error is nil.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	err := s.usable()
	if err != nil {
		s.mu.RUnlock()
	}
	return err
}

func (s *Store) usable() error {
	if cause := s.failure.Load(); cause != nil {
		return fmt.Errorf("%w since: %w", store.ErrClosed, *cause)
	}
	if s.closed {
		return store.ErrClosed
	}
	return nil
}

// fail closes the engine for good. The first cause counts.
func (s *Store) fail(cause error) {
	if !s.failure.CompareAndSwap(nil, &cause) {
		return
	}
	if s.config.Logger != nil {
		s.config.Logger.Error("the store has stopped: the disk failed", "file", s.config.Path, "error", cause)
	}
	s.changes.ring()
	if s.config.Failed != nil {
		s.config.Failed(fmt.Errorf("store %s: %w", s.config.Path, cause))
	}
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, k store.Key) (o store.Object, err error) {
	err = s.read(ctx, func(r *reader) error {
		o, err = r.get(k)
		return err
	})
	return o, err
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind, account, prefix string, p store.Page) (found []store.Object, err error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	err = s.read(ctx, func(r *reader) error {
		found, err = r.list(kind, account, prefix, p)
		return err
	})
	return found, err
}

// Lookup implements store.Store.
func (s *Store) Lookup(ctx context.Context, kind, account string, x store.Index, p store.Page) (found []store.Object, err error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	err = s.read(ctx, func(r *reader) error {
		found, err = r.lookup(kind, account, x, p)
		return err
	})
	return found, err
}

// Now implements store.Store.
func (s *Store) Now(ctx context.Context) (m store.Moment, err error) {
	err = s.read(ctx, func(r *reader) error {
		m.Revision, err = r.last()
		return err
	})
	if err != nil {
		return store.Moment{}, err
	}
	m.Time = s.config.Now().UTC().Round(0) // without the monotonic reading: it is compared with times of other processes
	return m, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, after uint64, limit int) (events []store.Event, err error) {
	if err := store.CheckLimit(limit); err != nil {
		return nil, err
	}
	for {
		rung := s.changes.next() // before reading, so that no commit falls between
		err = s.read(ctx, func(r *reader) error {
			events, err = r.watch(after, limit)
			return err
		})
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// read runs query on an idle connection, or opens another, and ends it early when ctx does.
func (s *Store) read(ctx context.Context, query func(*reader) error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	select {
	case s.reading <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.reading }()
	r, err := s.takeReader()
	if err == nil {
		defer s.giveBack(r)
		background := r.connection.SetInterrupt(ctx)
		err = query(r)
		r.connection.SetInterrupt(background)
	}
	if errors.Is(err, sqlite3.INTERRUPT) {
		return ctx.Err()
	}
	if err = classifyRead(err); isDiskFailure(err) {
		s.fail(err)
	}
	return err
}

func (s *Store) takeReader() (*reader, error) {
	s.idleMu.Lock()
	if last := len(s.idle) - 1; last >= 0 {
		defer s.idleMu.Unlock()
		r := s.idle[last]
		s.idle = s.idle[:last]
		return r, nil
	}
	s.idleMu.Unlock()
	return openReader(s.config, s.disk, &s.bodies)
}

func (s *Store) giveBack(r *reader) {
	s.idleMu.Lock()
	defer s.idleMu.Unlock()
	s.idle = append(s.idle, r)
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, changes ...store.Change) ([]uint64, error) {
	if err := store.CheckCommit(changes); err != nil {
		return nil, err
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	if len(changes) == 0 {
		return nil, nil
	}
	return s.writer.commit(ctx, changes)
}

// Close implements store.Store. It may be called again.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.changes.ring()
	return s.release()
}

// release closes what is open, the lock last.
func (s *Store) release() error {
	var errs []error
	for _, r := range s.idle {
		errs = append(errs, r.close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.stop())
	}
	if s.writing != nil {
		errs = append(errs, closeConnection(s.writing))
	}
	if s.mark != nil {
		errs = append(errs, s.mark.Close())
	}
	if s.disk != "" {
		vfs.Unregister(s.disk)
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
