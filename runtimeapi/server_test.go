package runtimeapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/lambda"
)

const nextRequest = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: a\r\n\r\n"

// A client is one connection of a runtime.
type client struct {
	t      testing.TB
	conn   net.Conn
	reader *bufio.Reader
}

func dial(t testing.TB, address string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// receive reads one answer. It may be called by any goroutine.
func (c *client) receive() (status int, content string, err error) {
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// want reads one answer and checks it.
func (c *client) want(status int, content string) {
	c.t.Helper()
	gotStatus, gotContent, err := c.receive()
	if err != nil {
		c.t.Fatal(err)
	}
	if gotStatus != status || !strings.Contains(gotContent, content) {
		c.t.Fatalf("got %d %q, want %d and %q", gotStatus, gotContent, status, content)
	}
}

// wantEnd expects that the server closes the connection without another answer.
func (c *client) wantEnd() {
	c.t.Helper()
	if b, err := c.reader.ReadByte(); err == nil {
		c.t.Fatalf("got byte %q, want the end of the connection", b)
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		c.t.Fatal("the connection was not closed")
	}
}

func post(id, action, content string) string {
	return fmt.Sprintf("POST /2018-06-01/runtime/invocation/%s/%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", id, action, len(content), content)
}

func postInitError(content string) string {
	return fmt.Sprintf("POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(content), content)
}

type result struct {
	answer Answer
	err    error
}

// invoke starts an invocation whose payload is its id.
func invoke(ctx context.Context, server *Server, id string) <-chan result {
	results := make(chan result, 1)
	go func() {
		answer, err := server.Invoke(ctx, Event{RequestID: id, Payload: []byte(id)})
		results <- result{answer, err}
	}()
	return results
}

func wantAnswer(t *testing.T, results <-chan result, want Answer) {
	t.Helper()
	select {
	case got := <-results:
		if got.err != nil {
			t.Fatal(got.err)
		}
		if diff := cmp.Diff(want, got.answer); diff != "" {
			t.Fatalf("answer differs (-want +got):\n%s", diff)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no answer in 10 s")
	}
}

func wantError(t *testing.T, results <-chan result, kind lambda.Kind, cause error) {
	t.Helper()
	select {
	case got := <-results:
		if got.err == nil || lambda.KindOf(got.err) != kind || cause != nil && !errors.Is(got.err, cause) {
			t.Fatalf("got answer %+v and error %v, want an error of kind %v and cause %v", got.answer, got.err, kind, cause)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no end of the invocation in 10 s")
	}
}

// inState waits until the server is in a state.
func inState(t *testing.T, server *Server, want state) {
	t.Helper()
	waitFor(t, "state "+want.String(), func() bool { return server.state == want }, server)
}

// running brings a server to the point where the client has the event "one".
func runningEvent(t *testing.T) (*Server, string, *client, <-chan result) {
	t.Helper()
	server, address := serve(t, Config{})
	results := invoke(t.Context(), server, "one")
	c := dial(t, address)
	c.send(nextRequest)
	c.want(200, "one")
	return server, address, c, results
}

func TestOneConnectionServesManyEvents(t *testing.T) {
	server, address := serve(t, Config{})
	c := dial(t, address)
	for i := range 100 {
		id := fmt.Sprintf("event-%d", i)
		c.send(nextRequest)
		if i%2 == 0 { // the runtime waits for the event, or the event for the runtime
			inState(t, server, ready)
		}
		results := invoke(t.Context(), server, id)
		c.want(200, id)
		c.send(post(id, "response", id+" done"))
		c.want(202, `{"status":"OK"}`)
		wantAnswer(t, results, Answer{Payload: []byte(id + " done")})
	}
}

func TestASecondInvokeAtOnceIsRefused(t *testing.T) {
	server, _, c, first := runningEvent(t)
	var group sync.WaitGroup
	for range 15 {
		group.Go(func() {
			_, err := server.Invoke(t.Context(), Event{RequestID: "two"})
			if lambda.KindOf(err) != lambda.Conflict || !strings.Contains(err.Error(), "busy with event one") {
				t.Errorf("got %v, want a conflict that names the running event", err)
			}
		})
	}
	group.Wait()
	c.send(post("one", "response", "1"))
	c.want(202, "OK")
	wantAnswer(t, first, Answer{Payload: []byte("1")})
}

func TestAnInvalidResponseModeIsAnsweredAndLeavesTheRuntimeToReset(t *testing.T) {
	server, _, c, results := runningEvent(t)
	c.send("POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nHost: a\r\nLambda-Runtime-Function-Response-Mode: buffered\r\nContent-Length: 1\r\n\r\n1")
	c.want(400, "InvalidFunctionResponseMode")
	wantAnswer(t, results, Answer{FunctionError: true, ErrorType: "Runtime.InvalidResponseModeHeader",
		Payload: []byte(`{"errorType":"Runtime.InvalidResponseModeHeader","errorMessage":"Invalid function response mode"}`)})
	c.send(nextRequest)
	c.want(403, "from InvocationResponse to Ready")
	wantError(t, invoke(t.Context(), server, "two"), lambda.EnvironmentGone, nil)
	server.Reset()
	c.wantEnd()
}

func TestTrailersOfABrokenStreamMakeAnError(t *testing.T) {
	for _, test := range []struct{ name, trailers, want string }{
		{"with body", "Lambda-Runtime-Function-Error-Type: Function.Broken\r\nLambda-Runtime-Function-Error-Body: eyJlcnJvclR5cGUiOiJCcm9rZW4ifQ==\r\n", `{"errorType":"Broken"}`},
		{"without body", "Lambda-Runtime-Function-Error-Type: Function.Broken\r\n", `{"errorType":"Function.Broken","errorMessage":"The function failed while it was streaming its response."}`},
		{"with a body that is not base64", "lambda-runtime-function-error-type: Function.Broken\r\nLambda-Runtime-Function-Error-Body: {}\r\n", `{"errorType":"Function.Broken","errorMessage":"The function failed while it was streaming its response."}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, c, results := runningEvent(t)
			c.send("POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n" + test.trailers + "\r\n")
			c.want(202, "OK")
			wantAnswer(t, results, Answer{FunctionError: true, ErrorType: "Function.Broken", Payload: []byte(test.want)})
		})
	}
}

func TestErrorTypesOutsideAWSRoomBecomeUnknown(t *testing.T) {
	for given, want := range map[string]string{
		"Runtime.ExitError": "Runtime.ExitError", "Function.MyOwn": "Function.MyOwn",
		"": "Runtime.Unknown", "Broken": "Runtime.Unknown", "Runtime.lower": "Runtime.Unknown", "Sandbox.Timedout": "Runtime.Unknown",
		"Function.": "Function.Unknown", "Function.A": "Function.Unknown", "Function.Two Words": "Function.Unknown", "XFunction.Broken": "Runtime.Unknown",
		"Function." + strings.Repeat("A", 400): "Function." + strings.Repeat("A", maxErrorTypeBytes-len("Function.")),
	} {
		_, _, c, results := runningEvent(t)
		c.send("POST /2018-06-01/runtime/invocation/one/error HTTP/1.1\r\nHost: a\r\nLambda-Runtime-Function-Error-Type: " + given + "\r\n\r\n")
		c.want(202, "OK")
		wantAnswer(t, results, Answer{FunctionError: true, ErrorType: want})
	}
}

func TestInitEndsWithTheFirstNextOrAnInitError(t *testing.T) {
	server, address := serve(t, Config{})
	c := dial(t, address)
	c.send(nextRequest)
	got, err := server.AwaitInit(t.Context())
	if diff := cmp.Diff(InitResult{Ready: true}, got); err != nil || diff != "" {
		t.Fatalf("error %v, init differs (-want +got):\n%s", err, diff)
	}
	server.Reset()
	c = dial(t, address)
	c.send(postInitError("it broke"))
	c.want(202, "OK")
	got, err = server.AwaitInit(t.Context())
	want := InitResult{Error: &Answer{Payload: []byte("it broke"), FunctionError: true, ErrorType: "Runtime.Unknown"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("error %v, init differs (-want +got):\n%s", err, diff)
	}
	wantError(t, invoke(t.Context(), server, "one"), lambda.EnvironmentGone, nil)
}

func TestAnEventThatWaitsForAFailingInitIsAnsweredWithItsError(t *testing.T) {
	server, address := serve(t, Config{})
	results := invoke(t.Context(), server, "one")
	waitFor(t, "the event", func() bool { return server.current != nil }, server)
	c := dial(t, address)
	c.send(postInitError("it broke"))
	c.want(202, "OK")
	wantAnswer(t, results, Answer{Payload: []byte("it broke"), FunctionError: true, ErrorType: "Runtime.Unknown"})
}

func TestAwaitIdleReturnsWithTheNextPoll(t *testing.T) {
	server, _, c, results := runningEvent(t)
	c.send(post("one", "response", "1"))
	c.want(202, "OK")
	wantAnswer(t, results, Answer{Payload: []byte("1")})
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := server.AwaitIdle(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v before the runtime has asked, want a deadline", err)
	}
	idle := make(chan error, 1)
	go func() { idle <- server.AwaitIdle(t.Context()) }()
	c.send(nextRequest)
	if err := <-idle; err != nil {
		t.Fatal(err)
	}
}

// waysInto brings the runtime into each state. The invocation that is under way then, if any,
// is "one".
func waysInto() map[state]func(t *testing.T, server *Server, c *client) <-chan result {
	return map[state]func(t *testing.T, server *Server, c *client) <-chan result{
		started: func(t *testing.T, server *Server, c *client) <-chan result {
			results := invoke(t.Context(), server, "one")
			waitFor(t, "the event", func() bool { return server.current != nil }, server)
			return results
		},
		initError: func(t *testing.T, server *Server, c *client) <-chan result {
			c.send(postInitError("it broke"))
			return nil
		},
		ready: func(t *testing.T, server *Server, c *client) <-chan result {
			c.send(nextRequest)
			return nil
		},
		running: func(t *testing.T, server *Server, c *client) <-chan result {
			results := invoke(t.Context(), server, "one")
			c.send(nextRequest)
			c.want(200, "one")
			return results
		},
		invocationResponse: func(t *testing.T, server *Server, c *client) <-chan result {
			results := invoke(t.Context(), server, "one")
			c.send(nextRequest)
			c.want(200, "one")
			c.send("POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
			return results
		},
		invocationError: func(t *testing.T, server *Server, c *client) <-chan result {
			results := invoke(t.Context(), server, "one")
			c.send(nextRequest)
			c.want(200, "one")
			c.send("POST /2018-06-01/runtime/invocation/one/error HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf")
			return results
		},
		responseSent: func(t *testing.T, server *Server, c *client) <-chan result {
			results := invoke(t.Context(), server, "one")
			c.send(nextRequest)
			c.want(200, "one")
			c.send(post("one", "response", "1"))
			wantAnswer(t, results, Answer{Payload: []byte("1")})
			return nil
		},
	}
}

func TestResetInEveryStateGivesAFreshEnvironment(t *testing.T) {
	for at, enter := range waysInto() {
		t.Run(at.String(), func(t *testing.T) {
			server, address := serve(t, Config{})
			old := dial(t, address)
			results := enter(t, server, old)
			inState(t, server, at)
			server.Reset()
			if results != nil {
				kind := lambda.Internal
				if at == started {
					kind = lambda.EnvironmentGone
				}
				wantError(t, results, kind, ErrReset)
			}
			old.conn.Write([]byte(post("one", "response", "late") + nextRequest))
			io.Copy(io.Discard, old.conn) // ends only when the server has closed it
			fresh := dial(t, address)
			second := invoke(t.Context(), server, "two")
			fresh.send(nextRequest)
			fresh.want(200, "two")
			fresh.send(post("one", "response", "late"))
			fresh.want(400, "InvalidRequestID")
			fresh.send(post("two", "response", "2"))
			fresh.want(202, "OK")
			wantAnswer(t, second, Answer{Payload: []byte("2")})
		})
	}
}

func TestResetEndsEveryWait(t *testing.T) {
	server := New(Config{})
	for name, wait := range map[string]func() error{
		"init": func() error { _, err := server.AwaitInit(t.Context()); return err },
		"idle": func() error { return server.AwaitIdle(t.Context()) },
	} {
		ended := make(chan error, 1)
		go func() { ended <- wait() }()
		waitFor(t, "the wait for "+name, func() bool { return server.changed != nil }, server)
		server.Reset()
		select {
		case err := <-ended:
			if !errors.Is(err, ErrReset) {
				t.Fatalf("%s: got %v, want ErrReset", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the wait for %s has not ended", name)
		}
	}
}

func TestAnEventIsWithdrawnWhenItsContextEndsBeforeTheRuntimeAsks(t *testing.T) {
	server, address := serve(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	first := invoke(ctx, server, "one")
	waitFor(t, "the event", func() bool { return server.current != nil }, server)
	cancel()
	wantError(t, first, lambda.Internal, context.Canceled)
	second := invoke(t.Context(), server, "two")
	c := dial(t, address)
	c.send(nextRequest)
	c.want(200, "two")
	c.send(post("two", "response", "2"))
	wantAnswer(t, second, Answer{Payload: []byte("2")})
}

func TestALateAnswerIsRefusedAfterATimeout(t *testing.T) {
	server, address := serve(t, Config{})
	cause := errors.New("timed out")
	ctx, cancel := context.WithCancelCause(t.Context())
	results := invoke(ctx, server, "one")
	c := dial(t, address)
	c.send(nextRequest)
	c.want(200, "one")
	c.send("POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha")
	inState(t, server, invocationResponse)
	cancel(cause)
	wantError(t, results, lambda.Internal, cause)
	c.send("lf")
	c.want(400, "InvalidRequestID")
	c.send(nextRequest)
	c.want(403, "InvalidStateTransition")
	wantError(t, invoke(t.Context(), server, "two"), lambda.EnvironmentGone, nil)
}

func TestAnUploadThatBreaksOffMayBeRepeated(t *testing.T) {
	for _, half := range []string{
		"POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
		"POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"POST /2018-06-01/runtime/invocation/one/error HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n",
	} {
		server, address, c, results := runningEvent(t)
		c.send(half)
		if !strings.Contains(half, "xyz") {
			inState(t, server, map[bool]state{true: invocationResponse, false: invocationError}[strings.Contains(half, "/response")])
		}
		c.conn.(*net.TCPConn).CloseWrite()
		c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		io.Copy(io.Discard, c.conn)
		inState(t, server, running)
		again := dial(t, address)
		again.send(post("one", "response", "whole"))
		again.want(202, "OK")
		wantAnswer(t, results, Answer{Payload: []byte("whole")})
	}
}

func TestAnInitErrorThatBreaksOffMayBeRepeated(t *testing.T) {
	server, address := serve(t, Config{})
	c := dial(t, address)
	c.send("POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
	inState(t, server, initError)
	c.conn.Close()
	inState(t, server, started)
	c = dial(t, address)
	c.send(postInitError("whole"))
	c.want(202, "OK")
}
