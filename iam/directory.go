// Package iam knows who may do what: accounts, users with access keys, roles, their policies, and
// the temporary credentials of roles. It answers the IAM API, finds the secret that a signature
// is checked with, and decides about every call.
//
// It does not read requests (package gateway does, with sigv4 for signatures) and does not
// interpret policy documents (package policy does). Package sts answers the STS API on top of a
// Directory; control and cmd ask it about execution roles.
//
// Invariants: a change is durable before it is visible, and visible to the next decision once the
// operation has returned. Nothing is allowed without a policy that allows it, except what
// AWS allows everybody. Credentials of a role that was deleted, even if a role of the same
// name was made since, are void at once. The session key never leaves the process; a session token
// opens only under it and only together with its access key id.
//
// Tenants choose names, paths, tags and policy documents, within the bounds of package api and the
// quotas of AWS. An attacker may send any access key id and any session token.
//
// One process owns the directory of a store: all of it is in memory, so that no decision waits for
// the disk, and another process's changes would not be seen.
package iam

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/internal/seal"
	"cloister/store"
)

// Config says what a Directory works with.
type Config struct {
	// Store keeps the directory. Kinds, names and account ids are not sealed there; secrets
	// and documents are in bodies, which are.
	Store store.Store

	// SessionKey seals session tokens. It must stay the same over restarts for tokens to
	// outlive them, and must be used for nothing else.
	SessionKey *seal.Key

	// Now is the clock; nil means time.Now.
	Now func() time.Time

	// Rand is where ids and secrets come from; nil means crypto/rand. It must be safe for concurrent use.
	Rand io.Reader
}

// A Directory is the accounts of one installation. Its methods may be called concurrently.
type Directory struct {
	store      store.Store
	sessionKey *seal.Key
	now        func() time.Time
	rand       io.Reader
	managed    map[string]*managedPolicy // of AWS, by ARN; fixed after New

	writing sync.Mutex            // held from reading the state for a change until the change is visible
	state   atomic.Pointer[state] // written under writing
}

// New reads the directory from the store.
func New(c Config) (*Directory, error) {
	if c.Store == nil || c.SessionKey == nil {
		return nil, errors.New("iam: store and session key are required")
	}
	d := &Directory{store: c.Store, sessionKey: c.SessionKey, now: c.Now, rand: c.Rand, managed: map[string]*managedPolicy{}}
	if d.now == nil {
		d.now = time.Now
	}
	if d.rand == nil {
		d.rand = rand.Reader
	}
	for _, p := range awsManaged {
		if err := p.prepare("aws"); err != nil {
			return nil, fmt.Errorf("iam: AWS managed policy %s: %w", p.Name, err)
		}
		d.managed[p.arn("aws")] = &p
	}
	s, err := load(context.Background(), c.Store)
	if err != nil {
		return nil, fmt.Errorf("iam: load directory: %w", err)
	}
	d.state.Store(s)
	return d, nil
}

// update gives edit the caller's account and makes the record that it returns durable, then
// visible. It blocks until both are done; changes happen one after the other.
func (d *Directory) update(ctx context.Context, edit func(a *account) (change, error)) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	before := d.state.Load()
	a, ok := before.accounts[api.CallOf(ctx).AccountID]
	if !ok {
		return errors.New("iam: the call has no account")
	}
	c, err := edit(a)
	if err != nil || c.record == nil {
		return err
	}
	write := store.Change{Key: c.record.key(a.id), Expect: *c.record.revision(), Delete: c.remove}
	if !c.remove {
		if err := c.record.prepare(a.id); err != nil {
			return malformed(err)
		}
		if write.Body, err = encode(c.record); err != nil {
			return err
		}
	}
	// Once begun, a commit must not be left with an unknown outcome because the client went away.
	revisions, err := d.store.Commit(context.WithoutCancel(ctx), write)
	if errors.Is(err, store.ErrConflict) {
		return &iamapi.ConcurrentModificationException{Message: new("The request was rejected because multiple requests to change this object were submitted simultaneously.")}
	}
	if err != nil {
		return fmt.Errorf("commit %s %s: %w", write.Kind, write.Name, err)
	}
	*c.record.revision() = revisions[0]
	d.state.Store(before.with(a, c))
	return nil
}

// Accounts returns the ids of all accounts.
func (d *Directory) Accounts() []string { return slices.Sorted(maps.Keys(d.state.Load().accounts)) }

// changeOne edits a copy of the record that find returns and puts it in its place.
func changeOne[R record](ctx context.Context, d *Directory, find func(*account) (R, error), copied func(R) R, edit func(*account, R) error) error {
	return d.update(ctx, func(a *account) (change, error) {
		found, err := find(a)
		if err != nil {
			return change{}, err
		}
		c := copied(found)
		return change{record: c}, edit(a, c)
	})
}

// readOne returns the account of the caller and the record that find returns of it, which must not be changed.
func readOne[R record](ctx context.Context, d *Directory, find func(*account) (R, error)) (*account, R, error) {
	a, err := d.view(ctx)
	if err != nil {
		var none R
		return nil, none, err
	}
	found, err := find(a)
	return a, found, err
}

// view returns the account of the caller. The result must not be changed.
func (d *Directory) view(ctx context.Context) (*account, error) {
	a, ok := d.state.Load().accounts[api.CallOf(ctx).AccountID]
	if !ok {
		return nil, errors.New("iam: the call has no account")
	}
	return a, nil
}

// policy returns a managed policy, of AWS or of the account, or nil.
func (d *Directory) policy(a *account, arn string) *managedPolicy {
	if p, ok := d.managed[arn]; ok {
		return p
	}
	return a.policies[arn]
}
