package runtimeapi

import (
	"bytes"
	"net/http"
	"strings"
)

// Limits of one request head. awslambdaric and aws-lambda-go send up to 1 MiB of X-Ray cause in
// one header line, which the emulator's limit (1 MiB and a 4 KiB slack) lets through.
const (
	maxRequestLineBytes = 8 << 10
	maxHeaderBytes      = 1<<20 + 4<<10
	smallHeaderBytes    = 64 << 10 // a larger one is read by one connection at a time
	maxHeaderLines      = 100
	maxErrorTypeBytes   = 256
)

// Header and trailer names that mean something here, in lower case.
const (
	errorTypeName    = "lambda-runtime-function-error-type"
	errorBodyName    = "lambda-runtime-function-error-body"
	responseModeName = "lambda-runtime-function-response-mode"
	errorCauseType   = "application/vnd.aws.lambda.error.cause+json"
)

// A responseMode is what Lambda-Runtime-Function-Response-Mode asks for.
type responseMode uint8

const (
	modeBuffered  responseMode = iota // no header
	modeStreaming                     // an invocation is answered buffered all the same
	modeInvalid                       // anything else
)

// A head is the request line and the headers of one request, as far as they matter. Its byte
// slices point into the connection's read buffer and end with the next read.
type head struct {
	method        []byte
	path          []byte // without the query
	bodiless      bool   // a HEAD request, whose answer has no body
	version10     bool
	close         bool // the client will send no further request
	keepAlive     bool // asked for explicitly, which HTTP/1.0 needs
	expect        bool // 100-continue
	chunked       bool
	contentLength int64 // 0 if none was given
	mode          responseMode
	errorCause    bool // Content-Type is errorCauseType
	errorType     string

	// What the fields so far held, for the checks that need all of them.
	hosts, lengths, encodings, lines int
}

// A requestError is why a request is refused and its connection closed.
type requestError struct {
	status int
	reason string
}

func (e *requestError) Error() string { return e.reason }

func malformed(reason string) *requestError {
	return &requestError{http.StatusBadRequest, reason}
}

// parseHead reads a request line and header lines, each ended by CRLF, and the empty line. It
// is stricter than RFC 9112 asks for: no bare LF, no folded lines, no white space before a
// colon, no second Content-Length, nothing between the two ways to give a length. What it
// accepts, net/http accepts with the same meaning.
func parseHead(block []byte, h *head) *requestError {
	*h = head{}
	end := bytes.IndexByte(block, '\r')
	if end < 0 || end+1 >= len(block) || block[end+1] != '\n' {
		return malformed("malformed request line")
	}
	if err := h.parseRequestLine(block[:end]); err != nil {
		return err
	}
	err := eachField(block[end+2:], func(name, value []byte) *requestError {
		if h.lines++; h.lines > maxHeaderLines {
			return &requestError{http.StatusRequestHeaderFieldsTooLarge, "too many header lines"}
		}
		return h.take(name, value)
	})
	if err != nil {
		return err
	}
	return h.check()
}

func (h *head) parseRequestLine(line []byte) *requestError {
	first, last := bytes.IndexByte(line, ' '), bytes.LastIndexByte(line, ' ')
	if first <= 0 || last <= first {
		return malformed("malformed request line")
	}
	h.method = line[:first]
	if !isToken(h.method) {
		return malformed("malformed method")
	}
	h.bodiless = string(h.method) == http.MethodHead
	switch version := string(line[last+1:]); {
	case version == "HTTP/1.1":
	case version == "HTTP/1.0":
		h.version10 = true
	case len(version) == 8 && strings.HasPrefix(version, "HTTP/"):
		return &requestError{http.StatusHTTPVersionNotSupported, "only HTTP/1.0 and HTTP/1.1 are spoken here"}
	default:
		return malformed("malformed request line")
	}
	return h.parseTarget(line[first+1 : last])
}

// parseTarget takes "/path?query", or "http://authority/path?query" which RFC 9112 section
// 3.2.2 asks every server to understand. Paths are compared as sent: "%6e" is not "n".
func (h *head) parseTarget(target []byte) *requestError {
	if rest, ok := bytes.CutPrefix(target, []byte("http://")); ok {
		slash := bytes.IndexByte(rest, '/')
		if slash <= 0 || !isAuthority(rest[:slash]) {
			return malformed("malformed request target")
		}
		target = rest[slash:]
	}
	if len(target) == 0 || target[0] != '/' {
		return malformed("malformed request target")
	}
	for _, b := range target {
		if b <= ' ' || b >= 0x7f {
			return malformed("malformed request target")
		}
	}
	h.path, _, _ = bytes.Cut(target, []byte{'?'})
	for i, b := range h.path {
		if b == '%' && (i+2 >= len(h.path) || !isHex(h.path[i+1]) || !isHex(h.path[i+2])) {
			return malformed("malformed request target")
		}
	}
	return nil
}

