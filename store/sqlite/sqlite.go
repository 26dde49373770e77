// Package sqlite is the embedded engine of package store: one SQLite file with a
// write-ahead log, one goroutine that writes, several connections that read.
//
// It is not a general SQL layer: nobody outside sees a table. cmd opens one Store for
// the file meta.db and hands it to the services. DESIGN.md in the folder above tells the life
// of a commit.
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

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"cloister/internal/seal"
	"cloister/store"
)

// readers is the number of connections that read. More do not help: a read takes
// microseconds, and each costs memory of its own.
const readers = 4

// Config says where the store is.
type Config struct {
	// Path is the file. Missing directories above it are made with mode 0700.
	Path string

	// Key seals the bodies. It must be the one that the file was made with.
	Key *seal.Key

	// Logger takes the error that closes the engine.
	Logger *slog.Logger

	disk vfs.VFSFilename // what tests put faults into; nil is the system's
}

// A Store is an open engine; it implements store.Store.
type Store struct {
	logger *slog.Logger
	disk   string   // the name that registerDisk gave
	lock   *os.File // the file, locked
	bodies bodies
	idle   chan *reader // connections that nobody reads from just now
	writer *writer

	failure atomic.Pointer[error] // set once: why nothing works any more

	mu     sync.RWMutex // held for reading by every call, for writing by Close
	closed bool         // guarded by mu
}

var _ store.Store = (*Store)(nil)

// Open opens the store, or makes it if there is no file. The error may be
// store.ErrWrongKey, ErrNewerSchema, ErrForeign or ErrInUse.
func Open(c Config) (*Store, error) {
	s := &Store{logger: c.Logger, bodies: bodies{key: c.Key}, idle: make(chan *reader, readers)}
	if err := s.open(c); err != nil {
		return nil, fmt.Errorf("open %s: %w", c.Path, err)
	}
	return s, nil
}

func (s *Store) open(c Config) (err error) {
	if err := createIfMissing(c); err != nil {
		return err
	}
	if s.lock, err = lock(c.Path); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release(len(s.idle)))
		}
	}()
	s.disk = registerDisk(c.disk)
	if s.writer, err = openWriter(c, s.disk, &s.bodies, s.fail); err != nil {
		return err
	}
	for range readers {
		r, err := openReader(c, s.disk, &s.bodies)
		if err != nil {
			return err
		}
		s.idle <- r
	}
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
	if s.failure.CompareAndSwap(nil, &cause) && s.logger != nil {
		s.logger.Error("the store has stopped: restart after the disk is repaired", "error", cause)
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

// read runs query on an idle connection and ends it early when ctx does.
func (s *Store) read(ctx context.Context, query func(*reader) error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	var r *reader
	select {
	case r = <-s.idle:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.idle <- r }()
	background := r.connection.SetInterrupt(ctx)
	err := query(r)
	r.connection.SetInterrupt(background)
	if errors.Is(err, sqlite3.INTERRUPT) {
		return ctx.Err()
	}
	if err = classifyRead(err); isDiskFailure(err) {
		s.fail(err)
	}
	return err
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
	return s.release(readers)
}

// release closes what is open: this many readers, perhaps the writer, the lock last.
func (s *Store) release(readers int) error {
	var errs []error
	for range readers {
		errs = append(errs, (<-s.idle).close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.stop())
	}
	vfs.Unregister(s.disk)
	return errors.Join(append(errs, s.lock.Close())...)
}
