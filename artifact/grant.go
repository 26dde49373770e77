package artifact

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"cloister/internal/seal"
	"cloister/lambda"
)

// MaxValidity is the longest life of a grant.
const MaxValidity = 15 * time.Minute

// maxRedeemed bounds the memory of redeemed grants. Reaching it takes over 100 cold starts
// a second for a quarter of an hour.
const maxRedeemed = 100_000

// maxGrantBytes bounds what Redeem decodes.
const maxGrantBytes = 4 << 10

// A grant is what the sealed text of a permission holds.
type grant struct {
	Artifact lambda.Artifact
	Holder   string
	NotAfter time.Time
	Number   string // random, so that it can be redeemed once
}

// grants issues permissions and knows which were used.
type grants struct {
	// key is random and of this process only: grants live for minutes, and after a restart,
	// which forgets what was redeemed, no old one is good.
	key *seal.Key
	now func() time.Time

	mu       sync.Mutex
	redeemed map[string]time.Time // number → when it expires; guarded by mu
}

func newGrants(now func() time.Time) *grants {
	key, err := seal.NewKey(seal.NewSecret())
	if err != nil {
		panic(err) // only for other lengths
	}
	return &grants{key: key, now: now, redeemed: map[string]time.Time{}}
}

// Grant returns a permission for holder (the identity of a worker, as its certificate shows
// it) to redeem the artifact once within validity. Whoever else has the text can do nothing
// with it.
func (s *Store) Grant(a lambda.Artifact, holder string, validity time.Duration) (string, error) {
	if a.ID == "" || a.Owner == "" || holder == "" || validity <= 0 || validity > MaxValidity {
		return "", fmt.Errorf("grant artifact %q of account %q to %q for %v: an argument is missing or out of bounds", a.ID, a.Owner, holder, validity)
	}
	g := grant{Artifact: a, Holder: holder, NotAfter: s.grants.now().Add(validity), Number: rand.Text()}
	text, err := json.Marshal(g)
	if err != nil {
		return "", fmt.Errorf("grant artifact: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(s.grants.key.Seal(nil, text, seal.Bind("grant"))), nil
}

// Redeem exchanges a grant for the sealed image and its data key. It works once. Holder is who
// asks, as the caller has verified it. Errors are of kind lambda.AccessDenied (forged, expired,
// redeemed before, or of another holder; the text does not say which), NotFound or Corrupt.
func (s *Store) Redeem(ctx context.Context, text, holder string) (Sealed, error) {
	if err := ctx.Err(); err != nil {
		return Sealed{}, err
	}
	g, err := s.grants.take(text, holder)
	if err != nil {
		return Sealed{}, err
	}
	path := s.path(imageKind, g.Artifact.Owner, g.Artifact.ID)
	b, err := s.openBlob(imageKind, g.Artifact.Owner, g.Artifact.ID)
	if err != nil {
		return Sealed{}, kindOfOpen(err, "redeem grant")
	}
	return Sealed{
		Artifact:   g.Artifact,
		SealedSize: b.header.sealedBytes(),
		Key:        b.secret,
		path:       path,
	}, b.file.Close()
}

// take opens a grant and marks it as redeemed.
func (g *grants) take(text, holder string) (grant, error) {
	var granted grant
	if len(text) > maxGrantBytes {
		return granted, denied(errors.New("too long"))
	}
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return granted, denied(err)
	}
	opened, err := g.key.Open(nil, sealed, seal.Bind("grant"))
	if err != nil {
		return granted, denied(err)
	}
	if err := json.Unmarshal(opened, &granted); err != nil {
		return granted, denied(err)
	}
	if granted.Holder != holder {
		return granted, denied(fmt.Errorf("it belongs to %q, not to %q", granted.Holder, holder))
	}
	if now := g.now(); !now.Before(granted.NotAfter) {
		return granted, denied(fmt.Errorf("it expired at %v", granted.NotAfter))
	}
	return granted, g.markRedeemed(granted)
}

func (g *grants) markRedeemed(granted grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, again := g.redeemed[granted.Number]; again {
		return denied(errors.New("it was redeemed before"))
	}
	if len(g.redeemed) >= maxRedeemed {
		g.forgetExpired()
	}
	if len(g.redeemed) >= maxRedeemed {
		return lambda.Errorf(lambda.Throttled, "redeem grant", "too many grants were redeemed")
	}
	g.redeemed[granted.Number] = granted.NotAfter
	return nil
}

// forgetExpired drops what take refuses by its time anyhow. The caller holds mu.
func (g *grants) forgetExpired() {
	now := g.now()
	for number, notAfter := range g.redeemed {
		if !now.Before(notAfter) {
			delete(g.redeemed, number)
		}
	}
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
