package iam

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"time"

	"cloister/api"
	"cloister/iam/sigv4"
	"cloister/lambda"
)

// A session token is a sealed record of its session, so that nothing is stored per session: version,
// account, unique id of the role, session name, secret and expiry. The access key id is the
// additional data, so a token is worth nothing with another key.
const (
	tokenVersion  = 1
	maxTokenBytes = 2048 // as sent; ours take about 300
)

// A session is what a token says.
type session struct {
	accountID, roleID, name, secret string
	expires                         time.Time
}

func (s session) append(b []byte) []byte {
	for _, field := range []string{s.accountID, s.roleID, s.name, s.secret} {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
	}
	return binary.AppendVarint(b, s.expires.Unix())
}

func parseSession(b []byte) (s session, ok bool) {
	for _, field := range []*string{&s.accountID, &s.roleID, &s.name, &s.secret} {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return session{}, false
		}
		*field, b = string(b[n:n+int(size)]), b[n+int(size):]
	}
	expires, n := binary.Varint(b)
	s.expires = time.Unix(expires, 0)
	return s, n > 0 && n == len(b)
}

func (d *Directory) sealSession(accessKeyID string, s session) string {
	sealed := d.sessionKey.Seal([]byte{tokenVersion}, s.append(nil), []byte(accessKeyID))
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// openSession returns the session of a token and the role that it is of. Errors are those of
// package sigv4.
func (d *Directory) openSession(accessKeyID, token string) (session, *role, error) {
	if len(token) > maxTokenBytes {
		return session{}, nil, sigv4.ErrUnknownKey
	}
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(sealed) == 0 || sealed[0] != tokenVersion {
		return session{}, nil, sigv4.ErrUnknownKey
	}
	plain, err := d.sessionKey.Open(nil, sealed[1:], []byte(accessKeyID))
	if err != nil {
		return session{}, nil, sigv4.ErrUnknownKey
	}
	s, ok := parseSession(plain)
	if !ok {
		return session{}, nil, sigv4.ErrUnknownKey
	}
	if !d.now().Before(s.expires) {
		return session{}, nil, sigv4.ErrExpiredToken
	}
	if a := d.state.Load().accounts[s.accountID]; a != nil {
		if r := a.rolesByID[s.roleID]; r != nil {
			return s, r, nil
		}
	}
	return session{}, nil, sigv4.ErrUnknownKey
}

// userKey returns a user's active access key and the user.
func (d *Directory) userKey(accessKeyID string) (*user, accessKey, string, error) {
	s := d.state.Load()
	owner, ok := s.keys[accessKeyID]
	if !ok {
		return nil, accessKey{}, "", sigv4.ErrUnknownKey
	}
	u := s.accounts[owner.accountID].usersByID[owner.userID]
	for _, k := range u.Keys {
		if k.ID == accessKeyID && !k.Inactive {
			return u, k, owner.accountID, nil
		}
	}
	return nil, accessKey{}, "", sigv4.ErrUnknownKey
}

// Secret returns the secret access key for an access key id: of a user if sessionToken is empty,
// of a session otherwise. It is the Lookup of package sigv4; errors are sigv4.ErrUnknownKey and
// sigv4.ErrExpiredToken. It does not block.
func (d *Directory) Secret(_ context.Context, accessKeyID, sessionToken string) (string, error) {
	if sessionToken == "" {
		_, k, _, err := d.userKey(accessKeyID)
		return k.Secret, err
	}
	s, _, err := d.openSession(accessKeyID, sessionToken)
	return s.secret, err
}

// A Caller is who makes a call. It grants nothing by itself: Authorize looks up what the
// user or role may do now.
type Caller struct {
	AccountID string
	ARN       string // arn:aws:iam::…:user/… or arn:aws:sts::…:assumed-role/role/session
	UserID    string // the unique id: AIDA…, or AROA…:session
}

// Caller returns whose access key this is. The error is an *api.Error: the key or the token has
// become invalid since its secret was looked up. It does not block.
func (d *Directory) Caller(_ context.Context, accessKeyID, sessionToken string) (Caller, error) {
	if sessionToken == "" {
		if u, _, accountID, err := d.userKey(accessKeyID); err == nil {
			return Caller{accountID, u.arn, u.ID}, nil
		}
	} else if s, r, err := d.openSession(accessKeyID, sessionToken); err == nil {
		return Caller{s.accountID, r.sessionARN(s.accountID, s.name), r.ID + ":" + s.name}, nil
	}
	return Caller{}, &api.Error{Code: "UnrecognizedClientException", Status: http.StatusForbidden, Message: "The security token included in the request is invalid."}
}

// maxSession is the longest life of temporary credentials.
const maxSession = 12 * time.Hour

// newSession makes credentials of a role. Preconditions: somebody that the role trusts wants them.
func (d *Directory) newSession(accountID string, r *role, name string, life time.Duration) (lambda.Credentials, error) {
	id, err := d.newID("ASIA", 16)
	if err != nil {
		return lambda.Credentials{}, err
	}
	secret, err := d.newSecret()
	if err != nil {
		return lambda.Credentials{}, err
	}
	expires := d.now().UTC().Add(life).Truncate(time.Second)
	token := d.sealSession(id, session{accountID, r.ID, name, secret, expires})
	return lambda.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: token, Expiration: expires}, nil
}

