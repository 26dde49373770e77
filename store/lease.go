package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cloister/lambda"
)

// The kinds of the two objects that are a lease. The first is written when the lease changes hands, so
// that its revision is the epoch; the second whenever it is renewed.
const (
	kindLease     = "lease"
	kindLeaseTerm = "lease term"
)

// A Lease is the right to act under a name. It is lost only when another holder takes it, which
// nobody can before it expires by the store's clock. Its holder learns of that by no clock of its own
// but by Fence, which it puts into every commit that it makes under the lease.
type Lease struct {
	Name   string
	Holder string

	// Epoch is larger than that of every earlier holder.
	Epoch uint64

	// Expires is when others may take the lease, by the store's clock.
	Expires time.Time
}

type leaseHolder struct{ Holder string }

type leaseTerm struct{ Expires time.Time }

// Acquire takes a lease that is free or has expired. The error is ErrHeld if it is not: also if the same
// holder has it, who may be a process that was thought dead. Of several who try at once one gets it.
func Acquire(ctx context.Context, s Store, name, holder string, term time.Duration) (Lease, error) {
	l := Lease{Name: name, Holder: holder}
	var was leaseHolder
	var until leaseTerm
	// Holder first: if it changes before the term is read, the commit finds a conflict.
	epoch, err := read(ctx, s, l.key(), &was)
	if err != nil {
		return Lease{}, err
	}
	renewed, err := read(ctx, s, l.termKey(), &until)
	if err != nil {
		return Lease{}, err
	}
	now, err := s.Now(ctx)
	if err != nil {
		return Lease{}, err
	}
	if now.Time.Before(until.Expires) {
		return Lease{}, fmt.Errorf("%w: %q by %q until %v", ErrHeld, name, was.Holder, until.Expires)
	}
	l.Expires = now.Time.Add(term)
	revisions, err := s.Commit(ctx,
		Change{Key: l.key(), Expect: epoch, Body: encode(leaseHolder{holder})},
		Change{Key: l.termKey(), Expect: renewed, Body: encode(leaseTerm{l.Expires})})
	if errors.Is(err, ErrConflict) {
		return Lease{}, fmt.Errorf("%w: %q, taken or renewed just now", ErrHeld, name)
	}
	if err != nil {
		return Lease{}, err
	}
	l.Epoch = revisions[0]
	return l, nil
}

// Fence is the condition that the lease is still this holder's. A commit that carries it and comes
// too late applies nothing; Lost says so.
func (l Lease) Fence() Change { return Change{Key: l.key(), Expect: l.Epoch, Check: true} }

// Lost reports whether the error of a commit is that its Fence did not hold: another holder
// has the lease, or it was released.
func (l Lease) Lost(err error) bool {
	conflict, ok := errors.AsType[*Conflict](err)
	return ok && conflict.Key == l.key() && conflict.Expected == l.Epoch
}

// Renew lets the lease last for a term from now. A holder who is late may renew as long as
// nobody else has taken it. Lost reports whether the error is that it is too late.
func (l Lease) Renew(ctx context.Context, s Store, term time.Duration) (Lease, error) {
	now, err := s.Now(ctx)
	if err != nil {
		return l, err
	}
	expires := now.Time.Add(term)
	if _, err := s.Commit(ctx, l.Fence(), Change{Key: l.termKey(), Expect: AnyRevision, Body: encode(leaseTerm{expires})}); err != nil {
		return l, err
	}
	l.Expires = expires
	return l, nil
}

// Release lets others take the lease at once. Lost reports whether the error is that it was
// another's already.
func (l Lease) Release(ctx context.Context, s Store) error {
	_, err := s.Commit(ctx,
		Change{Key: l.key(), Expect: l.Epoch, Delete: true},
		Change{Key: l.termKey(), Expect: AnyRevision, Delete: true})
	return err
}

func (l Lease) key() Key     { return Key{Kind: kindLease, Name: l.Name} }
func (l Lease) termKey() Key { return Key{Kind: kindLeaseTerm, Name: l.Name} }

// read decodes an object's body and returns its revision: 0, and into as it is, if there is none.
func read(ctx context.Context, s Store, k Key, into any) (uint64, error) {
	o, err := s.Get(ctx, k)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal(o.Body, into); err != nil {
		return 0, &lambda.Error{Kind: lambda.Corrupt, Op: fmt.Sprintf("read %s %q", k.Kind, k.Name), Err: err}
	}
	return o.Revision, nil
}

func encode(record any) []byte {
	b, err := json.Marshal(record)
	if err != nil {
		panic(err) // only for types that JSON does not know
	}
	return b
}
