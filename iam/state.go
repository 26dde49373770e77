package iam

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"cloister/iam/policy"
	"cloister/store"
)

// A state is all that the directory knows at one moment. It and everything in it is never
// changed: a change makes a new state that shares what stays.
type state struct {
	accounts map[string]*account
	keys     map[string]keyOwner // by access key id, of users
}

type keyOwner struct{ accountID, userID string }

// An account owns users, roles and policies. IAM's names are unique regardless of case.
type account struct {
	id        string
	users     map[string]*user // by name in lower case
	usersByID map[string]*user
	roles     map[string]*role // by name in lower case
	rolesByID map[string]*role
	policies  map[string]*managedPolicy // by ARN
}

func newAccount(id string) *account {
	return &account{id, map[string]*user{}, map[string]*user{}, map[string]*role{}, map[string]*role{}, map[string]*managedPolicy{}}
}

// A record is a user, a role or a managed policy, as it is stored.
type record interface {
	key(accountID string) store.Key
	revision() *uint64 // 0 before it is stored
	prepare(accountID string) error
	enter(s *state, a *account)
	leave(s *state, a *account)
}

// A change is one record, new or in place of its earlier self, or to be removed. The zero
// change changes nothing.
type change struct {
	record record
	remove bool
}

// with returns a state with the change made to a copy of a.
func (s *state) with(a *account, c change) *state {
	after := &state{maps.Clone(s.accounts), maps.Clone(s.keys)}
	copied := &account{a.id, maps.Clone(a.users), maps.Clone(a.usersByID), maps.Clone(a.roles), maps.Clone(a.rolesByID), maps.Clone(a.policies)}
	after.accounts[a.id] = copied
	c.record.leave(after, copied)
	if !c.remove {
		c.record.enter(after, copied)
	}
	return after
}

func (u *user) enter(s *state, a *account) {
	a.users[strings.ToLower(u.Name)], a.usersByID[u.ID] = u, u
	for _, k := range u.Keys {
		s.keys[k.ID] = keyOwner{a.id, u.ID}
	}
}

func (u *user) leave(s *state, a *account) {
	if earlier := a.usersByID[u.ID]; earlier != nil {
		for _, k := range earlier.Keys {
			delete(s.keys, k.ID)
		}
	}
	delete(a.users, strings.ToLower(u.Name))
	delete(a.usersByID, u.ID)
}

func (r *role) enter(_ *state, a *account) {
	a.roles[strings.ToLower(r.Name)], a.rolesByID[r.ID] = r, r
}

func (r *role) leave(_ *state, a *account) {
	delete(a.roles, strings.ToLower(r.Name))
	delete(a.rolesByID, r.ID)
}

func (p *managedPolicy) enter(_ *state, a *account) { a.policies[p.arn(a.id)] = p }
func (p *managedPolicy) leave(_ *state, a *account) { delete(a.policies, p.arn(a.id)) }

// load reads a whole directory.
func load(ctx context.Context, from store.Store) (*state, error) {
	s := &state{map[string]*account{}, map[string]keyOwner{}}
	err := each(ctx, from, kindAccount, "", func(o store.Object) error {
		s.accounts[o.Name] = newAccount(o.Name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for id, a := range s.accounts {
		for kind, make := range map[string]func() record{
			kindUser:   func() record { return &user{} },
			kindRole:   func() record { return &role{} },
			kindPolicy: func() record { return &managedPolicy{} },
		} {
			err := each(ctx, from, kind, id, func(o store.Object) error {
				r := make()
				if err := decode(o, id, r); err != nil {
					return fmt.Errorf("%s %s of account %s: %w", kind, o.Name, id, err)
				}
				r.enter(s, a)
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// each calls use with every object of a kind and account.
func each(ctx context.Context, from store.Store, kind, accountID string, use func(store.Object) error) error {
	const limit = 1000
	for after := ""; ; {
		objects, err := from.List(ctx, kind, accountID, "", store.Page{After: after, Limit: limit})
		if err != nil {
			return err
		}
		for _, o := range objects {
			if err := use(o); err != nil {
				return err
			}
		}
		if len(objects) < limit {
			return nil
		}
		after = objects[len(objects)-1].Name
	}
}

func encode(r record) ([]byte, error) { return json.Marshal(r) }

// decode fills r from what is stored. A document that Parse refuses is an error: to go on without
// it could drop a Deny.
func decode(o store.Object, accountID string, r record) error {
	if err := json.Unmarshal(o.Body, r); err != nil {
		return err
	}
	*r.revision() = o.Revision
	return r.prepare(accountID)
}

// parseAll parses the documents of inline policies.
func parseAll(documents map[string]string) ([]*policy.Policy, error) {
	parsed := make([]*policy.Policy, 0, len(documents))
	for name, document := range documents {
		p, err := policy.Parse(document, policy.Identity)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", name, err)
		}
		parsed = append(parsed, p)
	}
	return parsed, nil
}
