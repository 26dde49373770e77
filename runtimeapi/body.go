package runtimeapi

import (
	"errors"
	"io"
)

// Limits of one request body.
const (
	trustedBytes      = 64 << 10 // allocated on the word of a Content-Length or chunk size
	maxChunkLineBytes = 1 << 10
	maxTrailerBytes   = 64 << 10
	maxDiscardBytes   = 256 << 20 // of a body that nobody wants, before the connection is closed
	chunkSlackBytes   = 64 << 10  // chunk overhead allowed beyond 16 bytes for each byte of data
)

// errTooLarge means that a body is longer than its reader wanted; the rest of it is unread.
var errTooLarge = errors.New("body too large")

// A body reads what follows one head. It belongs to the connection's goroutine.
type body struct {
	c *connection

	chunked  bool
	waiting  bool  // the client waits for "100 Continue"
	ended    bool  // all has been read
	inChunk  bool  // a chunk has begun, so that CRLF follows it
	left     int64 // unread bytes of the body, or of this chunk
	received int64 // data bytes of earlier chunks and this one
	overhead int64 // bytes of chunk lines

	// Trailers, set at the end of a chunked body.
	errorType string
	errorBody string // base64
}

func (c *connection) body(h *head) body {
	b := body{c: c, chunked: h.chunked, left: h.contentLength}
	b.ended = !b.chunked && b.left == 0
	b.waiting = h.expect && !b.ended
	return b
}

// read returns the rest of the body if that is at most limit bytes, and errTooLarge otherwise.
// The caller owns the bytes. Memory grows with what has come, not with what is announced: at
// most trustedBytes or eight times as much.
func (b *body) read(limit int) ([]byte, error) {
	if b.left > int64(limit) {
		return nil, errTooLarge
	}
	if err := b.proceed(); err != nil {
		return nil, err
	}
	var p []byte
	for {
		if err := b.advance(); err != nil {
			return nil, err
		}
		if b.ended {
			return p, nil
		}
		if b.left > int64(limit-len(p)) {
			return nil, errTooLarge
		}
		for b.left > 0 {
			p = reserve(p, len(p)+int(b.left), limit)
			free := p[len(p):min(cap(p), len(p)+int(b.left))]
			n, err := b.c.readSome(free, b.chunked)
			if err != nil {
				return nil, err
			}
			p = p[:len(p)+n]
			b.left -= int64(n)
		}
	}
}

// reserve returns p with room for at least one byte more, of the want bytes it is announced to
// become; want is at most limit and more than len(p).
func reserve(p []byte, want, limit int) []byte {
	if len(p) < cap(p) {
		return p
	}
	size := min(want, max(trustedBytes, 8*len(p)))
	size = min(limit, max(size, 2*cap(p)))
	grown := make([]byte, len(p), size)
	copy(grown, p)
	return grown
}

// drain reads the rest of the body and forgets it. It reports false if the connection cannot be
// used any more: the body is broken, endless, or held back for a "100 Continue".
func (b *body) drain() bool {
	if b.waiting {
		return b.ended
	}
	var sum int64
	for {
		if b.advance() != nil {
			return false
		}
		if b.ended {
			return true
		}
		if sum += b.left; sum > maxDiscardBytes {
			return false
		}
		for b.left > 0 {
			n, err := b.c.discard(b.left)
			if err != nil {
				return false
			}
			b.left -= n
		}
	}
}

// proceed tells a client that asked first to send the body.
func (b *body) proceed() error {
	if !b.waiting {
		return nil
	}
	b.waiting = false
	_, err := b.c.conn.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	return err
}

// advance makes sure that left is positive or ended is set.
func (b *body) advance() error {
	if b.left > 0 || b.ended {
		return nil
	}
	if !b.chunked {
		b.ended = true
		return nil
	}
	if b.inChunk {
		if line, err := b.c.readLine(0); err != nil || len(line) != 0 {
			return broken(err, "chunk without its end")
		}
	}
	line, err := b.c.readLine(maxChunkLineBytes)
	if err != nil {
		return err
	}
	size, ok := parseChunkLine(line)
	if !ok {
		return malformed("malformed chunk size")
	}
	b.received += size
	if b.overhead += int64(len(line)) + 4; b.overhead > chunkSlackBytes+16*b.received {
		return malformed("too much chunk overhead")
	}
	if size == 0 {
		return b.readTrailers()
	}
	b.inChunk, b.left = true, size
	return nil
}

// readTrailers reads up to the empty line behind the last chunk.
func (b *body) readTrailers() error {
	sum := 0
	for range maxHeaderLines {
		line, err := b.c.readLine(maxTrailerBytes - sum)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			b.ended = true
			return nil
		}
		sum += len(line)
		name, value, refusal := parseField(line)
		switch {
		case refusal != nil:
			return refusal
		case equalFold(name, errorTypeName):
			b.errorType = string(value[:min(len(value), maxErrorTypeBytes)])
		case equalFold(name, errorBodyName):
			b.errorBody = string(value)
		}
	}
	return malformed("too many trailer lines")
}

// parseChunkLine reads "hex digits [;extension]". Extensions mean nothing and may not hold
// control characters.
func parseChunkLine(line []byte) (size int64, ok bool) {
	digits := 0
	for digits < len(line) && isHex(line[digits]) {
		c := line[digits] | 0x20
		if c >= 'a' {
			c -= 'a' - 10
		} else {
			c -= '0'
		}
		size = size<<4 | int64(c&0xf)
		digits++
	}
	if digits == 0 || digits > 15 {
		return 0, false
	}
	extension := line[digits:]
	return size, len(extension) == 0 || extension[0] == ';' && isText(extension)
}

// broken is the cause of a body that cannot be read: err, or the sender's mistake.
func broken(err error, reason string) error {
	if err != nil {
		return err
	}
	return malformed(reason)
}

// unexpectedEOF makes the end of a connection inside a request recognisable.
func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
