package iam

import (
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"cloister/iam/policy"
	"cloister/store"
)

// The kinds of objects in the store. Installation objects belong to no account.
const (
	kindInstallation = "iam-installation"
	kindAccount      = "iam-account"
	kindUser         = "iam-user"
	kindRole         = "iam-role"
	kindPolicy       = "iam-policy"
)

// An entity is what users and roles have in common. Exported fields are stored.
type entity struct {
	Name     string
	Path     string // "/" or "/…/"
	ID       string // AIDA… or AROA…, never given twice
	Created  time.Time
	Tags     map[string]string `json:",omitempty"`
	Inline   map[string]string `json:",omitempty"` // documents by name of the policy
	Attached []string          `json:",omitempty"` // ARNs of managed policies, in order of attachment

	arn    string
	inline []*policy.Policy
	stored uint64
}

func (e *entity) revision() *uint64 { return &e.stored }

func (e *entity) prepareAs(kind, accountID string) (err error) {
	e.arn = "arn:aws:iam::" + accountID + ":" + kind + e.Path + e.Name
	e.inline, err = parseAll(e.Inline)
	return err
}

// copied returns an entity that can be changed without changing e.
func (e entity) copied() entity {
	e.Tags, e.Inline, e.Attached = maps.Clone(e.Tags), maps.Clone(e.Inline), slices.Clone(e.Attached)
	return e
}

// A user has long-term access keys.
type user struct {
	entity
	Keys []accessKey `json:",omitempty"`
}

type accessKey struct {
	ID, Secret string
	Inactive   bool `json:",omitempty"`
	Created    time.Time
}

func (u *user) key(accountID string) store.Key {
	return store.Key{Kind: kindUser, Account: accountID, Name: strings.ToLower(u.Name)}
}

func (u *user) prepare(accountID string) error { return u.prepareAs("user", accountID) }

func (u *user) copied() *user { return &user{u.entity.copied(), slices.Clone(u.Keys)} }

// A role is assumed for a time by those that it trusts.
type role struct {
	entity
	Description       string `json:",omitempty"`
	MaxSessionSeconds int32
	Trust             string            // the trust policy document
	Trusted           map[string]string `json:",omitempty"` // unique ids by the ARNs of users and roles that Trust names

	trust *policy.Policy
}

func (r *role) key(accountID string) store.Key {
	return store.Key{Kind: kindRole, Account: accountID, Name: strings.ToLower(r.Name)}
}

func (r *role) prepare(accountID string) (err error) {
	if r.trust, err = policy.Parse(r.Trust, policy.Trust); err != nil {
		return fmt.Errorf("trust policy: %w", err)
	}
	return r.prepareAs("role", accountID)
}

func (r *role) copied() *role {
	c := *r
	c.entity, c.Trusted = r.entity.copied(), maps.Clone(r.Trusted)
	return &c
}

// sessionARN returns the ARN of a session of the role, which leaves out the role's path.
func (r *role) sessionARN(accountID, session string) string {
	return "arn:aws:sts::" + accountID + ":assumed-role/" + r.Name + "/" + session
}

// A managedPolicy can be attached to several users and roles. It has one version, v1.
type managedPolicy struct {
	Name        string
	Path        string
	ID          string // ANPA…
	Description string `json:",omitempty"`
	Document    string
	Created     time.Time
	Tags        map[string]string `json:",omitempty"`

	parsed *policy.Policy
	stored uint64
}

func (p *managedPolicy) key(accountID string) store.Key {
	return store.Key{Kind: kindPolicy, Account: accountID, Name: strings.ToLower(p.Name)}
}

func (p *managedPolicy) revision() *uint64 { return &p.stored }

func (p *managedPolicy) prepare(string) (err error) {
	p.parsed, err = policy.Parse(p.Document, policy.Identity)
	return err
}

// arn returns the policy's ARN; accountID is "aws" for the policies of AWS.
func (p *managedPolicy) arn(accountID string) string {
	return "arn:aws:iam::" + accountID + ":policy" + p.Path + p.Name
}

// newID returns a prefix and n random characters, of the alphabet of AWS's ids: 5 bits each.
func (d *Directory) newID(prefix string, n int) (string, error) {
	b := make([]byte, n) // more than the 5/8 that are needed, which saves the arithmetic
	if _, err := io.ReadFull(d.rand, b); err != nil {
		return "", fmt.Errorf("make id: %w", err)
	}
	return prefix + base32.StdEncoding.EncodeToString(b)[:n], nil
}

// newSecret returns a secret access key: 40 characters of 240 random bits.
func (d *Directory) newSecret() (string, error) {
	var b [30]byte
	if _, err := io.ReadFull(d.rand, b[:]); err != nil {
		return "", fmt.Errorf("make secret: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b[:]), nil
}

// today returns the time of a creation, in the seconds that the API shows.
func (d *Directory) today() time.Time { return d.now().UTC().Truncate(time.Second) }

// newEntity returns an entity of a new name. Kind is AIDA or AROA.
func (d *Directory) newEntity(kind string, path *string, name string, tags map[string]string) (entity, error) {
	id, err := d.newID(kind, 17)
	return entity{Name: name, Path: pathOr(path), ID: id, Created: d.today(), Tags: tags}, err
}

func pathOr(path *string) string {
	if path == nil {
		return "/"
	}
	return *path
}

// newKey returns an access key of a user.
func (d *Directory) newKey() (accessKey, error) {
	id, err := d.newID("AKIA", 16)
	if err != nil {
		return accessKey{}, err
	}
	secret, err := d.newSecret()
	return accessKey{ID: id, Secret: secret, Created: d.today()}, err
}
