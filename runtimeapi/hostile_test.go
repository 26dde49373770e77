package runtimeapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloister/lambda"
)

func TestAClientThatGoesWhileItWaitsGetsNoEvent(t *testing.T) {
	server, address := serve(t, Config{})
	gone := dial(t, address)
	gone.send(nextRequest)
	inState(t, server, ready)
	gone.conn.Close()
	c := dial(t, address)
	c.send(nextRequest)
	waitFor(t, "the server to notice", func() bool { return len(server.connections) == 1 && len(server.waiting) == 1 }, server)
	results := invoke(t.Context(), server, "one")
	c.want(200, "one")
	c.send(post("one", "response", "1"))
	wantAnswer(t, results, Answer{Payload: []byte("1")})
}

func TestAnEventLostWithItsConnectionIsGivenAgain(t *testing.T) {
	server, address, c, results := runningEvent(t)
	c.conn.Close()
	waitFor(t, "the server to notice", func() bool { return len(server.connections) == 0 }, server)
	again := dial(t, address)
	again.send(nextRequest)
	again.want(200, "one")
	again.send(post("one", "response", "1"))
	wantAnswer(t, results, Answer{Payload: []byte("1")})
}

// A client that does not read gets a payload larger than any socket buffer.
func TestAClientThatDoesNotReadHoldsNothingButItself(t *testing.T) {
	server, address := serve(t, Config{})
	deaf := dial(t, address)
	deaf.send(nextRequest)
	inState(t, server, ready)
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan result, 1)
	go func() {
		answer, err := server.Invoke(ctx, Event{RequestID: "one", Payload: make([]byte, lambda.MaxPayloadBytes)})
		results <- result{answer, err}
	}()
	inState(t, server, running)
	other := dial(t, address)
	other.send("GET /2018-06-01/ping HTTP/1.1\r\nHost: a\r\n\r\n")
	other.want(200, "pong")
	cancel()
	wantError(t, results, lambda.Internal, context.Canceled)
	server.Reset()
	waitFor(t, "its connection to end", func() bool { return len(server.connections) == 0 }, server)
}

func TestRequestsBehindAWaitingNextAreAnsweredAfterIt(t *testing.T) {
	server, address := serve(t, Config{})
	c := dial(t, address)
	ping := "GET /2018-06-01/ping HTTP/1.1\r\nHost: a\r\n\r\n"
	c.send(nextRequest + ping + post("one", "response", "1") + ping)
	inState(t, server, ready)
	results := invoke(t.Context(), server, "one")
	c.want(200, "one")
	c.want(200, "pong")
	c.want(202, "OK")
	c.want(200, "pong")
	wantAnswer(t, results, Answer{Payload: []byte("1")})
}

func TestANextWithClosingConnectionIsAnsweredAndClosed(t *testing.T) {
	for _, request := range []string{
		"GET /2018-06-01/runtime/invocation/next HTTP/1.0\r\n\r\n",
		"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
	} {
		server, address := serve(t, Config{})
		c := dial(t, address)
		c.send(request)
		inState(t, server, ready)
		invoke(t.Context(), server, "one")
		c.want(200, "one")
		c.wantEnd()
	}
}

func TestTooManyConnectionsAreClosedAtOnce(t *testing.T) {
	server, address := serve(t, Config{Connections: 3})
	var clients []*client
	for range 3 {
		clients = append(clients, dial(t, address))
	}
	waitFor(t, "three connections", func() bool { return len(server.connections) == 3 }, server)
	dial(t, address).wantEnd()
	clients[0].conn.Close()
	waitFor(t, "one to end", func() bool { return len(server.connections) == 2 }, server)
	c := dial(t, address)
	c.send("GET /2018-06-01/ping HTTP/1.1\r\nHost: a\r\n\r\n")
	c.want(200, "pong")
}

func TestOnlyOneConnectionAtATimeSendsLargeHeaders(t *testing.T) {
	server, address := serve(t, Config{})
	large := "GET /2018-06-01/ping HTTP/1.1\r\nHost: a\r\nLarge: " + strings.Repeat("x", 100<<10)
	first := dial(t, address)
	first.send(large)
	waitFor(t, "the first", server.largeHead.Load, server)
	second := dial(t, address)
	second.send(large + "\r\n\r\n")
	second.want(431, "another connection")
	first.send("\r\n\r\n")
	first.want(200, "pong")
	waitFor(t, "the first to end", func() bool { return !server.largeHead.Load() }, server)
	third := dial(t, address)
	third.send(large + "\r\n\r\n")
	third.want(200, "pong")
}

