// Package channel connects the processes of one installation: mutual TLS 1.3
// restricted to AES-GCM over any stream socket, and on it a small framed protocol in which one
// exchange at a time uses a connection.
//
// It knows roles and bytes, not functions: package worker defines the messages. Only the front
// and the workers use it, with certificates that an Authority issued for the life of a process;
// no private key of a channel is ever written to disk.
//
// Invariants: both sides have proved a certificate of the same installation and the role the
// other expects before the first frame is read, and no frame larger than its stated bound is
// accepted. An attacker who can open the socket but has no certificate learns nothing and can
// only make connections, which time out in the handshake.
package channel

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// A Role is what a process may act as towards the others.
type Role string

// The two roles of an installation.
const (
	Front  Role = "front"
	Worker Role = "worker"
)

// An Authority issues the certificates of one installation. It lives in the memory of the
// process that starts the others, so every start has a new one and nothing can be stolen from disk.
type Authority struct {
	installation string
	key          *ecdsa.PrivateKey
	certificate  *x509.Certificate
}

// A Credential is one process's certificate, private key and trust root, as DER. It is passed to a
// child through an inherited pipe and must not be stored.
type Credential struct {
	Installation string
	Certificate  []byte
	Key          []byte
	Root         []byte
}

// NewAuthority makes a certificate authority for the installation.
func NewAuthority(installation string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make channel authority: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Cloister channel authority " + installation},
		NotBefore:             time.Now().AddDate(-10, 0, 0),
		NotAfter:              time.Now().AddDate(10, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make channel authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make channel authority: %w", err)
	}
	return &Authority{installation, key, certificate}, nil
}

// Issue makes a certificate with which its holder may act in the role.
func (a *Authority) Issue(role Role) (Credential, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Credential{}, fmt.Errorf("issue channel certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return Credential{}, fmt.Errorf("issue channel certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: string(role)},
		URIs:         []*url.URL{peerURI(a.installation, role)},
		NotBefore:    time.Now().AddDate(-10, 0, 0),
		NotAfter:     a.certificate.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return Credential{}, fmt.Errorf("issue channel certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Credential{}, fmt.Errorf("issue channel certificate: %w", err)
	}
	return Credential{a.installation, der, private, a.certificate.Raw}, nil
}

func peerURI(installation string, role Role) *url.URL {
	return &url.URL{Scheme: "cloister", Host: installation, Path: "/" + string(role)}
}

// config returns the TLS configuration with which the credential's holder talks to peer.
func (c Credential) config(peer Role) (*tls.Config, error) {
	key, err := x509.ParsePKCS8PrivateKey(c.Key)
	if err != nil {
		return nil, fmt.Errorf("read channel credential: %w", err)
	}
	root, err := x509.ParseCertificate(c.Root)
	if err != nil {
		return nil, fmt.Errorf("read channel credential: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	want := peerURI(c.Installation, peer).String()
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{c.Certificate}, PrivateKey: key}},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection below checks chain and role; there is no host name to check
		SessionTicketsDisabled: true, // every connection proves its identity anew
		VerifyConnection:       func(s tls.ConnectionState) error { return verifyPeer(s, roots, want) },
	}, nil
}

// verifyPeer accepts a connection only from the named role of the same installation, in AES-GCM.
func verifyPeer(s tls.ConnectionState, roots *x509.CertPool, want string) error {
	if s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 && s.CipherSuite != tls.TLS_AES_256_GCM_SHA384 {
		// crypto/tls chooses the suite itself and prefers ChaCha20 where the processor has no AES.
		return fmt.Errorf("channel: cipher suite %s is not AES-GCM: this processor lacks AES instructions", tls.CipherSuiteName(s.CipherSuite))
	}
	if len(s.PeerCertificates) != 1 {
		return errors.New("channel: the peer sent no single certificate")
	}
	peer := s.PeerCertificates[0]
	if _, err := peer.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("channel: peer certificate: %w", err)
	}
	if len(peer.URIs) != 1 || peer.URIs[0].String() != want {
		return fmt.Errorf("channel: the peer is not %s", want)
	}
	return nil
}
