// Package store is the contract for durable state: small objects with revisions,
// compare-and-set commits over several of them, ordered pages, secondary look-ups, and a log
// of changes to watch. Counters (NextNumber) and leases (Acquire) are made of these, the same on
// every engine. Package store/sqlite implements the contract in one file; package
// store/storetest is the suite that every engine must pass.
//
// It is not for large bytes (package artifact keeps images as files) nor for
// logs. It is called by the services that own state: iam, control, artifact.
//
// Invariants: when Commit returns nil its changes survive kill -9 and power loss, all of
// them or none. Commits and reads happen as if one after the other, in an order that agrees
// with time. Bodies reach the disk only sealed with AES-GCM under the installation's root
// key, bound to their key and revision, so that a body that was changed, cut, or moved to
// another row or account is refused with a lambda.Corrupt error. Kinds, names and index
// values are not sealed: no secret belongs in them.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors that callers compare with errors.Is.
var (
	ErrNotFound = errors.New("store: no such object")
	ErrConflict = errors.New("store: the object was changed by another writer") // always a *Conflict
	ErrHeld     = errors.New("store: another holder has the lease")

	// ErrTooOld is given by Watch: take the Moment, list again, and watch from there.
	ErrTooOld = errors.New("store: the log of changes does not hold what follows this revision")

	// ErrClosed is given after Close, and after an error that left an outcome unknown.
	ErrClosed = errors.New("store: the engine is closed")

	// Opening an engine gives these; the data is untouched.
	ErrWrongKey    = errors.New("store: it was made under another root key: put back the root key that belongs to it")
	ErrNewerSchema = errors.New("store: a newer release of Cloister has written it: use that release or a newer one")
	ErrForeign     = errors.New("store: this is no store of Cloister, or it is damaged beyond recognition: put back a copy that is whole")
	ErrInUse       = errors.New("store: another process, or this one, has it open: stop that first")
	ErrLost        = errors.New("store: commits that were acknowledged are missing")
)

// A Key names an object. Account is empty for objects of the installation itself.
type Key struct {
	Kind    string // a table of the caller's, e.g. "function"
	Account string
	Name    string
}

// An Object is a stored body and its revision. Each write takes the next revision, over all objects.
type Object struct {
	Key
	Revision uint64
	Body     []byte // owned by the caller
}

// AnyRevision as Change.Expect writes whatever is there.
const AnyRevision = ^uint64(0)

// An Index is a secondary name under which an object can be found.
type Index struct{ Name, Value string }

// A Change is one write of a commit, or a condition.
type Change struct {
	Key
	Expect  uint64  // the revision that must be current: 0 = must not exist, or AnyRevision
	Check   bool    // only the condition: nothing is written. Body, Delete and Indexes are not set
	Body    []byte  // ignored when Delete is set
	Delete  bool    // deleting what does not exist is a conflict unless Expect is AnyRevision
	Indexes []Index // replaces the object's earlier ones
}

// A Conflict is the ErrConflict of a commit: the first change whose expectation did not hold.
type Conflict struct {
	Key
	Expected, Current uint64 // revisions; 0 = no such object
}

// Error names the object and both revisions.
func (c *Conflict) Error() string {
	return fmt.Sprintf("%v: %s %q of account %q is at revision %d, expected %d", ErrConflict, c.Kind, c.Name, c.Account, c.Current, c.Expected)
}

// Is makes a Conflict an ErrConflict.
func (c *Conflict) Is(target error) bool { return target == ErrConflict }

// A Page bounds a listing: names greater than After, at most Limit of them (1 to 10,000).
type Page struct {
	After string
	Limit int
}

// A Moment is where the store stands.
type Moment struct {
	Revision uint64    // of the last write
	Time     time.Time // of the store's own clock, which leases go by
}

// An Event of the log says that an object was written or deleted at a revision. It may have
// been written again since.
type Event struct {
	Key
	Revision uint64
	Deleted  bool
}

// Store is an engine. Its methods may be called concurrently.
type Store interface {
	// Get returns the object, or an error that is ErrNotFound. An object that does not
	// pass its integrity check is an error of kind lambda.Corrupt, here, in List and in Lookup.
	Get(ctx context.Context, k Key) (Object, error)

	// List returns objects of one kind and account whose names begin with prefix, in
	// byte order of their names.
	List(ctx context.Context, kind, account, prefix string, p Page) ([]Object, error)

	// Lookup returns the objects of one kind and account that carry the index, in byte
	// order of their names.
	Lookup(ctx context.Context, kind, account string, x Index, p Page) ([]Object, error)

	// Commit applies all changes or none and returns their new revisions in order, for a Check
	// the current one. It blocks until the changes are durable; reads that begin afterwards
	// see them. No two of the changes may have the same key.
	//
	// Nothing was applied if the error is ErrConflict (an expectation did not hold), of
	// kind lambda.InvalidParameter (see CheckCommit), of kind lambda.Unavailable (the disk is
	// full or busy: the caller may retry), of kind lambda.Corrupt (the place to write to is
	// damaged), or the context's own. Any other means that the outcome is unknown and the
	// engine is closed.
	Commit(ctx context.Context, changes ...Change) ([]uint64, error)

	// Now returns the present moment. Reads that begin afterwards see all up to its revision.
	Now(ctx context.Context) (Moment, error)

	// Watch returns the events after a revision, oldest first and without gaps, at most limit of
	// them (1 to 10,000). While there are none it waits for a commit, or until ctx ends. The log holds at
	// least the last KeptChanges writes, and not many more; whoever asks for older ones, or for a
	// revision that this store has not reached (an older copy was put in its place), gets ErrTooOld.
	//
	// Nobody waits for a watcher: one that comes too seldom finds ErrTooOld.
	Watch(ctx context.Context, after uint64, limit int) ([]Event, error)

	// Close ends watchers, waits for running commits and releases the files.
	Close() error
}
