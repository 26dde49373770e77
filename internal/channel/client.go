package channel

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"cloister/internal/socket"
)

// handshakeTimeout bounds how long an unauthenticated peer may hold a connection.
const handshakeTimeout = 5 * time.Second

// maxIdle connections are kept for the next exchanges.
const maxIdle = 64

// A Client opens exchanges with one peer. Its methods may be called concurrently.
type Client struct {
	dial   func(context.Context) (net.Conn, error)
	config *tls.Config

	mu     sync.Mutex
	idle   []*Conn // guarded by mu; last in, first out: the hottest connection is taken first
	closed bool    // guarded by mu
}

// NewClient returns a client that reaches the peer by dial and accepts only the given role there.
func NewClient(dial func(context.Context) (net.Conn, error), own Credential, peer Role) (*Client, error) {
	config, err := own.config(peer)
	if err != nil {
		return nil, err
	}
	return &Client{dial: dial, config: config}, nil
}

// Call sends one request and receives one answer: a frame of kind Done whose header is decoded into
// answer (may be nil) and whose body is returned. If ctx ends first the connection is closed
// and ctx's error returned; the other side may still finish the work. A *RemoteError is what
// the other side answered; any other error says that it could not be asked or has gone.
func (c *Client) Call(ctx context.Context, kind Kind, request any, body []byte, answer any) ([]byte, error) {
	conn, err := c.Open(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.stream.Close() })
	reply, err := conn.roundTrip(kind, request, body, answer)
	if !stop() {
		conn.Close()
		if err == nil {
			return reply, nil // the answer was first
		}
		return nil, context.Cause(ctx)
	}
	c.Release(conn)
	return reply, err
}

func (c *Conn) roundTrip(kind Kind, request any, body []byte, answer any) ([]byte, error) {
	if err := c.Send(kind, request, body); err != nil {
		return nil, err
	}
	got, reply, err := c.Receive(answer)
	if err == nil && got != Done {
		c.broken.Store(true)
		return nil, fmt.Errorf("channel: answer of unexpected kind %d", got)
	}
	return reply, err
}

// Open returns an authenticated connection for an exchange of more than one frame. The caller
// gives it back with Release, or closes it.
func (c *Client) Open(ctx context.Context) (*Conn, error) {
	conn, err := c.takeIdle()
	if conn != nil || err != nil {
		return conn, err
	}
	raw, err := c.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial channel: %w", err)
	}
	direct, err := socket.Take(raw)
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("dial channel: %w", err)
	}
	stream := tls.Client(direct, c.config)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := stream.HandshakeContext(ctx); err != nil {
		direct.Close()
		return nil, fmt.Errorf("channel handshake: %w", err)
	}
	return &Conn{stream: stream, socket: direct}, nil
}

// takeIdle returns the connection that was used last and is still open, or nil if there is none.
func (c *Client) takeIdle() (*Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := len(c.idle); n > 0; n = len(c.idle) {
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		if conn.open() {
			return conn, nil
		}
		go conn.Close() // writes a TLS alert, which may block
	}
	if c.closed {
		return nil, net.ErrClosed
	}
	return nil, nil
}

// Release keeps conn for a later exchange, unless a send or receive on it has failed.
func (c *Client) Release(conn *Conn) {
	c.mu.Lock()
	keep := !conn.broken.Load() && !c.closed && len(c.idle) < maxIdle
	if keep {
		c.idle = append(c.idle, conn)
	}
	c.mu.Unlock()
	if !keep {
		conn.Close()
	}
}

// Forget closes the idle connections: the peer has restarted and they are dead.
func (c *Client) Forget() {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, conn := range idle {
		conn.Close()
	}
}

// Close closes the idle connections and refuses further exchanges.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.Forget()
	return nil
}
