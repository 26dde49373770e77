package certificate

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"cloister/internal/durable"
	"cloister/internal/seal"
)

// The names of the files for clients in Config.Directory: PEM for AWS_CA_BUNDLE and NODE_EXTRA_CA_CERTS,
// PKCS #12 for javax.net.ssl.trustStore.
const (
	CAFile         = "ca.pem"
	TrustStoreFile = "ca.p12"
)

// TrustStorePassword opens the Java trust store. It protects nothing, for the store holds public
// certificates only; Java tools insist on having one, and this is the one they use by default.
const TrustStorePassword = "changeit"

// sealedName is authenticated with the sealed authority, so that no other file sealed under the same
// key can be put in its place.
const sealedName = "certificate authority of the gateway"

// maxFileBytes bounds what is read of the files for clients; the real ones have about one kilobyte.
const maxFileBytes = 64 << 10

// CA returns the authority's certificate as PEM, the content of CAFile.
func (a *Authority) CA() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// authorityPath is the one file that matters: key and certificate together, so that no crash can
// leave one without the other.
func (a *Authority) authorityPath() string { return filepath.Join(a.directory, "ca.sealed") }

// load reads the sealed authority, or makes and stores a new one if the file does not exist. Any other
// doubt is an error: a new authority would lock out every client that trusts the old one.
func (a *Authority) load(key *seal.Key) error {
	plain, err := key.ReadFile(a.authorityPath(), sealedName)
	if errors.Is(err, fs.ErrNotExist) {
		return a.create(key)
	}
	if err != nil {
		return fmt.Errorf("open certificate authority: %w", err)
	}
	defer clear(plain)
	if a.key, a.certificate, err = parseAuthority(plain); err != nil {
		return fmt.Errorf("open certificate authority in %s: %w", a.authorityPath(), err)
	}
	return nil
}

func (a *Authority) create(key *seal.Key) (err error) {
	if a.key, a.certificate, err = newAuthority(a.now()); err != nil {
		return fmt.Errorf("make certificate authority: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return fmt.Errorf("make certificate authority: %w", err)
	}
	defer clear(der)
	plain := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	plain = append(plain, a.CA()...)
	defer clear(plain)
	if err := key.WriteFile(a.authorityPath(), sealedName, plain); err != nil {
		return fmt.Errorf("store certificate authority: %w", err)
	}
	return nil
}

// parseAuthority reads a private key and its certificate, both PEM, and checks that they belong together.
func parseAuthority(plain []byte) (crypto.Signer, *x509.Certificate, error) {
	keyBlock, rest := pem.Decode(plain)
	certificateBlock, rest := pem.Decode(rest)
	if keyBlock == nil || certificateBlock == nil || len(rest) != 0 {
		return nil, nil, errors.New("not a key and a certificate")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(certificateBlock.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%T cannot sign", parsed)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(certificate.PublicKey) {
		return nil, nil, errors.New("key and certificate do not belong together")
	}
	return key, certificate, nil
}

// export writes the files for clients, unless they hold the right certificate already: their owner may
// have copied or mounted them, and an unchanged file needs no new time stamp.
func (a *Authority) export() error {
	want := a.CA()
	path := filepath.Join(a.directory, CAFile)
	if have, err := readBounded(path); err != nil || !bytes.Equal(have, want) {
		if err := durable.WriteFile(path, want, 0o644); err != nil {
			return fmt.Errorf("export certificate authority: %w", err)
		}
	}
	path = filepath.Join(a.directory, TrustStoreFile)
	if a.isTrustStore(path) {
		return nil
	}
	// Modern is AES-256 with SHA-256, which Java reads since 8u301 and 11.0.12.
	store, err := pkcs12.Modern.EncodeTrustStoreEntries([]pkcs12.TrustStoreEntry{
		{Cert: a.certificate, FriendlyName: "cloister " + a.certificate.NotBefore.UTC().Format(time.DateOnly)},
	}, TrustStorePassword)
	if err != nil {
		return fmt.Errorf("export Java trust store: %w", err)
	}
	if err := durable.WriteFile(path, store, 0o644); err != nil {
		return fmt.Errorf("export Java trust store: %w", err)
	}
	return nil
}

// isTrustStore decodes the store because its encoding has a random salt and cannot be compared.
func (a *Authority) isTrustStore(path string) bool {
	have, err := readBounded(path)
	if err != nil {
		return false
	}
	certificates, err := pkcs12.DecodeTrustStore(have, TrustStorePassword)
	return err == nil && len(certificates) == 1 && certificates[0].Equal(a.certificate)
}

func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileBytes {
		return nil, fmt.Errorf("%s is not a regular file of at most %d bytes", path, maxFileBytes)
	}
	return os.ReadFile(path)
}
