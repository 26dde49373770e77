package runtimeapi

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"cloister/internal/socket"
)

const (
	readBufferBytes  = 4 << 10  // for each connection
	keptOutputBytes  = 16 << 10 // a larger output buffer is given back after its use
	copiedEventBytes = 64 << 10 // a larger payload is not copied behind its headers
	lingerTime       = 500 * time.Millisecond
	lingerBytes      = 256 << 10
)

var emptyLine = []byte("\r\n\r\n")

// A connection is one client connection and the goroutine that serves it.
//
// A GET next that waits for an event leaves the goroutine reading, so that it sees the client
// go. Until the answer has been written the connection owes it: the goroutine must not write,
// and out belongs to whoever delivers. A token in turn gives the output back to the goroutine.
type connection struct {
	server     *Server
	conn       net.Conn
	direct     *socket.Conn // conn, unless it is no socket; see carry.go
	generation uint64       // the server's when it was accepted

	// Owned by the goroutine.
	buffer     []byte // buffer[start:end] is unread
	start, end int
	largeHead  bool // holds server.largeHead
	owes       bool

	turn chan struct{} // capacity 1: one token for each GET next that was left waiting
	hold hold          // guarded by server.mu
	back chan struct{} // capacity 1: a token gives the connection back to the goroutine that stood aside

	// Owned by the goroutine, or by deliver while the connection owes.
	out         []byte
	persistence persistence

	// Owned by who carries the connection.
	deferring bool // the reply to an accepted answer is left in out
	deferred  bool // and has been
	over      bool // and the connection ends with it
}

// A persistence is what the next answer says of the connection's future.
type persistence uint8

const (
	persistent   persistence = iota // HTTP/1.1's default: no header
	persistent10                    // HTTP/1.0 with keep-alive, which must be confirmed
	closing
)

// header returns the Connection header line.
func (p persistence) header() string {
	return [...]string{"", "Connection: keep-alive\r\n", "Connection: close\r\n"}[p]
}

// serve answers requests one after the other until the connection ends.
func (c *connection) serve() {
	defer c.server.remove(c)
	defer func() {
		// The worker serves other tenants too: what no test has found must not end it.
		if fault := recover(); fault != nil {
			c.server.logger.Error("runtime API connection abandoned", slog.Any("panic", fault), slog.String("stack", string(debug.Stack())))
		}
	}()
	for {
		if !c.standAside() {
			return
		}
		var h head
		err := c.readHead(&h)
		if c.owes && !c.awaitTurn(err) {
			return
		}
		if err != nil {
			c.refuse(err)
			return
		}
		if !c.handle(&h) {
			return
		}
	}
}

// awaitTurn waits until the event that this connection owes is written. It reports false if
// the client has gone, or sent what is no request, while it waited.
func (c *connection) awaitTurn(readError error) bool {
	if readError != nil {
		if c.server.unpark(c) {
			return false
		}
		c.conn.Close() // ends a delivery that is still under way
	}
	<-c.turn
	c.owes = false
	return readError == nil && c.persistence != closing
}

// refuse answers what is not a request; there is no answer to a broken connection.
func (c *connection) refuse(err error) {
	refusal, ok := errors.AsType[*requestError](err)
	if !ok {
		return
	}
	c.server.logger.Debug("runtime API request refused", slog.Int("status", refusal.status), slog.String("reason", refusal.reason))
	c.persistence = closing
	text := refusal.reason + "\n"
	if c.write(&reply{status: refusal.status, header: plainText, body: text}, false) == nil {
		c.linger()
	}
}

// reply consumes what is left of the request and answers it. It reports whether the connection
// can be used for another request.
func (c *connection) reply(h *head, b *body, r *reply) bool {
	keep := b.drain() && !h.close
	c.persistence = h.persistence()
	if !keep {
		c.persistence = closing
	}
	if err := c.write(r, h.bodiless); err != nil {
		return false
	}
	if !keep {
		c.linger()
	}
	return keep
}

func (c *connection) write(r *reply, withoutBody bool) error {
	c.out = r.append(c.out[:0], c.persistence.header(), withoutBody)
	if c.deferring { // who offered the event must not wait for a client that does not read
		c.deferred = true
		return nil
	}
	_, err := c.conn.Write(c.out)
	return err
}

// linger ends the connection in a way that lets the client read the last answer though it may
// still be sending: closing with unread input would reset the connection.
func (c *connection) linger() {
	if c.deferring || !c.closeWrite() { // standAside does it
		return
	}
	if c.conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	for sum := 0; sum < lingerBytes; {
		n, err := c.conn.Read(c.buffer)
		if err != nil {
			return
		}
		sum += n
	}
}

// deliver writes an event to a connection that owes one. It never blocks: what the socket does
// not take at once is written by another goroutine, which keeps e.Payload until then.
func (c *connection) deliver(e *Event) {
	c.out = e.appendHead(c.out[:0], c.persistence.header())
	if len(e.Payload) > copiedEventBytes {
		go c.deliverRest(net.Buffers{c.out, e.Payload})
		return
	}
	c.out = append(c.out, e.Payload...)
	n, err := c.writeNow(c.out)
	if err == nil && n < len(c.out) {
		go c.deliverRest(net.Buffers{c.out[n:]})
		return
	}
	c.delivered(err)
}

func (c *connection) deliverRest(rest net.Buffers) {
	_, err := rest.WriteTo(c.conn)
	c.delivered(err)
}

