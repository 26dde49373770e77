package worker

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"cloister/artifact"
	"cloister/artifact/zip/ziptest"
	"cloister/internal/channel"
	"cloister/internal/seal"
	"cloister/lambda"
)

// sealedCode is a stored artifact: what a front sends of it.
func sealedCode(t *testing.T) (a lambda.Artifact, key, sealed []byte) {
	t.Helper()
	root, err := seal.LoadOrCreate(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := artifact.Open(artifact.Config{Directory: t.TempDir(), Root: root})
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 1_200_000) // three chunks
	for i := range noise {
		noise[i] = byte(i * i >> 8)
	}
	a, _, _, err = store.PutZip(t.Context(), "1", ziptest.Of("noise", string(noise)))
	if err != nil {
		t.Fatal(err)
	}
	grant, err := store.Grant(a, Holder, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Redeem(t.Context(), grant, Holder)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if sealed, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	return a, s.Key, sealed
}

// frontThat serves a worker by handle.
func frontThat(t *testing.T, handle channel.Handler) *Front {
	t.Helper()
	authority, err := channel.NewAuthority("one")
	if err != nil {
		t.Fatal(err)
	}
	front, err := authority.Issue(channel.Front)
	if err != nil {
		t.Fatal(err)
	}
	own, err := authority.Issue(channel.Worker)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "front.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server, err := channel.NewServer(front, channel.Worker, handle, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(func() { l.Close(); server.Close() })
	f, err := NewFront(func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) }, own, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Only what was received and does not pass its check is damage; all else may be tried again.
func TestCodeThatDoesNotArriveWholeIsNotTakenForDamaged(t *testing.T) {
	a, key, good := sealedCode(t)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	send := func(c *channel.Conn, b []byte) error {
		for len(b) > 0 {
			n := min(len(b), 300<<10)
			if err := c.Send(channel.Data, nil, b[:n]); err != nil {
				return err
			}
			b = b[n:]
		}
		return nil
	}
	head := func(c *channel.Conn) error { return c.Send(channel.Data, redeemed{key}, nil) }
	for name, test := range map[string]struct {
		answer func(c *channel.Conn) error // an error closes the connection
		want   lambda.Kind
	}{
		"gone at once":        {func(c *channel.Conn) error { return io.EOF }, lambda.Unavailable},
		"gone after the head": {func(c *channel.Conn) error { head(c); return io.EOF }, lambda.Unavailable},
		"gone in the first chunk": {func(c *channel.Conn) error {
			head(c)
			send(c, good[:1000])
			return io.EOF
		}, lambda.Unavailable},
		"gone between two chunks": {func(c *channel.Conn) error {
			head(c)
			send(c, good[:len(good)-(512<<10)])
			return io.EOF
		}, lambda.Unavailable},
		"gone before the end is told": {func(c *channel.Conn) error {
			head(c)
			send(c, good)
			return io.EOF
		}, lambda.Unavailable},
		"a fault in the middle": {func(c *channel.Conn) error {
			head(c)
			send(c, good[:1000])
			return c.SendFault(&channel.RemoteError{Code: uint8(lambda.Throttled), Operation: "redeem"})
		}, lambda.Throttled},
		"a fault at once": {func(c *channel.Conn) error {
			return c.SendFault(&channel.RemoteError{Code: uint8(lambda.AccessDenied), Operation: "redeem"})
		}, lambda.AccessDenied},
		"an end that comes too early": {func(c *channel.Conn) error {
			head(c)
			send(c, good[:1000])
			return c.Send(channel.Done, nil, nil)
		}, lambda.Corrupt},
		"a flipped bit": {func(c *channel.Conn) error {
			head(c)
			send(c, flipped)
			return c.Send(channel.Done, nil, nil)
		}, lambda.Corrupt},
		"a byte too many": {func(c *channel.Conn) error {
			head(c)
			send(c, append(bytes.Clone(good), 0))
			return c.Send(channel.Done, nil, nil)
		}, lambda.Corrupt},
	} {
		t.Run(name, func(t *testing.T) {
			f := frontThat(t, func(_ context.Context, c *channel.Conn, r *channel.Request) error { return test.answer(c) })
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := f.Fetch(ctx, "grant", a, io.Discard); err == nil || lambda.KindOf(err) != test.want {
				t.Errorf("got %v (%v), want %v", err, lambda.KindOf(err), test.want)
			}
		})
	}
	f := frontThat(t, func(_ context.Context, c *channel.Conn, r *channel.Request) error {
		head(c)
		send(c, good)
		return c.Send(channel.Done, nil, nil)
	})
	var image bytes.Buffer
	for range 2 { // on one connection
		image.Reset()
		if err := f.Fetch(t.Context(), "grant", a, &image); err != nil || int64(image.Len()) != a.Size {
			t.Errorf("%d bytes, %v", image.Len(), err)
		}
	}
}
