package iam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"

	"cloister/store"
)

// AdministratorName is the name of the first user.
const AdministratorName = "administrator"

// An Administrator is the first user of the installation, who may do everything.
type Administrator struct {
	AccountID string // 12 digits

	// The first active access key of the user; empty if all were deleted, or the user was.
	AccessKeyID, SecretAccessKey string

	Created bool // by this call
}

// installation is the object that says which account came first.
type installation struct{ AccountID string }

var installationKey = store.Key{Kind: kindInstallation, Name: "first"}

// Bootstrap makes the first account and its administrator with an access key if the directory is
// empty, and returns them in any case. It blocks until they are durable.
func (d *Directory) Bootstrap(ctx context.Context) (Administrator, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	o, err := d.store.Get(ctx, installationKey)
	if errors.Is(err, store.ErrNotFound) {
		return d.createFirst(ctx)
	}
	if err != nil {
		return Administrator{}, fmt.Errorf("find first account: %w", err)
	}
	var first installation
	if err := json.Unmarshal(o.Body, &first); err != nil {
		return Administrator{}, fmt.Errorf("find first account: %w", err)
	}
	a, ok := d.state.Load().accounts[first.AccountID]
	if !ok {
		return Administrator{}, fmt.Errorf("the first account, %s, is not in the store", first.AccountID)
	}
	found := Administrator{AccountID: a.id}
	if u := a.users[AdministratorName]; u != nil {
		for _, k := range u.Keys {
			if !k.Inactive {
				found.AccessKeyID, found.SecretAccessKey = k.ID, k.Secret
				break
			}
		}
	}
	return found, nil
}

func (d *Directory) createFirst(ctx context.Context) (Administrator, error) {
	id, err := d.newAccountID()
	if err != nil {
		return Administrator{}, err
	}
	e, err := d.newEntity("AIDA", nil, AdministratorName, nil)
	if err != nil {
		return Administrator{}, err
	}
	k, err := d.newKey()
	if err != nil {
		return Administrator{}, err
	}
	e.Attached = []string{"arn:aws:iam::aws:policy/AdministratorAccess"}
	u := &user{e, []accessKey{k}}
	if err := u.prepare(id); err != nil {
		return Administrator{}, err
	}
	body, err := encode(u)
	if err != nil {
		return Administrator{}, err
	}
	mark, err := json.Marshal(installation{id})
	if err != nil {
		return Administrator{}, err
	}
	revisions, err := d.store.Commit(context.WithoutCancel(ctx),
		store.Change{Key: installationKey, Body: mark},
		store.Change{Key: store.Key{Kind: kindAccount, Name: id}, Body: []byte("{}")},
		store.Change{Key: u.key(id), Body: body})
	if err != nil {
		return Administrator{}, fmt.Errorf("create first account: %w", err)
	}
	u.stored = revisions[2]
	d.state.Store(d.state.Load().with(newAccount(id), change{record: u}))
	return Administrator{id, k.ID, k.Secret, true}, nil
}

// newAccountID returns 12 random digits, the first of which is not 0: tools that read an
// account id as a number must not shorten it.
func (d *Directory) newAccountID() (string, error) {
	var b [16]byte // 128 bits over 9·10^11 values leave no bias to speak of
	if _, err := io.ReadFull(d.rand, b[:]); err != nil {
		return "", fmt.Errorf("make account id: %w", err)
	}
	n := new(big.Int).SetBytes(b[:])
	n.Mod(n, big.NewInt(900_000_000_000))
	return n.Add(n, big.NewInt(100_000_000_000)).String(), nil
}