// delivered ends deliver. An event that could not be written stays in force: the runtime may ask
// for it again on another connection.
func (c *connection) delivered(err error) {
	if cap(c.out) > keptOutputBytes {
		c.out = nil
	}
	if err != nil {
		c.conn.Close()
	} else if c.persistence == closing {
		c.closeWrite()
	}
	c.turn <- struct{}{}
}

// closeWrite tells the client that nothing more comes; the goroutine goes on reading until the
// client closes its side. It reports false if the connection cannot do that.
func (c *connection) closeWrite() bool {
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok {
		c.conn.Close()
		return false
	}
	return half.CloseWrite() == nil
}

// readHead reads and parses the next request up to its empty line. io.EOF means that there is
// no further one.
func (c *connection) readHead(h *head) error {
	c.shrink()
	for scanned := 0; ; {
		unread := c.buffer[c.start:c.end]
		if i := bytes.Index(unread[scanned:], emptyLine); i >= 0 {
			block := unread[:scanned+i+len(emptyLine)]
			if err := checkHeadSize(block); err != nil {
				return err
			}
			c.start += len(block)
			if err := parseHead(block, h); err != nil {
				return err
			}
			return nil
		}
		if err := checkHeadSize(unread); err != nil {
			return err
		}
		scanned = max(0, len(unread)-len(emptyLine)+1)
		if err := c.fill(); err != nil {
			if len(unread) > 0 {
				err = unexpectedEOF(err)
			}
			return err
		}
	}
}

// checkHeadSize holds the limits against a head, or as much of it as has come.
func checkHeadSize(head []byte) error {
	line := head[:min(len(head), maxRequestLineBytes+1)]
	if len(line) > maxRequestLineBytes && bytes.IndexByte(line, '\n') < 0 {
		return &requestError{http.StatusRequestURITooLong, "request line too long"}
	}
	if len(head) > maxHeaderBytes {
		return &requestError{http.StatusRequestHeaderFieldsTooLarge, "headers too large"}
	}
	return nil
}

// shrink gives a buffer that a large head needed back, once all of it has been used.
func (c *connection) shrink() {
	if c.start < c.end {
		return
	}
	c.start, c.end = 0, 0
	if len(c.buffer) > readBufferBytes {
		c.buffer = make([]byte, readBufferBytes)
		c.releaseLargeHead()
	}
}

func (c *connection) releaseLargeHead() {
	if c.largeHead {
		c.largeHead = false
		c.server.largeHead.Store(false)
	}
}

// fill reads more bytes behind the unread ones. It moves or replaces the buffer if that is
// full, which ends every slice of it.
func (c *connection) fill() error {
	if c.end == len(c.buffer) {
		if c.start == 0 {
			if err := c.enlarge(); err != nil {
				return err
			}
		} else {
			c.end = copy(c.buffer, c.buffer[c.start:c.end])
			c.start = 0
		}
	}
	n, err := c.conn.Read(c.buffer[c.end:])
	c.end += n
	if n > 0 {
		return nil
	}
	return err
}

// enlarge doubles the buffer. Beyond smallHeaderBytes one connection may do so at a time.
func (c *connection) enlarge() error {
	size := 2 * len(c.buffer)
	if size > smallHeaderBytes && !c.largeHead {
		if !c.server.largeHead.CompareAndSwap(false, true) {
			return &requestError{http.StatusRequestHeaderFieldsTooLarge, "another connection is sending large headers"}
		}
		c.largeHead = true
	}
	larger := make([]byte, size)
	c.end = copy(larger, c.buffer[c.start:c.end])
	c.start, c.buffer = 0, larger
	return nil
}

// readLine returns the next line without its CRLF, at most limit bytes of it. The line ends
// with the next read.
func (c *connection) readLine(limit int) ([]byte, error) {
	for {
		unread := c.buffer[c.start:c.end]
		if i := bytes.IndexByte(unread[:min(len(unread), limit+2)], '\n'); i >= 0 {
			if i == 0 || unread[i-1] != '\r' {
				return nil, malformed("line without CRLF")
			}
			c.start += i + 1
			return unread[:i-1], nil
		}
		if len(unread) >= limit+2 {
			return nil, malformed("line too long")
		}
		if err := c.fill(); err != nil {
			return nil, unexpectedEOF(err)
		}
	}
}

// readSome reads at least one byte of a body into p. With ahead it may read more than p holds
// into the buffer, so that what follows a small piece costs no read of its own.
func (c *connection) readSome(p []byte, ahead bool) (int, error) {
	if c.start == c.end {
		if !ahead || len(p) >= len(c.buffer) {
			n, err := c.conn.Read(p)
			if n > 0 {
				return n, nil
			}
			return 0, unexpectedEOF(err)
		}
		c.start, c.end = 0, 0
		if err := c.fill(); err != nil {
			return 0, unexpectedEOF(err)
		}
	}
	n := copy(p, c.buffer[c.start:c.end])
	c.start += n
	return n, nil
}

// discard skips between 1 and n bytes and returns how many.
func (c *connection) discard(n int64) (int64, error) {
	if c.start == c.end {
		c.start, c.end = 0, 0
		if err := c.fill(); err != nil {
			return 0, unexpectedEOF(err)
		}
	}
	n = min(n, int64(c.end-c.start))
	c.start += int(n)
	return n, nil
}

// writeNow returns how much of p the socket took without waiting, which may be nothing.
func (c *connection) writeNow(p []byte) (int, error) {
	if c.direct == nil {
		return 0, nil
	}
	return c.direct.WriteNow(p)
}
