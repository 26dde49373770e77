package artifact

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"cloister/lambda"
)

// MaxValidity is the longest life of a grant.
const MaxValidity = 15 * time.Minute

// maxGrants bounds the memory of grants that are neither redeemed nor revoked. There is one for each
// environment that is being made.
const maxGrants = 10_000

// A grant is a permission that somebody has the name of.
type grant struct {
	artifact lambda.Artifact
	holder   string
	notAfter time.Time
}

// grants knows which permissions are good. They live for minutes, and with the process only.
type grants struct {
	now func() time.Time

	mu   sync.Mutex
	good map[[sha256.Size]byte]grant // guarded by mu; by the hash of the name, so that finding one does not tell how much of it was right
}

func newGrants(now func() time.Time) *grants {
	return &grants{now: now, good: map[[sha256.Size]byte]grant{}}
}

// Grant returns the name of a permission for holder (the identity of a worker, as its certificate shows
// it) to redeem the artifact once within validity. It is meant for one order of an environment: Revoke ends it
// when the order is answered. Whoever else has the name can do nothing with it. The error is of kind
// lambda.Throttled while too many are good.
func (s *Store) Grant(a lambda.Artifact, holder string, validity time.Duration) (string, error) {
	if a.ID == "" || a.Owner == "" || holder == "" || validity <= 0 || validity > MaxValidity {
		return "", fmt.Errorf("grant artifact %q of account %q to %q for %v: an argument is missing or out of bounds", a.ID, a.Owner, holder, validity)
	}
	s.use(s.path(imageKind, a.Owner, a.ID))
	name := rand.Text()
	if err := s.grants.add(name, grant{a, holder, s.grants.now().Add(validity)}); err != nil {
		return "", err
	}
	return name, nil
}

func (g *grants) add(name string, granted grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.good) >= maxGrants {
		now := g.now()
		maps.DeleteFunc(g.good, func(_ [sha256.Size]byte, old grant) bool { return !now.Before(old.notAfter) })
	}
	if len(g.good) >= maxGrants {
		return lambda.Errorf(lambda.Throttled, "grant artifact", "Rate Exceeded.")
	}
	g.good[sha256.Sum256([]byte(name))] = granted
	return nil
}

// Revoke ends a grant. It is no error if it was redeemed or has ended before.
func (s *Store) Revoke(name string) {
	s.grants.mu.Lock()
	defer s.grants.mu.Unlock()
	delete(s.grants.good, sha256.Sum256([]byte(name)))
}

// Redeem exchanges a grant for the sealed image and its data key. It works once. Holder is who
// asks, as the caller has verified it. Errors are of kind lambda.AccessDenied (never issued, expired,
// redeemed or revoked before, or of another holder; the text does not say which), NotFound or Corrupt.
func (s *Store) Redeem(ctx context.Context, name, holder string) (Sealed, error) {
	if err := ctx.Err(); err != nil {
		return Sealed{}, err
	}
	g, err := s.grants.take(name, holder)
	if err != nil {
		return Sealed{}, err
	}
	path := s.path(imageKind, g.artifact.Owner, g.artifact.ID)
	b, err := s.openBlob(imageKind, g.artifact.Owner, g.artifact.ID)
	if err != nil {
		return Sealed{}, fmt.Errorf("artifact %s: %w", g.artifact.ID, kindOfOpen(err, "redeem grant"))
	}
	return Sealed{
		Artifact:   g.artifact,
		SealedSize: b.header.sealedBytes(),
		Key:        b.secret,
		path:       path,
	}, b.file.Close()
}

// take uses a grant up. What the holder may not do leaves it as it is.
func (g *grants) take(name, holder string) (grant, error) {
	key := sha256.Sum256([]byte(name))
	g.mu.Lock()
	defer g.mu.Unlock()
	granted, ok := g.good[key]
	switch {
	case !ok:
		return grant{}, denied(errors.New("no such grant, or not any more"))
	case granted.holder != holder:
		return grant{}, denied(fmt.Errorf("it belongs to %q, not to %q", granted.holder, holder))
	case !g.now().Before(granted.notAfter):
		return grant{}, denied(fmt.Errorf("it expired at %v", granted.notAfter))
	}
	delete(g.good, key)
	return granted, nil
}

func denied(cause error) error {
	return &lambda.Error{Kind: lambda.AccessDenied, Op: "redeem grant", Message: "the grant is not valid", Err: cause}
}

// Sealed is a redeemed artifact: the arguments of Unseal. It is never logged with its key.
type Sealed struct {
	Artifact   lambda.Artifact
	SealedSize int64  // bytes that Open gives
	Key        []byte // the data key of this one artifact
	path       string
}

// Open returns the sealed bytes, for Unseal.
func (s Sealed) Open() (io.ReadCloser, error) { return os.Open(s.path) }

// Format hides the key from every verb of package fmt.
func (s Sealed) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "sealed artifact %s", s.Artifact.ID) }

// LogValue hides the key from log/slog.
func (s Sealed) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(s)) }
