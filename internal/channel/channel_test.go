package channel

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	echo Kind = 16 + iota
	fail
	hang
	pipe
)

type text struct{ Text string }

// start serves the four test exchanges as a worker and returns the socket's path.
func start(t *testing.T, own Credential) string {
	t.Helper()
	server, err := NewServer(own, Front, func(ctx context.Context, c *Conn, r *Request) error {
		switch r.Kind {
		case echo:
			var in text
			if err := r.Header(&in); err != nil {
				return err
			}
			return c.Send(Done, in, r.Body)
		case fail:
			return c.SendFault(&RemoteError{Code: 7, Operation: "fail", Message: "as asked"})
		case hang:
			<-ctx.Done()
			return ctx.Err()
		case pipe:
			s := c.Stream()
			go func() { io.Copy(s, s); s.Close() }()
			return ErrStreamTaken
		}
		return errors.New("unknown kind")
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		server.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return path
}

func authority(t *testing.T, installation string) *Authority {
	t.Helper()
	a, err := NewAuthority(installation)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, r Role) Credential {
	t.Helper()
	c, err := a.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func client(t *testing.T, path string, own Credential, peer Role) *Client {
	t.Helper()
	c, err := NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}, own, peer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAnExchangeCarriesHeaderAndBodyBothWays(t *testing.T) {
	a := authority(t, "one")
	c := client(t, start(t, issue(t, a, Worker)), issue(t, a, Front), Worker)
	for _, body := range []string{"", "x", strings.Repeat("y", MaxBodyBytes)} {
		var out text
		got, err := c.Call(t.Context(), echo, text{"grüß"}, []byte(body), &out)
		if err != nil || string(got) != body || out.Text != "grüß" {
			t.Fatalf("%d body bytes: got %d, header %q, error %v", len(body), len(got), out.Text, err)
		}
	}
	if len(c.idle) != 1 {
		t.Errorf("three exchanges in turn used %d connections, want 1", len(c.idle))
	}
}

func TestARemoteFaultKeepsItsCodeAndTheConnection(t *testing.T) {
	a := authority(t, "one")
	c := client(t, start(t, issue(t, a, Worker)), issue(t, a, Front), Worker)
	_, err := c.Call(t.Context(), fail, nil, nil, nil)
	remote, ok := errors.AsType[*RemoteError](err)
	if !ok || remote.Code != 7 || remote.Message != "as asked" {
		t.Fatalf("error = %v", err)
	}
	if len(c.idle) != 1 {
		t.Error("a fault that the peer reported closed the connection")
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	a := authority(t, "one")
	c := client(t, start(t, issue(t, a, Worker)), issue(t, a, Front), Worker)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, hang, nil, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error = %v, want the deadline", err)
	}
	if len(c.idle) != 0 {
		t.Error("an abandoned connection went back to the pool")
	}
}

func TestAStreamCarriesPlainBytes(t *testing.T) {
	a := authority(t, "one")
	c := client(t, start(t, issue(t, a, Worker)), issue(t, a, Front), Worker)
	conn, err := c.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Send(pipe, nil, nil); err != nil {
		t.Fatal(err)
	}
	s := conn.Stream()
	defer s.Close()
	if _, err := io.WriteString(s, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestOnlyTheExpectedRoleOfTheSameInstallationIsServed(t *testing.T) {
	a, other := authority(t, "one"), authority(t, "one")
	path := start(t, issue(t, a, Worker))
	for name, own := range map[string]Credential{
		"worker instead of front":            issue(t, a, Worker),
		"front of a foreign authority":       issue(t, other, Front),
		"front of another installation name": issue(t, &Authority{"two", a.key, a.certificate}, Front),
	} {
		// The client side must not be what refuses: let it accept any worker.
		c := client(t, path, own, Worker)
		c.config.VerifyConnection = nil
		if _, err := c.Call(t.Context(), echo, text{}, nil, nil); err == nil {
			t.Errorf("%s was served", name)
		}
	}
	if _, err := client(t, path, issue(t, a, Front), Front).Call(t.Context(), echo, text{}, nil, nil); err == nil {
		t.Error("a client that expects a front accepted a worker")
	}
}

func TestWithoutCertificateOrTLS13NothingIsServed(t *testing.T) {
	a := authority(t, "one")
	path := start(t, issue(t, a, Worker))
	for name, change := range map[string]func(*tls.Config){
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
		"TLS 1.2":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
	} {
		c := client(t, path, issue(t, a, Front), Worker)
		change(c.config)
		if _, err := c.Call(t.Context(), echo, text{}, nil, nil); err == nil {
			t.Errorf("%s was served", name)
		}
	}
}

func TestTheCipherSuiteIsAESGCM(t *testing.T) {
	a := authority(t, "one")
	c := client(t, start(t, issue(t, a, Worker)), issue(t, a, Front), Worker)
	conn, err := c.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := conn.stream.ConnectionState()
	if s.Version != tls.VersionTLS13 || !strings.Contains(tls.CipherSuiteName(s.CipherSuite), "_GCM_") {
		t.Errorf("version %x, suite %s", s.Version, tls.CipherSuiteName(s.CipherSuite))
	}
	s.CipherSuite = tls.TLS_CHACHA20_POLY1305_SHA256
	if verifyPeer(s, nil, "") == nil {
		t.Error("ChaCha20 was accepted")
	}
}

func TestAFrameOverItsBoundIsRefusedOnBothSides(t *testing.T) {
	a := authority(t, "one")
	c := client(t, start(t, issue(t, a, Worker)), issue(t, a, Front), Worker)
	if _, err := c.Call(t.Context(), echo, text{}, make([]byte, MaxBodyBytes+1), nil); err == nil {
		t.Error("an oversized frame was sent")
	}
	conn, err := c.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.stream.Write([]byte{byte(echo), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	conn.stream.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, _, err := conn.Receive(nil); !errors.Is(err, io.EOF) {
		t.Errorf("after an oversized frame: %v, want the connection closed", err)
	}
}

func BenchmarkExchange(b *testing.B) {
	a, _ := NewAuthority("one")
	own, _ := a.Issue(Worker)
	server, _ := NewServer(own, Front, func(_ context.Context, c *Conn, r *Request) error { return c.Send(Done, text{"y"}, r.Body) }, slog.Default())
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	go server.Serve(l)
	defer server.Close()
	defer l.Close()
	front, _ := a.Issue(Front)
	c, _ := NewClient(func(context.Context) (net.Conn, error) { return net.Dial("unix", l.Addr().String()) }, front, Worker)
	defer c.Close()
	body := []byte(`{"message":"hello, world"}`)
	for b.Loop() {
		if _, err := c.Call(context.Background(), echo, text{"x"}, body, new(text)); err != nil {
			b.Fatal(err)
		}
	}
}
