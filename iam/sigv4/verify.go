// Package sigv4 verifies AWS Signature Version 4, in the Authorization header or in a pre-signed URL: that a
// request was signed by the holder of a secret access key, for this region and service, holds now, and has
// not been changed since.
//
// It does not sign, knows no users or policies (package iam finds the secret of a key and
// says what its holder may do) and keeps no state but a bounded cache of derived keys. Package
// gateway calls it once for every request, before anything else looks at the request.
//
// Invariants: nothing is accepted without a valid signature over method, path, query, host,
// every x-amz-* header and the body, whichever way it is signed; what was verified is what net/http parsed, so
// that routing cannot see another query than the signature covers, nor another path if it
// refuses those that are not NormalPath.
//
// An attacker controls every byte of the request. A request for an unknown access key takes the same
// path, against a decoy secret, as one for a known key.
package sigv4

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// MaxSkew is how far the time of a signature may be from ours, in both directions.
const MaxSkew = 5 * time.Minute

// maxKeptBytes is the largest buffer that is kept for the next request.
const maxKeptBytes = 16 << 10

// Errors that Config.Lookup returns, alone or wrapped. Any other error of Lookup is a fault
// of the service and Verify returns it wrapped.
var (
	// ErrUnknownKey means that there is no such access key, that it is not active, or
	// that the session token is not the one that belongs to it.
	ErrUnknownKey = errors.New("sigv4: unknown access key")

	// ErrExpiredToken means that the session token was genuine once.
	ErrExpiredToken = errors.New("sigv4: expired session token")
)

// A LookupFunc returns the secret access key that belongs to an access key id and the session
// token sent with it, which is empty for keys of users. It may be called concurrently.
type LookupFunc func(ctx context.Context, accessKeyID, sessionToken string) (secret string, err error)

// Config says what a Verifier accepts.
type Config struct {
	// Region is the only region that a credential scope may name, for iam and sts too: with an
	// endpoint of their own, clients sign for the region that they are set to.
	Region string

	// Services are the signing names that are accepted, of "lambda", "logs", "kms", "iam", "sts".
	Services []string

	// Lookup finds secrets.
	Lookup LookupFunc

	// Now is the clock; nil means time.Now.
	Now func() time.Time

	// CachedKeys bounds the cache of derived signing keys; 0 means 4096.
	CachedKeys int
}

// A Verifier verifies requests. Its methods may be called concurrently.
type Verifier struct {
	config  Config
	accepts map[string]dialect // by signing name
	keys    *keyCache
	decoy   string    // a random secret, stands in where there is none
	queries sync.Pool // of *query
}

// A Signature is what a valid signature says about its request.
type Signature struct {
	AccessKeyID  string
	SessionToken string // empty for keys of users
	Service      string // one of Config.Services
	Region       string // from the credential scope
	Time         time.Time
}

