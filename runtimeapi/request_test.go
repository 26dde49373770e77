package runtimeapi

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHeadsThatAreNotStrictHTTPAreRefused(t *testing.T) {
	const line = "GET /2018-06-01/ping HTTP/1.1\r\nHost: a\r\n"
	tests := []struct {
		name, head string
		status     int
	}{
		{"nothing", "\r\n\r\n", 400},
		{"an empty line first", "\r\n" + line + "\r\n", 400},
		{"two words", "GET /\r\nHost: a\r\n\r\n", 400},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"a space in the path", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"a tab in the path", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"a byte over 0x7e in the path", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"a broken escape", "GET /%6 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"a relative path", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"a star", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"an authority with user", "GET http://u@h/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"an authority alone", "CONNECT h:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"a method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"HTTP/2", "PRI / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
		{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
		{"HTTP in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two hosts", line + "Host: a\r\n\r\n", 400},
		{"a bare LF", line + "A: b\nC: d\r\n\r\n", 400},
		{"a bare CR", line + "A: b\rC: d\r\n\r\n", 400},
		{"NUL", line + "A: b\x00\r\n\r\n", 400},
		{"DEL", line + "A: b\x7f\r\n\r\n", 400},
		{"a folded line", line + "A: b\r\n c\r\n\r\n", 400},
		{"a folded first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
		{"space before the colon", line + "A : b\r\n\r\n", 400},
		{"no name", line + ": b\r\n\r\n", 400},
		{"no colon", line + "A\r\n\r\n", 400},
		{"a negative length", line + "Content-Length: -1\r\n\r\n", 400},
		{"a signed length", line + "Content-Length: +1\r\n\r\n", 400},
		{"a list of lengths", line + "Content-Length: 1, 1\r\n\r\n", 400},
		{"an empty length", line + "Content-Length: \r\n\r\n", 400},
		{"a length that overflows", line + "Content-Length: 18446744073709551617\r\n\r\n", 400},
		{"two lengths", line + "Content-Length: 1\r\ncontent-length: 1\r\n\r\n", 400},
		{"both ways to tell a length", line + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"both, the other way round", line + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400},
		{"chunked twice", line + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"gzip", line + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
		{"chunked with a tail", line + "Transfer-Encoding: chunked, identity\r\n\r\n", 501},
		{"chunked with a vertical tab", line + "Transfer-Encoding: \vchunked\r\n\r\n", 400},
		{"chunked in HTTP/1.0", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"an unknown expectation", line + "Expect: 200-ok\r\n\r\n", 417},
		{"too many lines", line + strings.Repeat("A: b\r\n", maxHeaderLines) + "\r\n", 431},
	}
	for _, test := range tests {
		var h head
		err := parseHead([]byte(test.head), &h)
		if err == nil || err.status != test.status {
			t.Errorf("%s: got %v, want status %d", test.name, err, test.status)
		}
	}
}

func TestHeadsAreRead(t *testing.T) {
	var h head
	text := "POST http://127.0.0.1:9001/a/b?c=d HTTP/1.1\r\nhOST:a\r\nEXPECT: 100-Continue\r\nConnection: keep-alive , close\r\n" +
		"Content-Type: application/vnd.aws.lambda.error.cause+json\r\nContent-Length:\t42 \r\nLambda-Runtime-Function-Error-Type: Function.X\r\n" +
		"lambda-runtime-function-response-mode: streaming\r\nOther: \xff\t!\r\nEmpty:\r\n\r\n"
	if err := parseHead([]byte(text), &h); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s %s %t %t %t %d %t %d %s %d", h.method, h.path, h.expect, h.close, h.keepAlive, h.contentLength, h.errorCause, h.mode, h.errorType, h.lines)
	if want := "POST /a/b true true true 42 true 1 Function.X 9"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for connection, persistence := range map[string]persistence{"HTTP/1.1\r\nHost: a": persistent, "HTTP/1.1\r\nHost: a\r\nConnection: close": closing,
		"HTTP/1.0": closing, "HTTP/1.0\r\nConnection: Keep-Alive": persistent10} {
		if err := parseHead([]byte("GET / "+connection+"\r\n\r\n"), &h); err != nil || h.persistence() != persistence {
			t.Errorf("%q: got %d and %v, want %d", connection, h.persistence(), err, persistence)
		}
	}
}

func TestLimitsOfAHead(t *testing.T) {
	const get = "GET /2018-06-01/ping"
	tests := []struct {
		name, head string
		status     int
	}{
		{"the longest request line", get + "?" + strings.Repeat("x", maxRequestLineBytes-len(get+"? HTTP/1.1\r\n")) + " HTTP/1.1\r\nHost: a\r\n\r\n", 200},
		{"a longer one", get + "?" + strings.Repeat("x", maxRequestLineBytes), 414},
		{"an endless first line", strings.Repeat("x", 1<<20), 414},
		{"the largest headers", get + " HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("x", maxHeaderBytes-len(get+" HTTP/1.1\r\nHost: a\r\nA: \r\n\r\n")) + "\r\n\r\n", 200},
		{"larger ones", get + " HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("x", maxHeaderBytes), 431},
		{"endless lines", get + " HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", maxHeaderBytes), 431},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, address := serve(t, Config{})
			c := dial(t, address)
			go io.WriteString(c.conn, test.head) // may be cut short by the refusal
			c.want(test.status, "")
		})
	}
}

func TestBodiesThatAreNotStrictHTTPAreRefused(t *testing.T) {
	const head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	tests := map[string]string{
		"no size":                   "\r\n\r\n",
		"a sign":                    "+1\r\nx\r\n0\r\n\r\n",
		"0x":                        "0x1\r\nx\r\n0\r\n\r\n",
		"a space before":            " 1\r\nx\r\n0\r\n\r\n",
		"a space behind":            "1 \r\nx\r\n0\r\n\r\n",
		"a size that overflows":     "fffffffffffffffff\r\n",
		"a bare LF":                 "1\nx\n0\n\n",
		"a bare CR":                 "1\rx\r\n0\r\n\r\n",
		"no CRLF behind the data":   "1\r\nxx\r\n0\r\n\r\n",
		"a control character":       "1;a=\x01\r\nx\r\n0\r\n\r\n",
		"an extension without end":  "1;" + strings.Repeat("x", maxChunkLineBytes) + "\r\nx\r\n0\r\n\r\n",
		"nothing but overhead":      strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\nx\r\n", 100) + "0\r\n\r\n",
		"a trailer without colon":   "0\r\nx\r\n\r\n",
		"a folded trailer":          "0\r\na: b\r\n c\r\n\r\n",
		"a trailer with NUL":        "0\r\na: \x00\r\n\r\n",
		"too many trailers":         "0\r\n" + strings.Repeat("a: b\r\n", maxHeaderLines+1) + "\r\n",
		"trailers that are too big": "0\r\na: " + strings.Repeat("x", maxTrailerBytes) + "\r\n\r\n",
	}
	for name, content := range tests {
		if _, _, err := readRequest([]byte(head+content), 0); err == nil {
			t.Errorf("%s: accepted", name)
		} else if _, ok := errors.AsType[*requestError](err); !ok {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

func TestHowTheBytesComeDoesNotMatter(t *testing.T) {
	text := "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" +
		"4\r\n{\"a\"\r\n00a;x=\"y\"\r\n: \"bcdefg\"\r\n1\r\n}\r\n0\r\nLambda-Runtime-Function-Error-Type: Function.X\r\nA: b\r\n\r\n"
	for segment := range len(text) {
		h, b, err := readRequest([]byte(text), segment+1)
		if err != nil || string(b.content) != `{"a": "bcdefg"}` || b.errorType != "Function.X" || string(h.path) != "/x" {
			t.Fatalf("in pieces of %d bytes: %q, trailer %q, error %v", segment+1, b.content, b.errorType, err)
		}
	}
}

// A pieces connection gives its bytes out in reads of at most size bytes and keeps what is
// written to it.
type pieces struct {
	text    []byte
	size    int
	written bytes.Buffer
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	if p.size > 0 && len(b) > p.size {
		b = b[:p.size]
	}
	n := copy(b, p.text)
	p.text = p.text[n:]
	return n, nil
}

func (p *pieces) Write(b []byte) (int, error)      { return p.written.Write(b) }
func (p *pieces) Close() error                     { return nil }
func (p *pieces) LocalAddr() net.Addr              { return nil }
func (p *pieces) RemoteAddr() net.Addr             { return nil }
func (p *pieces) SetDeadline(time.Time) error      { return nil }
func (p *pieces) SetReadDeadline(time.Time) error  { return nil }
func (p *pieces) SetWriteDeadline(time.Time) error { return nil }

type wholeBody struct {
	body
	content []byte
}

// readRequest reads one request from text as a connection does; size bounds a read if positive.
// The paths and methods of the head are copies.
func readRequest(text []byte, size int) (head, wholeBody, error) {
	server := New(Config{})
	c := server.admit(&pieces{text: text, size: size})
	var h head
	if err := c.readHead(&h); err != nil {
		return h, wholeBody{}, err
	}
	h.method, h.path = slices.Clone(h.method), slices.Clone(h.path)
	b := wholeBody{body: c.body(&h)}
	var err error
	b.content, err = b.read(1 << 20)
	return h, b, err
}

func requestSeeds(f *testing.F) {
	for _, seed := range []string{
		nextRequest,
		post("one", "response", `{"a":1}`) + nextRequest,
		"POST /2018-06-01/runtime/invocation/one/error HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
		"GET http://h:1/2018-06-01/ping?x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
	} {
		f.Add([]byte(seed))
	}
}

// What ours accepts, net/http must accept with the same meaning.
func FuzzRequestsMeanTheSameToNetHTTP(f *testing.F) {
	requestSeeds(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		h, b, err := readRequest(text, 0)
		if err != nil {
			return
		}
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			t.Fatalf("net/http refuses: %v", err)
		}
		content, err := io.ReadAll(theirs.Body)
		if err != nil {
			t.Fatalf("net/http refuses the body: %v", err)
		}
		if !bytes.Equal(b.content, content) {
			t.Errorf("body %q, net/http %q", b.content, content)
		}
		if path := cmp.Or(theirs.URL.RawPath, theirs.URL.EscapedPath()); string(h.method) != theirs.Method || string(h.path) != path {
			t.Errorf("%s %s, net/http %s %s", h.method, h.path, theirs.Method, path)
		}
		if !h.chunked && h.contentLength != theirs.ContentLength || h.chunked != (len(theirs.TransferEncoding) > 0) {
			t.Errorf("length %d, net/http %d", h.contentLength, theirs.ContentLength)
		}
		if h.close && !theirs.Close && !h.version10 {
			t.Errorf("the end of the connection is not net/http's")
		}
		if want := theirs.Header.Get(errorTypeName); h.errorType != want[:min(len(want), maxErrorTypeBytes)] {
			t.Errorf("error type %q, net/http %q", h.errorType, want)
		}
		if want := theirs.Trailer.Get(errorTypeName); b.errorType != "" && theirs.Trailer != nil && want != "" && b.errorType != want[:min(len(want), maxErrorTypeBytes)] {
			t.Errorf("trailer %q, net/http %q", b.errorType, want)
		}
	})
}

// A whole connection of arbitrary bytes must end without a panic, be answered in valid HTTP,
// and not depend on how its bytes are cut.
func FuzzConnectionsEndInOrder(f *testing.F) {
	requestSeeds(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		whole, wholeEnded := converse(t, text, 0)
		cut, cutEnded := converse(t, text, 3)
		if wholeEnded && cutEnded && !bytes.Equal(whole, cut) {
			t.Errorf("in one piece %q, in pieces of 3 bytes %q", whole, cut)
		}
		reader := bufio.NewReader(bytes.NewReader(whole))
		for {
			if _, err := reader.Peek(1); err != nil {
				return
			}
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatalf("answer %q: %v", whole, err)
			}
			if bytes.HasPrefix(text, []byte("HEAD")) || bytes.Contains(text, []byte("\nHEAD")) {
				return // what follows depends on the request
			}
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				t.Fatalf("answer %q: %v", whole, err)
			}
		}
	})
}

// converse runs a connection that sends text while the event "one" waits, and returns what the
// server wrote. A connection that does not end by itself, because requests stand behind a GET next for
// which there is no event, is ended by Reset.
func converse(t *testing.T, text []byte, size int) (written []byte, ended bool) {
	var log bytes.Buffer
	server := New(Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	inv := &invocation{event: Event{RequestID: "one", Payload: []byte("payload")}, done: make(chan outcome, 1)}
	if _, _, err := server.begin(inv); err != nil {
		t.Fatal(err)
	}
	wire := &pieces{text: text, size: size}
	c := server.admit(wire)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.serve()
	}()
	select {
	case <-done:
		ended = true
	case <-time.After(50 * time.Millisecond):
		server.Reset()
		<-done
	}
	if log.Len() > 0 {
		t.Fatal(log.String())
	}
	if len(server.connections) != 0 || len(server.waiting) != 0 || server.largeHead.Load() {
		t.Fatal("the connection has left something behind")
	}
	return wire.written.Bytes(), ended
}
