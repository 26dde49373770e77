// Package certificate keeps the certificate authority of one installation and the server
// certificates it issues for the front door.
//
// It is not the authority of the channel between front and worker (package internal/channel has its
// own, which never touches a disk): this one is put into the trust stores of clients, so it must not
// be able to vouch for a worker. Only cmd calls it; package gateway sees nothing but GetCertificate.
//
// Invariants: the authority's private key is on disk only sealed; private keys of server certificates
// are never written at all, every start makes a new one; what clients are told to trust (ca.pem, ca.p12)
// is derived from the sealed file at every start, so a changed copy does not survive one.
// An attacker controls nothing here but the name in a ClientHello, which is ignored.
package certificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cloister/internal/seal"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
	renewBefore   = serverLife / 3
	// retryAfter spaces attempts when a renewal fails, so that a broken authority does not cost every
	// handshake a signature.
	retryAfter = time.Minute
	// backdating lets a client whose clock is behind ours connect to a fresh installation.
	backdating = time.Hour
)

// Config says where the authority lives and what its server certificates are for.
type Config struct {
	// Directory holds the sealed authority and the files for clients. It must exist.
	Directory string
	// Names are the hosts and IP addresses of the server certificate, in any order and with any
	// repetition; empty ones are dropped. At least one must remain.
	Names []string
	// Key seals the authority's private key. It must be the same at every start.
	Key *seal.Key
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Logger receives renewals and their failures; slog.Default() if nil.
	Logger *slog.Logger
}

// An Authority issues the server certificate and renews it before it expires. Its methods may be
// called concurrently.
type Authority struct {
	directory   string
	names       []string
	now         func() time.Time
	log         *slog.Logger
	key         crypto.Signer
	certificate *x509.Certificate

	current atomic.Pointer[served]
	renewal sync.Mutex // held by the one handshake that renews
}

// served is a server certificate in use.
type served struct {
	certificate *tls.Certificate
	renewAt     time.Time
}

// LoadOrCreate opens the authority in the directory, or makes one if there is none, writes the files
// for clients, and issues a first server certificate. A changed list of names needs nothing more than
// this: the authority, and so what clients trust, stays the same.
func LoadOrCreate(c Config) (*Authority, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	a := &Authority{directory: c.Directory, names: cleanNames(c.Names), now: c.Now, log: c.Logger}
	if len(a.names) == 0 {
		return nil, fmt.Errorf("server certificate: no name given")
	}
	if err := a.load(c.Key); err != nil {
		return nil, err
	}
	if err := a.export(); err != nil {
		return nil, err
	}
	first, err := a.issue()
	if err != nil {
		return nil, err
	}
	a.current.Store(first)
	return a, nil
}

// GetCertificate is for tls.Config. When a third of the certificate's life is left, the next handshake
// issues a new one, in about the time of one signature, while others go on with the old one; there is no
// background goroutine to stop. It never returns an error: a failed renewal is logged and tried again
// by a handshake a minute later.
func (a *Authority) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	current := a.current.Load()
	if a.now().Before(current.renewAt) || !a.renewal.TryLock() {
		return current.certificate, nil
	}
	defer a.renewal.Unlock()
	if latest := a.current.Load(); latest != current { // another handshake was faster
		return latest.certificate, nil
	}
	next, err := a.issue()
	if err != nil {
		a.log.Error("renew server certificate", slog.Any("error", err))
		a.current.Store(&served{current.certificate, a.now().Add(retryAfter)})
		return current.certificate, nil
	}
	a.current.Store(next)
	a.log.Info("renewed server certificate", slog.Time("expires", next.certificate.Leaf.NotAfter))
	return next.certificate, nil
}

// issue makes a server certificate with a new key.
func (a *Authority) issue() (*served, error) {
	now := a.now()
	if !now.Before(a.certificate.NotAfter) {
		return nil, fmt.Errorf("issue server certificate: the authority in %s expired at %s; move that file away to make a new one",
			a.authorityPath(), a.certificate.NotAfter.UTC().Format(time.RFC3339))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("issue server certificate: %w", err)
	}
	template := &x509.Certificate{ // x509 draws a random serial number
		Subject:     pkix.Name{CommonName: a.names[0]},
		NotBefore:   now.Add(-backdating),
		NotAfter:    earlier(now.Add(serverLife), a.certificate.NotAfter),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		// Strict verifiers (Python 3.13) want the constraints spelt out in every certificate.
		BasicConstraintsValid: true,
	}
	for _, name := range a.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("issue server certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue server certificate: %w", err)
	}
	return &served{
		certificate: &tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key, Leaf: leaf},
		renewAt:     leaf.NotAfter.Add(-renewBefore),
	}, nil
}

// newAuthority makes a key and a self-signed certificate that may issue server certificates only.
func newAuthority(now time.Time) (crypto.Signer, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		// The time keeps two authorities in one trust store apart for people who read its list.
		Subject:               pkix.Name{CommonName: "Cloister CA " + now.UTC().Format("2006-01-02T15:04:05Z")},
		NotBefore:             now.Add(-backdating),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return key, certificate, err
}

// cleanNames drops empty and repeated names and keeps the order, because the first is the subject.
func cleanNames(names []string) []string {
	var clean []string
	for _, name := range names {
		if name != "" && !slices.Contains(clean, name) {
			clean = append(clean, name)
		}
	}
	return clean
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
