package runtimeapi

import "bytes"

// A warm invocation takes about as long as a few hand-overs between goroutines, each of which may wake a thread. So
// the goroutine that offers an event carries the connection that asked for it: it writes the event,
// reads the answer if that comes at once and whole, and handles it, while the connection's own goroutine
// stands aside. Whatever is unusual (a slow or large answer, another request, an error) gives the
// connection back to its goroutine, with nothing consumed of what has come.

// A hold says who reads from a connection.
type hold uint8

const (
	free     hold = iota // its own goroutine
	aside                // nobody: it asked for an event and waits; its goroutine stands aside
	carried              // who offered an event
	answered             // nobody: it has posted its answer, and the next request is not read yet
)

// maxCarriedBytes bounds the requests that are handled by who offered the event.
const maxCarriedBytes = 32 << 10

// maxCarriedReads bounds in how many pieces they may come, and so how long who offered the event reads.
const maxCarriedReads = 8

// standAside waits as long as somebody else reads from the connection, or nobody.
func (c *connection) standAside() bool {
	c.server.mu.Lock()
	held := c.hold != free
	if !held {
		select {
		case <-c.back: // it was held and given back before this goroutine came here
		default:
		}
	}
	c.server.mu.Unlock()
	if held {
		<-c.back
	}
	if c.deferred { // it was given back before Acknowledge
		c.deferred = false
		if _, err := c.conn.Write(c.out); err == nil && c.over {
			c.linger()
		}
	}
	return !c.over // after an error of Write the next read finds it, too
}

// holdBack makes c, which has just asked for an event, the connection that is carried. It is one at most, so
// that of further ones that wait a goroutine sees them go.
// Preconditions: mu is held.
func (s *Server) holdBack(c *connection) {
	s.giveBack()
	if c.direct != nil && c.persistence == persistent {
		c.hold, s.held = aside, c
	}
}

// giveBack ends holding. Who carries the connection gives it back when that is done.
// Preconditions: mu is held.
func (s *Server) giveBack() {
	c := s.held
	s.held = nil
	if c != nil && c.hold != carried {
		c.hold = free
		c.back <- struct{}{}
	}
}

// put ends carrying: the connection is left as hold says, or given back if it is not held any more.
func (c *connection) put(h hold) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != c {
		h = free
	}
	if c.hold = h; h == free {
		if s.held == c {
			s.held = nil
		}
		c.back <- struct{}{}
	}
}

// carry writes the event and handles the answer if that comes at once. It reports whether inv has an outcome.
// Preconditions: c.hold is carried.
func (c *connection) carry(inv *invocation) bool {
	c.deliver(&inv.event)
	select {
	case <-c.turn:
		c.owes = false
	default: // it is still being written
		c.put(free)
		return false
	}
	var h head
	n := c.readWhole(&h)
	e, id, _ := route(h.path)
	if n == 0 || !h.ordinary() || (e != responseEndpoint && e != errorEndpoint) || string(id) != inv.event.RequestID {
		c.put(free)
		return false
	}
	c.start += n
	c.deferring = true
	keep := c.handle(&h)
	c.deferring, c.over = false, !keep
	if !keep || len(inv.done) == 0 {
		c.put(free)
	} else {
		c.put(answered)
	}
	return len(inv.done) > 0
}

// ordinary says whether nothing about the request needs the connection's own goroutine.
func (h *head) ordinary() bool { return !h.close && !h.version10 && !h.expect && !h.bodiless }

// readWhole reads until a whole request is in the buffer, as long as it comes at once. It parses the head and
// returns its length, but consumes nothing; 0 means that the connection's goroutine must see to it.
func (c *connection) readWhole(h *head) int {
	c.shrink()
	for range maxCarriedReads {
		if n := whole(c.buffer[c.start:c.end], h); n > 0 {
			return n
		}
		if c.end == len(c.buffer) && !c.makeRoom() {
			return 0
		}
		n, err := c.direct.ReadHot(c.buffer[c.end:])
		if n == 0 || err != nil {
			return 0
		}
		c.end += n
	}
	return 0
}

// makeRoom moves what is unread to the front of the buffer, or takes a larger one.
func (c *connection) makeRoom() bool {
	buffer := c.buffer
	if c.start == 0 {
		if len(buffer) >= maxCarriedBytes {
			return false
		}
		buffer = make([]byte, 2*len(buffer))
	}
	c.end = copy(buffer, c.buffer[c.start:c.end])
	c.start, c.buffer = 0, buffer
	return true
}

// whole returns the length of the head with which unread begins, if all of its body follows.
func whole(unread []byte, h *head) int {
	i := bytes.Index(unread, emptyLine)
	if i < 0 {
		return 0
	}
	n := i + len(emptyLine)
	*h = head{}
	if checkHeadSize(unread[:n]) != nil || parseHead(unread[:n], h) != nil {
		return 0
	}
	if body := unread[n:]; h.chunked && !wholeChunks(body) || !h.chunked && int64(len(body)) < h.contentLength {
		return 0
	}
	return n
}

// wholeChunks says whether p begins with a whole chunked body, well-formed or not.
func wholeChunks(p []byte) bool {
	for {
		line, rest, found := bytes.Cut(p, []byte("\r\n"))
		size, ok := parseChunkLine(line)
		switch {
		case !found:
			return false
		case !ok:
			return true // which is found out again without reading on
		case size == 0: // trailers up to an empty line
			return bytes.HasPrefix(rest, []byte("\r\n")) || bytes.Contains(rest, emptyLine)
		case int64(len(rest)) < size+2:
			return false
		}
		p = rest[size+2:]
	}
}

// takeAnswered makes the caller carry the connection that has posted its answer; nil if none is held so.
func (s *Server) takeAnswered() *connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.held
	if c == nil || c.hold != answered {
		return nil
	}
	c.hold = carried
	return c
}

// Acknowledge tells the runtime that its answer was accepted, if Offer has returned that and left this to its caller,
// who can hand the answer on first.
func (s *Server) Acknowledge() {
	if c := s.takeAnswered(); c != nil && c.acknowledge() {
		c.put(answered)
	}
}

// acknowledge sends the deferred reply. It reports false if the connection is given back, because the runtime does
// not take a few bytes.
func (c *connection) acknowledge() bool {
	if !c.deferred {
		return true
	}
	c.deferred = false
	if n, err := c.direct.WriteNow(c.out); n == len(c.out) && err == nil {
		return true
	}
	c.conn.Close()
	c.put(free)
	return false
}

// Settle says whether the runtime, which has answered its last event, has asked for the next one. It waits a moment at most.
func (s *Server) Settle() bool {
	if c := s.takeAnswered(); c != nil && c.acknowledge() {
		var h head
		n := c.readWhole(&h)
		if e, _, method := route(h.path); n == 0 || !h.ordinary() || e != nextEndpoint || string(h.method) != method {
			c.put(free)
		} else {
			c.start += n
			c.askAgain(&h)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == ready
}

// askAgain handles GET next on a connection that is carried.
func (c *connection) askAgain(h *head) {
	c.handle(h)
	c.server.mu.Lock()
	waits := c.hold != carried
	c.server.mu.Unlock()
	if !waits {
		c.put(free) // it was refused
	}
}
