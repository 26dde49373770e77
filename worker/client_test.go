package worker

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cloister/internal/channel"
	"cloister/lambda"
)

// clientOf returns a front's view of a worker that answers on the socket when somebody serves there, and what it needs to.
func clientOf(t *testing.T, socket string, dialled func()) (*Client, channel.Credential) {
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
	c, err := NewClient(func(ctx context.Context) (net.Conn, error) {
		dialled()
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}, front, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c, own
}

func TestACallWaitsForAWorkerThatStarts(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "worker.sock")
	var dials atomic.Int32
	again := make(chan struct{})
	c, own := clientOf(t, socket, func() {
		if dials.Add(1) == 3 {
			close(again)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { c.Run(ctx, func() {}) })
	defer all.Wait()
	defer cancel()
	made := make(chan error, 1)
	go func() {
		_, err := c.Create(ctx, spec())
		made <- err
	}()
	<-again // nobody answers
	select {
	case err := <-made:
		t.Fatalf("without a worker: %v", err)
	default:
	}
	h, _, _ := newHost(t, echo)
	server, err := NewServer(h, own, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	defer l.Close()
	go server.Serve(l)
	if err := <-made; err != nil {
		t.Errorf("with a worker: %v", err)
	}
}

func TestAPeerThatCannotBeAskedIsNamedAndMayBeAskedAgain(t *testing.T) {
	gone := func(context.Context) (net.Conn, error) { return nil, net.ErrClosed }
	c, own := clientOf(t, filepath.Join(t.TempDir(), "nobody"), func() {})
	f, err := NewFront(gone, own, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, worker := c.CheckRuntime(t.Context(), "python3.11")
	_, front := f.Pipe(t.Context())
	for name, err := range map[string]error{"worker": worker, "front": front} {
		if lambda.KindOf(err) != lambda.Unavailable || !strings.Contains(err.Error(), "the "+name+" is restarting; try again") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