func TestAClientThatAsksFirstIsToldToContinue(t *testing.T) {
	_, address, c, results := runningEvent(t)
	expect := func(id string, n int) string {
		return fmt.Sprintf("POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", id, n)
	}
	refused := dial(t, address)
	refused.send(expect("unknown", 4))
	refused.want(400, "InvalidRequestID")
	refused.wantEnd()
	c.send(expect("one", 4))
	line, err := c.reader.ReadString('\n')
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q, error %v", line, err)
	}
	c.reader.ReadString('\n')
	c.send("body")
	c.want(202, "OK")
	wantAnswer(t, results, Answer{Payload: []byte("body")})

	_, _, c, results = runningEvent(t)
	c.send(expect("one", lambda.MaxResponseBytes+1))
	c.want(413, "RequestEntityTooLarge")
	wantAnswer(t, results, tooLarge())
}

func TestAnAnnouncedLengthAloneTakesNoMemory(t *testing.T) {
	for _, c := range []struct{ announced, held int }{{100, 100}, {lambda.MaxResponseBytes, trustedBytes}} {
		if got := cap(reserve(nil, c.announced, lambda.MaxResponseBytes)); got != c.held {
			t.Errorf("%d bytes announced: %d held before any came, want %d", c.announced, got, c.held)
		}
	}
	var p []byte
	for range 6 {
		came := len(p)
		p = reserve(p, lambda.MaxResponseBytes, lambda.MaxResponseBytes)
		if cap(p) <= came && came < lambda.MaxResponseBytes || cap(p) > max(trustedBytes, 8*came) {
			t.Fatalf("room for %d bytes after %d came", cap(p), came)
		}
		p = p[:cap(p)]
	}
	if len(p) != lambda.MaxResponseBytes {
		t.Fatalf("room for %d bytes at the end, want %d", len(p), lambda.MaxResponseBytes)
	}
}

// A tunedListener changes the connections that it accepts.
type tunedListener struct {
	net.Listener
	tune func(net.Conn) net.Conn
}

func (l tunedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.tune(conn), nil
}

// The goroutine that invokes must not write what the socket does not take at once.
func TestAnEventThatTheSocketDoesNotTakeAtOnceArrivesWhole(t *testing.T) {
	tunes := map[string]func(net.Conn) net.Conn{
		"a small socket buffer": func(conn net.Conn) net.Conn {
			conn.(*net.TCPConn).SetWriteBuffer(1)
			return conn
		},
		"not a socket": func(conn net.Conn) net.Conn { return struct{ net.Conn }{conn} },
	}
	for name, tune := range tunes {
		for _, size := range []int{10, copiedEventBytes, 4 * copiedEventBytes} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, size), func(t *testing.T) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				server := New(Config{})
				go server.Serve(tunedListener{l, tune})
				c := dial(t, l.Addr().String())
				c.send(nextRequest)
				inState(t, server, ready)
				payload := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
				results := make(chan result, 1)
				go func() {
					answer, err := server.Invoke(t.Context(), Event{RequestID: "one", Payload: payload})
					results <- result{answer, err}
				}()
				_, content, err := c.receive()
				if err != nil || content != string(payload) {
					t.Fatalf("got %d bytes, error %v", len(content), err)
				}
				c.send(post("one", "response", "1"))
				c.want(202, "OK")
				wantAnswer(t, results, Answer{Payload: []byte("1")})
			})
		}
	}
}

func TestServeLeavesNoGoroutineBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("serving", func(t *testing.T) {
		server, address := serve(t, Config{})
		invoke(t.Context(), server, "one")
		for i := range 20 {
			c := dial(t, address)
			c.send([]string{nextRequest, "GET ", post("one", "response", "x")[:60], nextRequest + nextRequest}[i%4])
		}
		inState(t, server, running)
		server.Reset()
		c := dial(t, address)
		c.send(nextRequest)
		inState(t, server, ready)
	})
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, had %d:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(time.Millisecond)
	}
}

