package channel

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"cloister/internal/socket"
)

// A Request is the first frame of an exchange.
type Request struct {
	Kind Kind
	Body []byte // owned by the handler

	header json.RawMessage
}

// Header decodes the request's header.
func (r *Request) Header(into any) error {
	if err := decodeHeader(r.header, into); err != nil {
		return fmt.Errorf("decode request: %w", err)
	}
	return nil
}

// A Handler answers one exchange on conn. When it returns nil the connection serves the next
// exchange; an error closes it. ctx ends when the server closes, not when the peer goes away.
type Handler func(ctx context.Context, conn *Conn, r *Request) error

// ErrStreamTaken is returned by a handler that gave the connection away with Conn.Stream: it is
// neither used nor closed by the server any more.
var ErrStreamTaken = errors.New("channel: the stream was taken")

// A Server accepts connections of one peer role.
type Server struct {
	config  *tls.Config
	handler Handler
	logger  *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	active sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu; open connections, closed by Close
}

// NewServer returns a server whose handler is called for exchanges from the given role only.
func NewServer(own Credential, peer Role, handler Handler, logger *slog.Logger) (*Server, error) {
	config, err := own.config(peer)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{config: config, handler: handler, logger: logger, ctx: ctx, cancel: cancel, conns: map[net.Conn]struct{}{}}, nil
}

// acceptPause is waited after a failed accept.
const acceptPause = 50 * time.Millisecond

// Serve accepts connections until l is closed, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	for {
		raw, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // no descriptors left, for one: it passes
			s.logger.Error("channel connection not accepted", "error", err)
			select {
			case <-time.After(acceptPause):
				continue
			case <-s.ctx.Done():
				return nil
			}
		}
		direct, err := socket.Take(raw)
		if err != nil {
			s.logger.Error("channel connection not accepted", "error", err)
			raw.Close()
			continue
		}
		if !s.add(direct) {
			direct.Close()
			return nil
		}
		go s.serve(direct)
	}
}

func (s *Server) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.conns[c] = struct{}{}
	s.active.Add(1)
	return true
}

func (s *Server) remove(c net.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.active.Done()
}

func (s *Server) serve(raw *socket.Conn) {
	defer s.remove(raw)
	stream := tls.Server(raw, s.config)
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTimeout)
	err := stream.HandshakeContext(ctx)
	cancel()
	if err != nil {
		s.logger.Warn("channel connection refused", "error", err)
		raw.Close()
		return
	}
	conn := &Conn{stream: stream, socket: raw}
	for {
		kind, header, body, err := conn.receive()
		if err == nil {
			err = s.handler(s.ctx, conn, &Request{Kind: kind, Body: body, header: header})
		}
		if errors.Is(err, ErrStreamTaken) {
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && s.ctx.Err() == nil {
				s.logger.Debug("channel connection closed", "error", err)
			}
			stream.Close()
			return
		}
	}
}

// Close ends all connections and waits for their handlers.
func (s *Server) Close() error {
	s.mu.Lock()
	s.cancel()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.active.Wait()
	return nil
}
