package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"cloister/internal/channel"
	"cloister/internal/socket"
	"cloister/lambda"
)

// Server answers the front's exchanges on behalf of a Host.
type Server struct {
	host   *Host
	server *channel.Server
}

// NewServer returns a server that speaks only to the front of the same installation.
func NewServer(h *Host, own channel.Credential, logger *slog.Logger) (*Server, error) {
	s := &Server{host: h}
	var err error
	s.server, err = channel.NewServer(own, channel.Front, s.handle, logger)
	return s, err
}

// Serve answers until l is closed.
func (s *Server) Serve(l net.Listener) error { return s.server.Serve(l) }

// Close ends all exchanges.
func (s *Server) Close() error { return s.server.Close() }

func (s *Server) handle(ctx context.Context, c *channel.Conn, r *channel.Request) error {
	switch r.Kind {
	case kindInvoke:
		return s.invoke(ctx, c, r)
	case kindCreate:
		return s.create(ctx, c, r)
	case kindDestroy:
		return answer(c, r, func(in *environmentID) (struct{}, error) {
			return struct{}{}, s.host.Destroy(ctx, in.EnvironmentID)
		})
	case kindCheckRuntime:
		return answer(c, r, func(in *runtimeName) (runtimeVersion, error) {
			arn, err := s.host.CheckRuntime(ctx, in.Identifier)
			return runtimeVersion{arn}, err
		})
	case kindPrepareRuntime:
		return answer(c, r, func(in *runtimeName) (struct{}, error) {
			return struct{}{}, s.host.PrepareRuntime(ctx, in.Identifier)
		})
	case kindAttach:
		return s.attach(ctx, c)
	}
	return fmt.Errorf("unknown exchange %d", r.Kind)
}

// answer decodes a request, calls do and sends its outcome.
func answer[In, Out any](c *channel.Conn, r *channel.Request, do func(*In) (Out, error)) error {
	var in In
	if err := r.Header(&in); err != nil {
		return err
	}
	out, err := do(&in)
	if err != nil {
		return c.SendFault(remote(err))
	}
	return c.Send(channel.Done, out, nil)
}

// create makes an environment. If the front has gone meanwhile nobody knows it, so it ends again.
func (s *Server) create(ctx context.Context, c *channel.Conn, r *channel.Request) error {
	var spec lambda.EnvironmentSpec
	if err := r.Header(&spec); err != nil {
		return err
	}
	id, err := s.host.Create(ctx, spec)
	if err != nil {
		return c.SendFault(remote(err))
	}
	if err := c.Send(channel.Done, created{id}, nil); err != nil {
		return errors.Join(err, s.host.Destroy(context.WithoutCancel(ctx), id))
	}
	return nil
}

func (s *Server) invoke(ctx context.Context, c *channel.Conn, r *channel.Request) error {
	defer socket.Begin().End()
	in := new(invoke)
	if err := r.Header(in); err != nil {
		return err
	}
	result, err := s.host.Invoke(ctx, in.EnvironmentID, &lambda.Invocation{
		RequestID:     in.RequestID,
		FunctionARN:   in.FunctionARN,
		Payload:       r.Body,
		ClientContext: in.ClientContext,
		TraceID:       in.TraceID,
		LogTail:       in.LogTail,
	})
	if err != nil {
		return c.SendFault(remote(err))
	}
	err = c.Send(channel.Done, &invoked{result.FunctionError, result.ExecutedVersion, result.LogTail}, result.Payload)
	s.host.Acknowledge(in.EnvironmentID)
	return err
}

// attach is the front's lease: as long as it stands the front's environments live, and it tells the
// front which of them died. A front that goes away knows none of them any more.
func (s *Server) attach(ctx context.Context, c *channel.Conn) error {
	events, stop := s.host.watch()
	defer stop()
	defer s.host.DestroyAll(context.WithoutCancel(ctx))
	if err := c.Send(channel.Data, nil, nil); err != nil { // the lease is in force
		return err
	}
	left := make(chan error, 1)
	go func() {
		_, _, err := c.Receive(nil) // the front sends nothing more: any return is its end
		left <- err
	}()
	for {
		select {
		case e := <-events:
			if err := c.Send(channel.Data, e, nil); err != nil {
				return err
			}
		case err := <-left:
			return errors.Join(errors.New("the front left"), err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
