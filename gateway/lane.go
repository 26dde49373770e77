package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"cloister/internal/socket"
)

// The lane serves connections as long as their requests are as plain as those of AWS's clients: HTTP/1.1, a body of
// announced length, no expectation, no upgrade. The first that is not goes, with all that follows it on the
// connection, to net/http, whose parser the lane uses as well: it may only decide that a request is not
// for it. What it saves is net/http's second goroutine for each request, which looks out for the client's leaving;
// its waking costs more than all of our own work on an invocation.
type lane struct {
	server *Server

	mu      sync.Mutex
	tracks  map[*track]bool // guarded by mu; open connections, and whether a request is in progress
	closing bool            // guarded by mu
	group   sync.WaitGroup  // of the tracks
}

// laneBufferBytes bounds the head of a plain request.
const laneBufferBytes = 4 << 10

// A track is one connection on the lane. It belongs to its goroutine.
type track struct {
	lane   *lane
	handed chan<- net.Conn // to net/http
	ended  <-chan struct{} // closed when nobody takes what is handed over
	stream *tls.Conn
	direct *socket.Conn // below stream; nil if that is no socket
	reader *bufio.Reader
	ctx    context.Context // of the requests: holds stream for connections.verified
}

// laneListener runs the lane for what a listener accepts and hands on to net/http what is not for the lane.
type laneListener struct {
	net.Listener
	handed   chan net.Conn
	failures chan error
	ended    chan struct{}
	end      sync.Once
}

func (l *lane) listen(inner net.Listener) *laneListener {
	listening := &laneListener{Listener: inner, handed: make(chan net.Conn), failures: make(chan error), ended: make(chan struct{})}
	go listening.accept(l)
	return listening
}

