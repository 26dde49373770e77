package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// FuzzAPlainHeadIsReadInOneWay holds the lane's own reader against net/http's: what the lane keeps must be a request for both,
// with the same end, the same host, no header less, and nothing that is said about the connection.
func FuzzAPlainHeadIsReadInOneWay(f *testing.F) {
	const post = "POST /2015-03-31/functions/f/invocations HTTP/1.1\r\n"
	for _, head := range []string{
		post + "Host: h:1\r\nContent-Length: 2\r\nX-A: b\r\n", post + "Host: h\r\n", post + "Host: h\r\nConnection: keep-alive\r\n",
		post + "Host: h\r\nConnection: close\r\n", post + "Host: h\r\nTransfer-Encoding: chunked\r\n", post + "Host: h\r\nHost: i\r\n",
		post + "Host: h\r\nContent-Length: 2\r\ncontent-length: 2\r\n", post + "Host: h\r\nContent-Length: 2\r\n X: y\r\n",
		post + "Host: h\r\nX: a\nContent-Length: 2\r\n", post + "Host: h\r\nX : a\r\n", post + "Host: h\r\nX:a\r\n", post + "Host: h\r\nX:  a\r\n",
		post + "Host: \r\n", post + "Host: a@b\r\n", post + "Host: [::1]:9443\r\n", post + "host: h\r\nContent-Length: 0000000002\r\n",
		"GET /a?b=c%20d#e HTTP/1.1\r\nHost: h\r\n", "GET //a HTTP/1.1\r\nHost: h\r\n", "GET /%zz HTTP/1.1\r\nHost: h\r\n", "GET http://h/ HTTP/1.1\r\nHost: h\r\n",
		"GET / HTTP/1.0\r\nHost: h\r\n", "HEAD / HTTP/1.1\r\nHost: h\r\n", "PUT / HTTP/1.1\r\nHost: h\r\nTrailer: X\r\n", "DELETE / HTTP/1.1\r\n",
	} {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		if bytes.Contains(head, []byte("\r\n\r\n")) || !bytes.HasSuffix(head, []byte("\r\n")) || !plainHead(head) {
			return // a head ends at its first empty line
		}
		r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\r\nbody and more"))))
		if err != nil {
			target := strings.Fields(string(head))[1]
			if _, wrong := url.ParseRequestURI(target); wrong == nil {
				t.Fatalf("net/http does not read it: %v", err)
			}
			return // the one thing that the lane leaves to the parser
		}
		if len(r.TransferEncoding) > 0 || r.Close || r.Trailer != nil || r.ProtoMinor != 1 || r.URL.Host != "" || !strings.HasPrefix(r.URL.Path, "/") {
			t.Fatalf("net/http reads %+v", r)
		}
		lines := strings.Split(strings.TrimSuffix(string(head), "\r\n"), "\r\n")[1:]
		length, headers := int64(0), 0
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			switch {
			case strings.EqualFold(name, "Content-Length"):
				length, _ = strconv.ParseInt(value, 10, 64)
			case strings.EqualFold(name, "Host") && value != r.Host:
				t.Fatalf("net/http reads the host %q", r.Host)
			}
			if !strings.EqualFold(name, "Host") {
				headers++
			}
		}
		for _, values := range r.Header {
			headers -= len(values)
		}
		if r.ContentLength != length || headers != 0 {
			t.Fatalf("net/http reads a length of %d, want %d; %d headers are missing", r.ContentLength, length, headers)
		}
	})
}
