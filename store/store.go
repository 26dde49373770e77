// Package store is the contract for durable state: small objects with revisions,
// compare-and-set commits over several of them, ordered pages and secondary look-ups.
// Package store/sqlite implements it in one file; package store/storetest is the suite
// that every engine must pass.
//
// It is not for large bytes (package artifact keeps images as files) nor for
// logs. It is called by the services that own state: iam, control, artifact.
//
// Invariants: when Commit returns nil its changes survive kill -9 and power loss, all of
// them or none. Bodies reach the disk only sealed with AES-GCM under the installation's root
// key, bound to their key and revision, so that a body that was changed, cut, or moved to
// another row or account is refused with a lambda.Corrupt error. Kinds, names and index
// values are not sealed: no secret belongs in them.
package store

import (
	"context"
	"errors"
)

// Errors that callers compare with errors.Is.
var (
	ErrNotFound = errors.New("store: no such object")
	ErrConflict = errors.New("store: the object was changed by another writer")

	// ErrClosed is given after Close, and after an error that left an outcome unknown.
	ErrClosed = errors.New("store: the engine is closed")

	// Opening an engine gives these; the data is untouched.
	ErrWrongKey    = errors.New("store: the root key does not open this store: it was made under another one")
	ErrNewerSchema = errors.New("store: a newer release of Cloister has written this store")
	ErrForeign     = errors.New("store: this is not a store of Cloister, or it is damaged beyond recognition")
	ErrInUse       = errors.New("store: another process, or this one, has the store open")
)

// A Key names an object. Account is empty for objects of the installation itself.
type Key struct {
	Kind    string // a table of the caller's, e.g. "function"
	Account string
	Name    string
}

// An Object is a stored body and its revision. Revisions only grow, over all objects.
type Object struct {
	Key
	Revision uint64
	Body     []byte // owned by the caller
}

// AnyRevision as Change.Expect writes whatever is there.
const AnyRevision = ^uint64(0)

// An Index is a secondary name under which an object can be found.
type Index struct{ Name, Value string }

// A Change is one write of a commit.
type Change struct {
	Key
	Expect  uint64  // the revision that must be current: 0 = must not exist, or AnyRevision
	Body    []byte  // ignored when Delete is set
	Delete  bool    // deleting what does not exist is a conflict unless Expect is AnyRevision
	Indexes []Index // replaces the object's earlier ones
}

// A Page bounds a listing: names greater than After, at most Limit of them (1 to 10,000).
type Page struct {
	After string
	Limit int
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

	// Commit applies all changes or none and returns the new revisions in order. It
	// blocks until the changes are durable; reads that begin afterwards see them. No two of
	// the changes may have the same key.
	//
	// Nothing was applied if the error is ErrConflict (an expectation did not hold), of
	// kind lambda.InvalidParameter (see CheckCommit), of kind lambda.Unavailable (the disk is
	// full or busy: the caller may retry), or the context's own. Any other means that the
	// outcome is unknown and the engine is closed.
	Commit(ctx context.Context, changes ...Change) ([]uint64, error)

	// Close waits for running commits and releases the files.
	Close() error
}