// eachField calls f for every line of a header or trailer section, which ends with an empty
// line that must be the end of block.
func eachField(block []byte, f func(name, value []byte) *requestError) *requestError {
	for {
		end := bytes.IndexByte(block, '\r')
		if end < 0 || end+1 >= len(block) || block[end+1] != '\n' {
			return malformed("malformed header line")
		}
		line := block[:end]
		block = block[end+2:]
		if len(line) == 0 {
			if len(block) != 0 {
				return malformed("malformed header line")
			}
			return nil
		}
		name, value, err := parseField(line)
		if err != nil {
			return err
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
}

// parseField splits one header or trailer line, without its CRLF.
func parseField(line []byte) (name, value []byte, err *requestError) {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 || !isToken(line[:colon]) {
		return nil, nil, malformed("malformed header line")
	}
	value = trimSpace(line[colon+1:])
	if !isText(value) {
		return nil, nil, malformed("malformed header value")
	}
	return line[:colon], value, nil
}

// take notes one header. The lengths of the names are all different, so that most lines cost
// one comparison.
func (h *head) take(name, value []byte) *requestError {
	switch len(name) {
	case len("host"):
		if equalFold(name, "host") {
			h.hosts++
		}
	case len("expect"):
		if equalFold(name, "expect") {
			if !equalFold(value, "100-continue") {
				return &requestError{http.StatusExpectationFailed, "unknown expectation"}
			}
			h.expect = true
		}
	case len("connection"):
		if equalFold(name, "connection") {
			h.takeConnection(value)
		}
	case len("content-type"):
		if equalFold(name, "content-type") {
			h.errorCause = string(value) == errorCauseType
		}
	case len("content-length"):
		if equalFold(name, "content-length") {
			h.lengths++
			n, ok := parseLength(value)
			if !ok {
				return malformed("malformed Content-Length")
			}
			h.contentLength = n
		}
	case len("transfer-encoding"):
		if equalFold(name, "transfer-encoding") {
			h.encodings++
			if !equalFold(value, "chunked") {
				return &requestError{http.StatusNotImplemented, "unsupported transfer encoding"}
			}
			h.chunked = true
		}
	case len(errorTypeName):
		if h.errorType == "" && equalFold(name, errorTypeName) {
			h.errorType = string(value[:min(len(value), maxErrorTypeBytes)])
		}
	case len(responseModeName):
		if h.mode == modeBuffered && equalFold(name, responseModeName) {
			h.mode = modeOf(string(value))
		}
	}
	return nil
}

func (h *head) takeConnection(value []byte) {
	for option := range bytes.SplitSeq(value, []byte{','}) {
		switch option = trimSpace(option); {
		case equalFold(option, "close"):
			h.close = true
		case equalFold(option, "keep-alive"):
			h.keepAlive = true
		}
	}
}

// check applies the rules that need all headers.
func (h *head) check() *requestError {
	switch {
	case h.lengths > 1 || h.encodings > 1:
		return malformed("repeated body length")
	case h.lengths > 0 && h.encodings > 0:
		return malformed("both Content-Length and Transfer-Encoding")
	case h.encodings > 0 && h.version10:
		return malformed("Transfer-Encoding in HTTP/1.0")
	case h.hosts > 1 || h.hosts == 0 && !h.version10:
		return malformed("not one Host header")
	}
	h.expect = h.expect && !h.version10 // RFC 9110 section 10.1.1
	if h.version10 && !h.keepAlive {
		h.close = true
	}
	return nil
}

// persistence is what the answer says if nothing forces the connection closed.
func (h *head) persistence() persistence {
	switch {
	case h.close:
		return closing
	case h.version10:
		return persistent10
	}
	return persistent
}

func modeOf(value string) responseMode {
	switch value {
	case "":
		return modeBuffered
	case "streaming":
		return modeStreaming
	}
	return modeInvalid
}

// parseLength reads 1 to 18 decimal digits: no sign, no list.
func parseLength(value []byte) (int64, bool) {
	if len(value) == 0 || len(value) > 18 {
		return 0, false
	}
	var n int64
	for _, b := range value {
		if b < '0' || b > '9' {
			return 0, false
		}
		n = n*10 + int64(b-'0')
	}
	return n, true
}

// equalFold compares b with lower, which must be ASCII in lower case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// trimSpace removes the optional white space of RFC 9110 section 5.6.3.
func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// tokenByte says which bytes RFC 9110 section 5.6.2 allows in a token.
var tokenByte = func() (table [256]bool) {
	for b := byte('0'); b <= 'z'; b++ {
		table[b] = b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b
	}
	for _, b := range []byte("!#$%&'*+-.^_`|~") {
		table[b] = true
	}
	return table
}()

func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenByte[c] {
			return false
		}
	}
	return len(b) > 0
}

// isText says whether b is free of control characters: no CR, LF or NUL.
func isText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isAuthority accepts host names, IPv4 addresses and a port: what a Runtime API address is.
func isAuthority(b []byte) bool {
	host, port, colon := bytes.Cut(b, []byte{':'})
	for _, c := range host {
		if c != '.' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	for _, c := range port {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(host) > 0 && (!colon || len(port) > 0)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