// New returns a Verifier.
func New(c Config) (*Verifier, error) {
	if c.Region == "" || c.Lookup == nil || len(c.Services) == 0 {
		return nil, errors.New("sigv4: region, services and lookup are required")
	}
	accepts := map[string]dialect{}
	for _, s := range c.Services {
		d, ok := dialects[s]
		if !ok {
			return nil, fmt.Errorf("sigv4: no error dialect for service %q", s)
		}
		accepts[s] = d
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.CachedKeys <= 0 {
		c.CachedKeys = 4096
	}
	return &Verifier{config: c, accepts: accepts, keys: newKeyCache(c.CachedKeys), decoy: rand.Text()}, nil
}

// A Claim is whom a request says it is from.
type Claim struct {
	AccessKeyID  string
	SessionToken string // empty for keys of users
}

// Check refuses what can be refused before the body is read: a request without a complete,
// well-formed and recent signature. It asks for no secret, so nothing is proven about who sent
// the request: only Verify does that. The error is an *api.Error as of Verify.
func (v *Verifier) Check(r *http.Request) (Claim, error) {
	q := v.newQuery()
	defer v.free(q)
	if err := v.parse(q, r); err != nil {
		return Claim{}, err
	}
	return Claim{q.accessKeyID, q.sessionToken}, nil
}

func (v *Verifier) newQuery() *query {
	if q, ok := v.queries.Get().(*query); ok {
		return q
	}
	return &query{signed: make([]signedHeader, 0, 16), buffer: make([]byte, 0, 2048)}
}

func (v *Verifier) free(q *query) {
	if cap(q.buffer) <= maxKeptBytes {
		q.reset()
		v.queries.Put(q)
	}
}

// Verify checks the signature of r, whose whole body is body. The error is an *api.Error
// with the code, status and text that AWS gives for the service, unless Config.Lookup had a
// fault of its own. It does not keep r or body and does not read r.Body.
func (v *Verifier) Verify(ctx context.Context, r *http.Request, body []byte) (Signature, error) {
	q := v.newQuery()
	defer v.free(q)
	if err := v.parse(q, r); err != nil {
		return Signature{}, err
	}
	secret, unknown := v.config.Lookup(ctx, q.accessKeyID, q.sessionToken)
	key := signingKey{q.accessKeyID, secret, q.date, q.region, q.service}
	if unknown != nil {
		key = signingKey{"", v.decoy, q.date, q.region, q.service}
	}
	matches, err := q.matches(r, body, v.keys.derive(key))
	if err != nil {
		return Signature{}, err
	}
	switch {
	case errors.Is(unknown, ErrExpiredToken):
		return Signature{}, q.words().expiredToken()
	case errors.Is(unknown, ErrUnknownKey):
		return Signature{}, q.words().unknownKey()
	case unknown != nil:
		return Signature{}, fmt.Errorf("look up access key: %w", unknown)
	case !matches:
		return Signature{}, q.words().mismatch()
	}
	return Signature{q.accessKeyID, q.sessionToken, q.service, q.region, q.time}, nil
}

// parse reads and checks everything about the signature of r except its value.
func (v *Verifier) parse(q *query, r *http.Request) error {
	if err := q.parse(r, v.accepts); err != nil {
		return err
	}
	if q.region != v.config.Region {
		return q.words().badSignature("Credential should be scoped to a valid region.")
	}
	now := v.config.Now().UTC()
	window, text := MaxSkew, "5 min."
	if q.lifetime > 0 {
		window, text = q.lifetime, fmt.Sprintf("%d sec.", q.lifetime/time.Second)
	}
	if earliest := now.Add(-window); q.time.Before(earliest.Truncate(time.Second)) {
		return q.words().badSignature(fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - %s)",
			q.time.Format(isoBasic), earliest.Format(isoBasic), now.Format(isoBasic), text))
	}
	if latest := now.Add(MaxSkew); q.time.After(latest) {
		return q.words().badSignature(fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)",
			q.time.Format(isoBasic), latest.Format(isoBasic), now.Format(isoBasic)))
	}
	return nil
}

// matches says whether the signature is the one that key makes over r and body. It compares in
// constant time.
func (q *query) matches(r *http.Request, body []byte, key [sha256.Size]byte) (bool, error) {
	sum := sha256.Sum256(body)
	hex.Encode(q.bodyHex[:], sum[:])
	if err := q.checkContentHash(r); err != nil {
		return false, err
	}
	b, err := q.appendCanonicalRequest(q.buffer[:0], r, q.bodyHex[:])
	if err != nil {
		return false, err
	}
	sum = sha256.Sum256(b)

	b = append(b[:0], algorithm+"\n"...)
	b = q.time.AppendFormat(b, isoBasic)
	b = append(b, '\n')
	for _, part := range [...]string{q.date, q.region, q.service, terminator} {
		b = append(b, part...)
		b = append(b, '/')
	}
	b[len(b)-1] = '\n'
	b = hex.AppendEncode(b, sum[:])
	q.buffer = b

	if q.mac == nil || q.macKey != key {
		q.mac, q.macKey = hmac.New(sha256.New, key[:]), key
	} else {
		q.mac.Reset() // spares hashing the key and making five objects
	}
	q.mac.Write(b)
	q.mac.Sum(q.want[:0])
	return subtle.ConstantTimeCompare(q.want[:], q.signature[:]) == 1, nil
}

// checkContentHash refuses a claimed hash that is not the one of the body. The words that Amazon S3
// allows in its place (UNSIGNED-PAYLOAD, STREAMING-…) would leave the body unprotected.
func (q *query) checkContentHash(r *http.Request) error {
	claimed := r.Header["X-Amz-Content-Sha256"] // at most one, see readHeaders
	if (len(claimed) == 0 || claimed[0] == string(q.bodyHex[:])) && (q.contentHash == "" || q.contentHash == string(q.bodyHex[:])) {
		return nil
	}
	return q.words().badSignature("The value of the x-amz-content-sha256 header does not match the SHA-256 of the request body.")
}
