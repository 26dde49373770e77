package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"software.sslmate.com/src/go-pkcs12"

	"cloister/internal/seal"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var testKey = func() *seal.Key {
	key, err := seal.NewKey(bytes.Repeat([]byte{7}, seal.KeySize))
	if err != nil {
		panic(err)
	}
	return key
}()

// clock is a settable time that handshakes on several goroutines may read.
type clock struct{ nanoseconds atomic.Int64 }

func newClock(t time.Time) *clock {
	c := new(clock)
	c.nanoseconds.Store(t.UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanoseconds.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.nanoseconds.Add(int64(d)) }

func open(t *testing.T, c Config) *Authority {
	t.Helper()
	if c.Key == nil {
		c.Key = testKey
	}
	if c.Names == nil {
		c.Names = []string{"localhost", "127.0.0.1", "::1"}
	}
	c.Logger = slog.New(slog.DiscardHandler)
	a, err := LoadOrCreate(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func leaf(t *testing.T, a *Authority) *x509.Certificate {
	t.Helper()
	c, err := a.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

// verify checks a server certificate as a client that trusts the PEM does.
func verify(pem []byte, certificate *x509.Certificate, name string, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	_, err := certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now})
	return err
}

func readExport(t *testing.T, directory string) []byte {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(directory, CAFile))
	if err != nil {
		t.Fatal(err)
	}
	return pem
}

func TestAClientThatTrustsTheExportedFileAcceptsEveryName(t *testing.T) {
	directory := t.TempDir()
	a := open(t, Config{Directory: directory, Now: newClock(start).now,
		Names: []string{"lambda.example", "localhost", "127.0.0.1", "::1", "", "localhost"}})
	for _, name := range []string{"lambda.example", "localhost", "127.0.0.1", "::1"} {
		if err := verify(readExport(t, directory), leaf(t, a), name, start); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := verify(readExport(t, directory), leaf(t, a), "elsewhere.example", start); err == nil {
		t.Error("a name that was not configured is accepted")
	}
	if got := len(leaf(t, a).DNSNames) + len(leaf(t, a).IPAddresses); got != 4 {
		t.Errorf("certificate has %d names, want the 4 different ones", got)
	}
}

func TestASecondStartKeepsTheAuthorityAndIssuesANewServerKey(t *testing.T) {
	directory := t.TempDir()
	first := open(t, Config{Directory: directory})
	exported := readExport(t, directory)
	second := open(t, Config{Directory: directory, Names: []string{"new-host.example"}})
	if diff := cmp.Diff(string(exported), string(readExport(t, directory))); diff != "" {
		t.Errorf("the authority changed:\n%s", diff)
	}
	if err := verify(exported, leaf(t, second), "new-host.example", time.Now()); err != nil {
		t.Errorf("a client of the first start refuses the new listen host: %v", err)
	}
	if leaf(t, first).PublicKey.(*ecdsa.PublicKey).Equal(leaf(t, second).PublicKey) {
		t.Error("the server key was kept over a start, so it must be on disk")
	}
}

func TestNoPrivateKeyIsReadableInTheDirectory(t *testing.T) {
	directory := t.TempDir()
	a := open(t, Config{Directory: directory})
	server, err := a.current.Load().certificate.PrivateKey.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	authority, err := a.key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(directory, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, server) || bytes.Contains(data, authority) || bytes.Contains(data, []byte("PRIVATE KEY")) {
			t.Errorf("%s holds a private key in clear", path)
		}
		return err
	})
	if err != nil || files != 3 {
		t.Fatalf("walked %d files, want the sealed one and two for clients: %v", files, err)
	}
	info, err := os.Stat(a.authorityPath())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("sealed authority: mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestASealedAuthorityThatDoesNotOpenIsRefusedAndKept(t *testing.T) {
	other, err := seal.NewKey(bytes.Repeat([]byte{8}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(path string, c *Config){
		"another key": func(_ string, c *Config) { c.Key = other },
		"flipped bit": func(path string, _ *Config) { rewrite(t, path, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) },
		"cut":         func(path string, _ *Config) { rewrite(t, path, func(b []byte) []byte { return b[:len(b)-1] }) },
		"empty":       func(path string, _ *Config) { rewrite(t, path, func([]byte) []byte { return nil }) },
		"sealed under another name": func(path string, _ *Config) {
			if err := testKey.WriteFile(path, "something else", []byte("x")); err != nil {
				t.Fatal(err)
			}
		},
		"not an authority": func(path string, _ *Config) {
			if err := testKey.WriteFile(path, sealedName, []byte("x")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{Directory: t.TempDir(), Key: testKey, Names: []string{"localhost"}}
			path := open(t, config).authorityPath()
			change(path, &config)
			before, _ := os.ReadFile(path)
			if _, err := LoadOrCreate(config); err == nil {
				t.Fatal("opened, so clients would be given another authority silently")
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the refused file was changed")
			}
		})
	}
}

func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAChangedExportIsRestoredAtTheNextStart(t *testing.T) {
	directory := t.TempDir()
	a := open(t, Config{Directory: directory})
	foreign := open(t, Config{Directory: t.TempDir()})
	for _, name := range []string{CAFile, TrustStoreFile} {
		data, err := os.ReadFile(filepath.Join(foreign.directory, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(directory, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	open(t, Config{Directory: directory})
	if !bytes.Equal(readExport(t, directory), a.CA()) {
		t.Error("a foreign authority stayed in the PEM file")
	}
	if !a.isTrustStore(filepath.Join(directory, TrustStoreFile)) {
		t.Error("a foreign authority stayed in the Java trust store")
	}
}

func TestUnchangedFilesForClientsAreNotRewritten(t *testing.T) {
	directory := t.TempDir()
	open(t, Config{Directory: directory})
	before, err := os.ReadFile(filepath.Join(directory, TrustStoreFile))
	if err != nil {
		t.Fatal(err)
	}
	open(t, Config{Directory: directory})
	after, err := os.ReadFile(filepath.Join(directory, TrustStoreFile))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the trust store was encoded anew: %v", err)
	}
}

func TestTheJavaTrustStoreHoldsTheAuthorityAndNothingElse(t *testing.T) {
	a := open(t, Config{Directory: t.TempDir()})
	data, err := os.ReadFile(filepath.Join(a.directory, TrustStoreFile))
	if err != nil {
		t.Fatal(err)
	}
	certificates, err := pkcs12.DecodeTrustStore(data, TrustStorePassword)
	if err != nil || len(certificates) != 1 || !certificates[0].Equal(a.certificate) {
		t.Errorf("trust store holds %d certificates, %v", len(certificates), err)
	}
}

func TestTheServerCertificateIsRenewedWithoutARestart(t *testing.T) {
	clock := newClock(start)
	a := open(t, Config{Directory: t.TempDir(), Now: clock.now})
	first := leaf(t, a)
	clock.advance(serverLife - renewBefore - time.Minute)
	if leaf(t, a) != first {
		t.Fatal("renewed too early")
	}
	clock.advance(2 * time.Minute)

	seen := make([]*x509.Certificate, 16)
	var handshakes sync.WaitGroup
	for i := range seen {
		handshakes.Go(func() { seen[i] = leaf(t, a) })
	}
	handshakes.Wait()
	renewed := leaf(t, a)
	if renewed == first {
		t.Fatal("not renewed when a third of the life was left")
	}
	for _, c := range seen {
		if c != first && c != renewed {
			t.Error("more than one handshake issued a certificate")
		}
	}
	if err := verify(a.CA(), renewed, "localhost", first.NotAfter.Add(time.Hour)); err != nil {
		t.Errorf("the new certificate does not outlive the old one: %v", err)
	}
}

func TestAFailedRenewalKeepsTheOldCertificateAndIsTriedAgain(t *testing.T) {
	clock := newClock(start)
	a := open(t, Config{Directory: t.TempDir(), Now: clock.now})
	first := leaf(t, a)
	working := a.key
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.key = other // x509 refuses to sign for a parent with another key
	clock.advance(serverLife - renewBefore)
	if leaf(t, a) != first {
		t.Fatal("a failed renewal replaced the certificate")
	}
	a.key = working
	if leaf(t, a) != first {
		t.Error("tried again at once: every handshake would pay for a broken authority")
	}
	clock.advance(retryAfter)
	if leaf(t, a) == first {
		t.Error("never tried again")
	}
}

func TestAnExpiredAuthorityIsNamedAndNoCertificateOutlivesIt(t *testing.T) {
	clock := newClock(start)
	config := Config{Directory: t.TempDir(), Key: testKey, Names: []string{"localhost"}, Now: clock.now}
	open(t, config)
	clock.advance(authorityLife - 24*time.Hour)
	a := open(t, config)
	if leaf(t, a).NotAfter.After(a.certificate.NotAfter) {
		t.Error("the server certificate outlives its authority")
	}
	clock.advance(25 * time.Hour)
	if _, err := LoadOrCreate(config); err == nil || !strings.Contains(err.Error(), a.authorityPath()) {
		t.Errorf("error %v does not say which file to move away", err)
	}
}

func TestTheAuthorityCannotVouchForClientsOrOtherAuthorities(t *testing.T) {
	a := open(t, Config{Directory: t.TempDir()})
	if !a.certificate.MaxPathLenZero {
		t.Error("the authority may issue authorities")
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	forged := issueForClient(t, a)
	_, err := forged.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err == nil {
		t.Error("a client certificate of this authority is accepted")
	}
}

func issueForClient(t *testing.T, a *Authority) *x509.Certificate {
	t.Helper()
	template := *leaf(t, a)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, &template, a.certificate, template.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func TestAHandshakeUsesTheCertificate(t *testing.T) {
	a := open(t, Config{Directory: t.TempDir()})
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		conn := tls.Server(server, &tls.Config{GetCertificate: a.GetCertificate, MinVersion: tls.VersionTLS12})
		io.WriteString(conn, "hello")
		conn.Close()
	}()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CA())
	got, err := io.ReadAll(tls.Client(client, &tls.Config{RootCAs: roots, ServerName: "localhost"}))
	if err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestAServerWithoutANameIsRefused(t *testing.T) {
	if _, err := LoadOrCreate(Config{Directory: t.TempDir(), Key: testKey, Names: []string{""}}); err == nil {
		t.Error("accepted")
	}
}