func TestSlowClientsHoldNobodyUp(t *testing.T) {
	server, address := serve(t, Config{})
	slow := []string{"G", nextRequest[:40], post("one", "response", "body")[:80], "POST /2018-06-01/ping HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5"}
	for i := range defaultConnections - 1 {
		dial(t, address).send(slow[i%len(slow)])
	}
	c := dial(t, address)
	for i := range 20 {
		id := fmt.Sprint("event-", i)
		results := invoke(t.Context(), server, id)
		c.send(nextRequest)
		c.want(200, id)
		c.send(post(id, "response", "1"))
		c.want(202, "OK")
		wantAnswer(t, results, Answer{Payload: []byte("1")})
	}
}

// Clients, timeouts and resets come in any order; whatever answer comes belongs to its event.
func TestAnyOrderOfRequestsTimeoutsAndResetsIsSafe(t *testing.T) {
	server, address := serve(t, Config{Connections: 8})
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for seed := range 6 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(seed), 0))
			for {
				select {
				case <-stop:
					return
				default:
					converseAtRandom(address, random)
				}
			}
		})
	}
	random := rand.New(rand.NewPCG(6, 0))
	answered := 0
	for i := range 2000 {
		id := fmt.Sprint("event-", i)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(3000))*time.Microsecond)
		answer, err := server.Invoke(ctx, Event{RequestID: id, Payload: []byte(id)})
		switch {
		case err == nil && string(answer.Payload) != "answer to "+id && !strings.Contains(string(answer.Payload), "broke"):
			t.Fatalf("event %s: got %q", id, answer.Payload)
		case err == nil:
			answered++
		case lambda.KindOf(err) == lambda.Conflict:
			t.Fatalf("event %s: %v, though no other is under way", id, err)
		}
		if server.AwaitIdle(ctx) != nil && random.IntN(2) == 0 {
			server.Reset()
		}
		cancel()
	}
	close(stop)
	server.Reset()
	clients.Wait()
	if answered < 20 {
		t.Errorf("only %d events were answered: the test shows little", answered)
	}
}

// converseAtRandom opens a connection and plays a runtime that makes mistakes.
func converseAtRandom(address string, random *rand.Rand) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Duration(1+random.IntN(50)) * time.Millisecond))
	reader := bufio.NewReader(conn)
	id := "none"
	for {
		text := nextRequest
		switch choice := random.IntN(10); {
		case choice < 5:
			text = post(id, "response", "answer to "+id)
		case choice == 5:
			text = post(id, "error", "it broke")
		case choice == 6 && random.IntN(20) == 0:
			text = postInitError("it broke")
		case choice == 7:
			text = post(id, "response", "answer to "+id)[:60]
		}
		if _, err := conn.Write([]byte(text)); err != nil {
			return
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return
		}
		io.Copy(io.Discard, response.Body)
		if given := response.Header.Get("Lambda-Runtime-Aws-Request-Id"); given != "" {
			id = given
		}
	}
}

// A failingListener fails as often as it has errors, then as if it had been closed.
type failingListener struct {
	net.Listener
	errs []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		return nil, net.ErrClosed
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}

func TestServeOutlivesErrorsThatPass(t *testing.T) {
	shortage := &net.OpError{Op: "accept", Err: syscall.EMFILE}
	if err := New(Config{}).Serve(&failingListener{errs: []error{shortage, shortage}}); err != nil {
		t.Errorf("got %v, want a return without error when the listener is closed", err)
	}
	lasting := errors.New("no such network")
	if err := New(Config{}).Serve(&failingListener{errs: []error{shortage, lasting}}); !errors.Is(err, lasting) {
		t.Errorf("got %v, want the listener's own error", err)
	}
}

// A faultyConn makes the server's own code fail.
type faultyConn struct{ net.Conn }

func (faultyConn) Read([]byte) (int, error) { panic("impossible") }

func TestAPanicEndsOneConnectionOnly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var log bytes.Buffer
	server := New(Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	first := true
	served := make(chan error, 1)
	go func() {
		served <- server.Serve(tunedListener{l, func(conn net.Conn) net.Conn {
			if first {
				first = false
				return faultyConn{conn}
			}
			return conn
		}})
	}()
	dial(t, l.Addr().String()).wantEnd()
	c := dial(t, l.Addr().String())
	c.send("GET /2018-06-01/ping HTTP/1.1\r\nHost: a\r\n\r\n")
	c.want(200, "pong")
	l.Close()
	if err := <-served; err != nil || !strings.Contains(log.String(), "impossible") {
		t.Errorf("Serve: %v, log %q", err, log.String())
	}
}
