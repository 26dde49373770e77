package channel

import (
	"bytes"
	"crypto/tls"
	"encoding"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"cloister/internal/socket"
)

// Bounds of one frame. A body holds at most one payload of an invocation, or a piece of an image.
const (
	MaxHeaderBytes = 1 << 20
	MaxBodyBytes   = 7 << 20
)

// frameHead is kind (1 byte), header length (4) and body length (4), big endian.
const frameHead = 9

// A Kind says what a frame means. Values below 16 belong to this package.
type Kind byte

// Kinds of this package.
const (
	Done  Kind = 1 // the exchange succeeded; carries its answer
	Fault Kind = 2 // the exchange failed; the header is a RemoteError
	Data  Kind = 3 // a piece of a stream
)

// A RemoteError is a failure that the other side reported, in a code that the two sides agree on.
type RemoteError struct {
	Code      uint8
	Operation string
	Message   string
}

// Error returns operation and message.
func (e *RemoteError) Error() string { return e.Operation + ": " + e.Message }

// Conn is one side of an authenticated connection. One goroutine at a time may send and one receive.
type Conn struct {
	stream *tls.Conn
	socket *socket.Conn // below stream
	head   [frameHead]byte
	broken atomic.Bool // a send or receive failed: the connection is not used again
}

// frames holds buffers in which a frame is put together, so that it leaves in one write.
var frames = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Send writes one frame. header is encoded by its own AppendBinary, or as JSON; nil leaves it empty.
func (c *Conn) Send(kind Kind, header any, body []byte) error {
	buffer := frames.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Cap() <= 64<<10 { // a rare large payload must not stay in every pooled buffer
			frames.Put(buffer)
		}
	}()
	buffer.Reset()
	var head [frameHead]byte
	buffer.Write(head[:])
	if err := encodeHeader(buffer, header); err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	headerBytes := buffer.Len() - frameHead
	if headerBytes > MaxHeaderBytes || len(body) > MaxBodyBytes {
		return fmt.Errorf("send frame: %d header and %d body bytes exceed the bounds of %d and %d", headerBytes, len(body), MaxHeaderBytes, MaxBodyBytes)
	}
	buffer.Write(body)
	b := buffer.Bytes()
	b[0] = byte(kind)
	binary.BigEndian.PutUint32(b[1:], uint32(headerBytes))
	binary.BigEndian.PutUint32(b[5:], uint32(len(body)))
	if _, err := c.stream.Write(b); err != nil {
		c.broken.Store(true)
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

func encodeHeader(buffer *bytes.Buffer, header any) error {
	switch header := header.(type) {
	case nil:
		return nil
	case encoding.BinaryAppender:
		b, err := header.AppendBinary(buffer.AvailableBuffer())
		buffer.Write(b)
		return err
	}
	return json.NewEncoder(buffer).Encode(header)
}

func decodeHeader(raw []byte, into any) error {
	if binary, ok := into.(encoding.BinaryUnmarshaler); ok {
		return binary.UnmarshalBinary(raw)
	}
	return json.Unmarshal(raw, into)
}

// SendFault reports a failed exchange to the other side.
func (c *Conn) SendFault(e *RemoteError) error { return c.Send(Fault, e, nil) }

// Receive reads one frame into header, which may be nil, and returns its kind and body. The
// caller owns the body. A frame of kind Fault is returned as a *RemoteError.
func (c *Conn) Receive(header any) (Kind, []byte, error) {
	kind, raw, body, err := c.receive()
	if err != nil {
		return 0, nil, err
	}
	if kind == Fault {
		remote := new(RemoteError)
		header, err = remote, error(remote)
	}
	if header != nil && len(raw) > 0 {
		if bad := decodeHeader(raw, header); bad != nil {
			c.broken.Store(true)
			return 0, nil, fmt.Errorf("decode frame: %w", bad)
		}
	}
	return kind, body, err
}

// receive reads one frame without decoding its header.
func (c *Conn) receive() (Kind, json.RawMessage, []byte, error) {
	if _, err := io.ReadFull(c.stream, c.head[:]); err != nil {
		c.broken.Store(true)
		if errors.Is(err, io.EOF) {
			return 0, nil, nil, io.EOF // between frames: the other side is done with the connection
		}
		return 0, nil, nil, fmt.Errorf("receive frame: %w", err)
	}
	headerBytes, bodyBytes := binary.BigEndian.Uint32(c.head[1:]), binary.BigEndian.Uint32(c.head[5:])
	if headerBytes > MaxHeaderBytes || bodyBytes > MaxBodyBytes {
		c.broken.Store(true)
		return 0, nil, nil, fmt.Errorf("receive frame: %d header and %d body bytes exceed the bounds", headerBytes, bodyBytes)
	}
	b := make([]byte, headerBytes+bodyBytes)
	if _, err := io.ReadFull(c.stream, b); err != nil {
		c.broken.Store(true)
		return 0, nil, nil, fmt.Errorf("receive frame: %w", err)
	}
	return Kind(c.head[0]), b[:headerBytes:headerBytes], b[headerBytes:], nil
}

// Stream gives the connection away as plain bytes, for a pipe. It is not used for frames again.
func (c *Conn) Stream() net.Conn {
	c.broken.Store(true)
	c.socket.Patient()
	return c.stream
}

// open says whether an idle connection still has its other end: nothing is to be read from it, not
// even its end. It costs one system call and saves an exchange from a peer that has restarted.
func (c *Conn) open() bool { return c.socket.Quiet() }

// Close ends the connection.
func (c *Conn) Close() error {
	c.broken.Store(true)
	return c.stream.Close()
}