// accept ends with the listener. Errors go to net/http, which waits after those that pass.
func (l *laneListener) accept(to *lane) {
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			to.enter(conn, l)
			continue
		}
		select {
		case l.failures <- err:
		case <-l.ended:
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// Accept returns the next connection for net/http.
func (l *laneListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.handed:
		return conn, nil
	case err := <-l.failures:
		return nil, err
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

// Close ends Accept as well.
func (l *laneListener) Close() error {
	l.end.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

// enter serves a connection in a goroutine of its own.
func (l *lane) enter(conn net.Conn, from *laneListener) {
	t := &track{lane: l, handed: from.handed, ended: from.ended}
	if direct, err := socket.Take(conn); err == nil {
		conn, t.direct = direct, direct
	}
	t.stream = tls.Server(conn, l.server.tls)
	t.ctx = l.server.connections.remember(context.Background(), t.stream)
	l.mu.Lock()
	closing := l.closing
	if !closing {
		l.tracks[t] = false
		l.group.Add(1)
	}
	l.mu.Unlock()
	if closing {
		conn.Close()
		return
	}
	l.server.connections.changed(t.stream, http.StateNew)
	go func() {
		defer l.leave(t)
		if t.run() {
			t.handOver()
		} else {
			t.stream.Close()
		}
	}()
}

func (l *lane) leave(t *track) {
	l.server.connections.changed(t.stream, http.StateClosed)
	l.mu.Lock()
	delete(l.tracks, t)
	l.mu.Unlock()
	l.group.Done()
}

// busy notes whether a request is in progress; an idle connection then counts as one without a verified call. It reports
// false if the lane closes.
func (l *lane) busy(t *track, yes bool) bool {
	if !yes {
		l.server.connections.changed(t.stream, http.StateIdle)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tracks[t] = yes
	return !l.closing
}

// drain closes idle connections and waits for the others, until ctx ends.
func (l *lane) drain(ctx context.Context) error {
	l.close(func(busy bool) bool { return !busy })
	done := make(chan struct{})
	go func() {
		l.group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		l.close(func(bool) bool { return true })
		return ctx.Err()
	}
}

// close refuses new connections and closes those that chosen says.
func (l *lane) close(chosen func(busy bool) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	for t, busy := range l.tracks {
		if chosen(busy) {
			closeAbruptly(t.stream)
		}
	}
}

// run answers requests until the connection is over, or reports true: the next request is not plain.
func (t *track) run() (handOver bool) {
	config := &t.lane.server.config
	t.stream.SetDeadline(time.Now().Add(config.HeaderTimeout))
	if err := t.stream.Handshake(); err != nil {
		t.refuseHandshake(err)
		return false
	}
	t.stream.SetDeadline(time.Time{})
	t.reader = bufio.NewReaderSize(t.stream, laneBufferBytes)
	for patience := config.HeaderTimeout; ; patience = config.IdleTimeout {
		t.stream.SetDeadline(time.Now().Add(patience)) // writing, too: reading answers key updates
		if _, err := t.reader.Peek(1); err != nil {
			return false
		}
		if !t.lane.busy(t, true) {
			return false
		}
		t.stream.SetDeadline(time.Now().Add(config.HeaderTimeout))
		if plain, err := t.plain(); err != nil || !plain {
			return err == nil
		}
		t.stream.SetDeadline(time.Now().Add(config.HeaderTimeout + config.BodyTimeout))
		if !t.answer() {
			return false
		}
		if !t.lane.busy(t, false) {
			return false
		}
	}
}

// refuseHandshake tells a client that speaks plain HTTP so, as net/http does.
func (t *track) refuseHandshake(err error) {
	t.lane.server.config.Logger.Debug("TLS handshake", slog.Any("error", err), slog.String("source", sourceIP(t.stream.RemoteAddr().String())))
	if record, ok := errors.AsType[tls.RecordHeaderError](err); ok && record.Conn != nil {
		switch string(record.RecordHeader[:]) {
		case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
			io.WriteString(record.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		}
	}
	closeAbruptly(t.stream)
}

// plain waits for the whole head of a request and says whether the request is plain.
func (t *track) plain() (bool, error) {
	for {
		head, _ := t.reader.Peek(t.reader.Buffered())
		if end := bytes.Index(head, []byte("\r\n\r\n")); end >= 0 {
			return plainHead(head[:end+2]), nil
		}
		if len(head) == laneBufferBytes {
			return false, nil
		}
		if _, err := t.reader.Peek(len(head) + 1); err != nil {
			return false, err
		}
	}
}

// answer reads one plain request and answers it. It reports whether another one may follow.
func (t *track) answer() (more bool) {
	defer socket.Begin().End()
	r, err := http.ReadRequest(t.reader)
	if err != nil {
		return false // plain allows nothing that does not parse
	}
	r = r.WithContext(t.ctx)
	r.RemoteAddr = t.stream.RemoteAddr().String()
	body := &countedBody{ReadCloser: r.Body}
	r.Body = body
	w := &laneWriter{stream: t.stream, header: make(http.Header, 8)}
	defer func() {
		if fault := recover(); fault != nil {
			more = false // exchange.finish has logged it; half an answer must not look like a whole one
		}
	}()
	t.lane.server.answer(w, r)
	if body.read < r.ContentLength {
		w.header.Set("Connection", "close")
	}
	return w.finish() == nil && w.header.Get("Connection") != "close"
}

// handOver gives the connection to net/http, with what has been read of it.
func (t *track) handOver() {
	if t.direct != nil {
		t.direct.Patient() // net/http reads ahead and interrupts that
	}
	t.stream.SetDeadline(time.Time{})
	select {
	case t.handed <- &handedConn{t.stream, t.reader}:
	case <-t.ended:
		t.stream.Close()
	}
}

// A handedConn begins with what the lane has read.
type handedConn struct {
	*tls.Conn
	reader *bufio.Reader
}

// Read implements net.Conn.
func (c *handedConn) Read(b []byte) (int, error) { return c.reader.Read(b) }

// A countedBody counts what has been read of a body.
type countedBody struct {
	io.ReadCloser
	read int64
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, err
}
