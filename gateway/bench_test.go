package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"testing"

	"cloister/lambda"
)

// BenchmarkInvoke sends one signed request again and again over one connection, so the client costs
// next to nothing: TLS, signature, policy and wire format are what is measured. BenchmarkFloor is the same
// request to net/http with the same TLS and an echo as handler; only their ratio means something.
func BenchmarkInvoke(b *testing.B) {
	for _, size := range []int{27, 64 << 10, lambda.MaxPayloadBytes} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			h := openHouse(b, quiet)
			body := string(zeros(size))
			repeat(b, h.dial(b), dump(b, h.request(b, http.MethodPost, invocationsPath, body, signing{}), contentLength(body), body))
		})
	}
}

func BenchmarkFloor(b *testing.B) {
	for _, size := range []int{27, 64 << 10, lambda.MaxPayloadBytes} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			h := openHouse(b, quiet)
			floor := openFloor(b, h)
			body := string(zeros(size))
			request := dump(b, h.request(b, http.MethodPost, invocationsPath, body, signing{}), contentLength(body), body)
			h.client.Transport.(*http.Transport).DialContext = floor
			repeat(b, h.dial(b), request)
		})
	}
}

func quiet(c *Config) { c.Logger = slog.New(slog.DiscardHandler) }

func contentLength(body string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(body)) }

// openFloor serves an echo with the TLS configuration of h and returns how to reach it.
func openFloor(b *testing.B, h *house) dialFunc {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	floor := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			b.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	})}
	go floor.Serve(tls.NewListener(l, h.tls))
	b.Cleanup(func() { floor.Close() })
	return dialTo(l.Addr().String())
}

// repeat sends the request and reads the answer, b.N times.
func repeat(b *testing.B, conn net.Conn, request string) {
	b.Helper()
	message := []byte(request)
	reader := bufio.NewReaderSize(conn, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(message); err != nil {
			b.Fatal(err)
		}
		length := -1
		for first := true; ; first = false {
			line, err := reader.ReadSlice('\n')
			if err != nil || first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
				b.Fatalf("%q, %v", line, err)
			}
			if len(line) == 2 {
				break
			}
			if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
				length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
			}
		}
		if n, err := reader.Discard(length); err != nil {
			b.Fatalf("body ended after %d bytes: %v", n, err)
		}
	}
}
