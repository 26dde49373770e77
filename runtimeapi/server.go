package runtimeapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"cloister/internal/socket"
	"cloister/lambda"
)

const (
	defaultConnections = 128
	longestAcceptPause = time.Second
)

// Config holds what a Server needs. The zero value is usable.
type Config struct {
	Logger      *slog.Logger // nil: no log
	Connections int          // connections served at a time, others are closed at once; 0 means 128
}

// A Server is the Runtime API of one environment. Its methods may be called concurrently,
// except that the worker invokes one event at a time and Serve runs once at a time.
type Server struct {
	logger    *slog.Logger // fixed
	limit     int          // fixed
	largeHead atomic.Bool  // a connection is reading a head over smallHeaderBytes

	// mu is never held during input or output, nor with any other lock.
	mu          sync.Mutex
	generation  uint64 // counts Reset
	connections map[*connection]struct{}
	waiting     []*connection // GET next without an event, the longest wait first
	state       state
	initialized bool        // the first GET next has come
	initError   *Answer     // what init/error brought
	current     *invocation // the event of the last Invoke, until it is over
	offered     *invocation // what Await waits for
	held        *connection // the one whose goroutine stands aside, see carry.go
	changed     chan struct{}
}

// New returns a Server whose runtime has not started yet.
func New(config Config) *Server {
	s := &Server{logger: config.Logger, limit: config.Connections, connections: make(map[*connection]struct{})}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.limit == 0 {
		s.limit = defaultConnections
	}
	return s
}

// Serve answers the connections that l accepts until l is closed, and returns nil then. Any
// other lasting error of l is returned. Before it returns it resets the server and waits for
// the goroutines of all connections.
func (s *Server) Serve(l net.Listener) error {
	var group sync.WaitGroup
	defer group.Wait()
	defer s.Reset()
	var pause time.Duration
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Of a listener only the lack of descriptors or memory passes.
			temporary, ok := err.(interface{ Temporary() bool })
			if !ok || !temporary.Temporary() {
				return err
			}
			pause = min(max(2*pause, 5*time.Millisecond), longestAcceptPause)
			s.logger.Warn("runtime API accept", slog.Any("error", err), slog.Duration("pause", pause))
			time.Sleep(pause)
			continue
		}
		pause = 0
		if c := s.admit(conn); c != nil {
			group.Go(c.serve)
		}
	}
}

// admit makes a connection part of the present generation, or closes it if there are too many.
func (s *Server) admit(conn net.Conn) *connection {
	c := &connection{server: s, conn: conn, buffer: make([]byte, readBufferBytes), turn: make(chan struct{}, 1), back: make(chan struct{}, 1)}
	if direct, err := socket.Take(conn); err == nil {
		c.conn, c.direct = direct, direct
	}
	s.mu.Lock()
	full := len(s.connections) >= s.limit
	if !full {
		c.generation = s.generation
		s.connections[c] = struct{}{}
	}
	s.mu.Unlock()
	if full {
		s.logger.Debug("runtime API connection refused", slog.Int("limit", s.limit))
		c.conn.Close()
		return nil
	}
	return c
}

// remove ends a connection.
func (s *Server) remove(c *connection) {
	c.conn.Close()
	c.releaseLargeHead()
	s.unpark(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.connections, c)
}

// Reset forgets the runtime process: its connections are closed, its late answers refused, an
// Invoke, AwaitInit or AwaitIdle that waits returns ErrReset, and the next process starts at
// init.
// Preconditions: the process and all its descendants have ended. A connection that one of them
// had made but that Serve has not accepted yet would count as the next process's; it holds
// nothing then that the next process could not do itself.
func (s *Server) Reset() {
	s.mu.Lock()
	s.generation++
	connections, waiting, inv := s.connections, s.waiting, s.current
	s.connections = make(map[*connection]struct{})
	s.waiting, s.current = nil, nil
	s.giveBack()
	s.state, s.initialized, s.initError = started, false, nil
	if inv != nil && inv.answered {
		inv = nil
	}
	s.broadcast()
	s.mu.Unlock()

	for c := range connections {
		c.conn.Close()
	}
	for _, c := range waiting {
		c.turn <- struct{}{}
	}
	if inv != nil {
		inv.done <- outcome{err: resetError(inv.delivered)}
	}
}

// ErrReset is why a wait ended that Reset cut short.
var ErrReset = errors.New("the runtime has been reset")

// resetError is of kind EnvironmentGone if no runtime has seen the event, so that it may be
// given to another environment.
func resetError(delivered bool) error {
	kind := lambda.EnvironmentGone
	if delivered {
		kind = lambda.Internal
	}
	return &lambda.Error{Kind: kind, Op: "invoke runtime", Err: ErrReset}
}

// An InitResult says how the runtime's initialisation ended.
type InitResult struct {
	Ready bool    // it has asked for its first event
	Error *Answer // what it posted to init/error instead
}

// AwaitInit blocks until the runtime's first GET next or its init/error. Its errors are
// ErrReset and the cause of ctx.
func (s *Server) AwaitInit(ctx context.Context) (InitResult, error) {
	var result InitResult
	err := s.await(ctx, func() bool {
		result = InitResult{Ready: s.initialized, Error: s.initError}
		return s.initialized || s.initError != nil
	})
	if err != nil {
		return InitResult{}, &lambda.Error{Op: "await runtime init", Err: err}
	}
	return result, nil
}

// AwaitIdle blocks until the runtime that has answered the last event, or is initialising, asks
// for the next one. It is not for use during an Invoke. Its errors are ErrReset and the cause of
// ctx; a runtime that never asks again leaves only the latter.
func (s *Server) AwaitIdle(ctx context.Context) error {
	if s.Settle() {
		return nil
	}
	if err := s.await(ctx, func() bool { return s.state == ready }); err != nil {
		return &lambda.Error{Op: "await idle runtime", Err: err}
	}
	return nil
}

// await blocks until condition, which is called with mu held, becomes true in this generation.
func (s *Server) await(ctx context.Context, condition func() bool) error {
	s.mu.Lock()
	generation := s.generation
	for s.generation == generation && !condition() {
		if s.held != nil && s.held.hold != aside {
			s.giveBack() // what is waited for may come on it, and nobody else would read
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.generation == generation && condition() {
				return nil // both at once: a process posts and exits in the same moment
			}
			return context.Cause(ctx)
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if s.generation != generation {
		return ErrReset
	}
	return nil
}

// broadcast wakes every await.
// Preconditions: mu is held.
func (s *Server) broadcast() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}
