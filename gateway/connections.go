package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// connections bounds the open connections of a Server. When the house is full, a new connection takes
// the place of one that has no verified call in progress, chosen by chance. So whoever only opens
// connections, or sends bytes that no key has signed, holds a place just until the next client
// wants it, and callers at work are never dropped.
type connections struct {
	limit int

	mu      sync.Mutex
	waiting map[net.Conn]struct{} // guarded by mu; may be dropped
	working map[net.Conn]struct{} // guarded by mu
}

func newConnections(limit int) *connections {
	return &connections{limit: limit, waiting: map[net.Conn]struct{}{}, working: map[net.Conn]struct{}{}}
}

// connectionKey is the context key of a connection, set by remember for the life of the connection.
type connectionKey struct{}

// remember is the ConnContext hook of the http.Server.
func (c *connections) remember(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// changed is the ConnState hook of the http.Server. StateActive is of no interest: it means that bytes
// have come, not that anybody signed them.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.mu.Lock()
		c.waiting[conn] = struct{}{}
		c.mu.Unlock()
	case http.StateIdle:
		c.mu.Lock()
		if _, ok := c.working[conn]; ok {
			delete(c.working, conn)
			c.waiting[conn] = struct{}{}
		}
		c.mu.Unlock()
	case http.StateClosed, http.StateHijacked:
		c.mu.Lock()
		delete(c.waiting, conn)
		delete(c.working, conn)
		c.mu.Unlock()
	}
}

// verified tells that the connection of ctx has a signed call in progress. It keeps its place
// until the call is answered.
func (c *connections) verified(ctx context.Context) {
	conn, _ := ctx.Value(connectionKey{}).(net.Conn)
	c.mu.Lock()
	if _, ok := c.waiting[conn]; ok {
		delete(c.waiting, conn)
		c.working[conn] = struct{}{}
	}
	c.mu.Unlock()
}

// makeRoom is called with a connection that has just been accepted and reports whether it may stay.
func (c *connections) makeRoom() bool {
	c.mu.Lock()
	var dropped net.Conn
	full := len(c.waiting)+len(c.working) >= c.limit
	if full {
		for conn := range c.waiting { // the order of a map's range is random
			dropped = conn
			delete(c.waiting, conn)
			break
		}
	}
	c.mu.Unlock()
	if dropped != nil {
		closeAbruptly(dropped)
	}
	return !full || dropped != nil
}

// closeAbruptly closes the socket below TLS. A TLS close would first write an alert, and may wait for
// seconds if the peer does not read.
func closeAbruptly(conn net.Conn) {
	switch secure := conn.(type) {
	case *tls.Conn:
		conn = secure.NetConn()
	case *handedConn:
		conn = secure.NetConn()
	}
	conn.Close()
}

// listener applies connections to what an inner listener accepts.
type listener struct {
	net.Listener
	connections *connections
}

// Accept returns the next connection that may stay.
func (l listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.connections.makeRoom() {
			return conn, err
		}
		closeAbruptly(conn)
	}
}