// RoleCredentials returns credentials for a function, for a life of up to 12 hours. The session has the
// function's name. The error is of kind lambda.AccessDenied if the role is gone or does not
// trust Lambda any more, and lambda.InvalidParameter for a bad name or life.
func (d *Directory) RoleCredentials(_ context.Context, roleARN, sessionName string, life time.Duration) (lambda.Credentials, error) {
	const op = "get credentials of execution role"
	if life <= 0 || life > maxSession || sessionName == "" || len(sessionName) > 64 || strings.ContainsAny(sessionName, "/: ") {
		return lambda.Credentials{}, lambda.Errorf(lambda.InvalidParameter, op, "session %.64q for %v is not possible", sessionName, life)
	}
	a, r := d.findRole(roleARN)
	if r == nil || !trustsLambda(r) {
		return lambda.Credentials{}, lambda.Errorf(lambda.AccessDenied, op, cannotBeAssumed)
	}
	c, err := d.newSession(a.id, r, sessionName, life)
	if err != nil {
		return lambda.Credentials{}, fmt.Errorf("%s: %w", op, err)
	}
	return c, nil
}

// findRole returns the role of an ARN and its account, or nil.
func (d *Directory) findRole(arn string) (*account, *role) {
	a := d.state.Load().accounts[accountOf(arn)]
	return a, a.roleOf(arn)
}

// roleOf returns the account's role of that ARN, or nil. The account may be nil.
func (a *account) roleOf(arn string) *role {
	if a == nil {
		return nil
	}
	r := a.roles[nameIn(arn)]
	if r == nil || r.arn != arn {
		return nil
	}
	return r
}

// nameIn returns the name at the end of an ARN, in lower case, as names are looked up.
func nameIn(arn string) string { return strings.ToLower(arn[strings.LastIndexByte(arn, '/')+1:]) }

// An AssumedRole is a new session of a role.
type AssumedRole struct {
	lambda.Credentials
	ARN    string // of the session
	UserID string // AROA…:session
}

// AssumeRole makes credentials of the role that p is about, for a life of 15 minutes up to what the role
// allows; sessions that make sessions give them at most an hour. Errors are *api.Error in AWS's words.
func (d *Directory) AssumeRole(_ context.Context, call *api.Call, p Permission, sessionName string, life time.Duration) (AssumedRole, error) {
	s, caller := d.state.Load(), callerOf(call)
	h, ok := s.holder(&caller)
	if !ok || p.Action != assumeRole || !d.mayAssume(s, &h, &p) {
		return AssumedRole{}, denied(&caller, &p, "")
	}
	a := s.accounts[accountOf(p.Resource)]
	r := a.roleOf(p.Resource)
	switch {
	case life < 15*time.Minute:
		return AssumedRole{}, validationError("1 validation error detected: Value at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900")
	case h.session != "" && life > time.Hour:
		return AssumedRole{}, validationError("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	case life > time.Duration(r.MaxSessionSeconds)*time.Second:
		return AssumedRole{}, validationError("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	c, err := d.newSession(a.id, r, sessionName, life)
	if err != nil {
		return AssumedRole{}, fmt.Errorf("assume role: %w", err)
	}
	return AssumedRole{c, r.sessionARN(a.id, sessionName), r.ID + ":" + sessionName}, nil
}
