package worker

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"

	"cloister/artifact"
	"cloister/internal/channel"
	"cloister/lambda"
)

// Artifacts redeems grants. Implemented by artifact.Store.
type Artifacts interface {
	Redeem(ctx context.Context, grant, holder string) (artifact.Sealed, error)
}

// Logs stores log events. Implemented by logs.Store.
type Logs interface {
	Append(ctx context.Context, accountID, group, stream string, events []lambda.LogEvent) (dropped int, err error)
}

// Holder is the identity that grants for the workers of this installation are bound to.
const Holder = "worker"

// Services is the front's side of what workers ask for.
type Services struct {
	Artifacts Artifacts
	Logs      Logs
	Gateway   func(net.Conn) // takes a connection that a function made
	Logger    *slog.Logger

	server *channel.Server
}

// Serve answers workers of the same installation until l is closed.
func (s *Services) Serve(l net.Listener, own channel.Credential) error {
	var err error
	s.server, err = channel.NewServer(own, channel.Worker, s.handle, s.Logger)
	if err != nil {
		return err
	}
	defer s.server.Close()
	return s.server.Serve(l)
}

func (s *Services) handle(ctx context.Context, c *channel.Conn, r *channel.Request) error {
	switch r.Kind {
	case kindPipe:
		s.Gateway(c.Stream())
		return channel.ErrStreamTaken
	case kindLogs:
		return answer(c, r, func(b *logBatch) (struct{}, error) { return struct{}{}, s.store(ctx, b, r.Body) })
	case kindRedeem:
		return s.redeem(ctx, c, r)
	}
	return fmt.Errorf("unknown exchange %d", r.Kind)
}

// store keeps a batch of log events.
func (s *Services) store(ctx context.Context, b *logBatch, body []byte) error {
	events, err := readEvents(body)
	if err != nil {
		return err
	}
	_, err = s.Logs.Append(ctx, b.AccountID, b.Group, b.Stream, events)
	return err
}

// redeem streams a sealed artifact to a worker that holds a valid grant for it.
func (s *Services) redeem(ctx context.Context, c *channel.Conn, r *channel.Request) error {
	var in redeem
	if err := r.Header(&in); err != nil {
		return err
	}
	sealed, err := s.Artifacts.Redeem(ctx, in.Grant, Holder)
	if err != nil {
		return c.SendFault(remote(err))
	}
	file, err := sealed.Open()
	if err != nil {
		return c.SendFault(remote(err))
	}
	defer file.Close()
	if err := c.Send(channel.Data, redeemed{sealed.Key}, nil); err != nil {
		return err
	}
	piece := make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(file, piece)
		if n > 0 {
			if err := c.Send(channel.Data, nil, piece[:n]); err != nil {
				return err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return c.Send(channel.Done, nil, nil)
		default:
			return c.SendFault(remote(err))
		}
	}
}
