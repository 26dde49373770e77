package runtimeapi

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"cloister/internal/socket"
)

// The answer is acknowledged by one goroutine while another waits for the next poll, in any order.
func TestTheNextPollIsSeenWhoeverAcknowledges(t *testing.T) {
	server, address := serve(t, Config{})
	c := dial(t, address)
	c.send(nextRequest)
	if err := server.AwaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	carried := 0
	for i := range 300 {
		id := fmt.Sprintf("event-%d", i)
		var client, group sync.WaitGroup
		client.Go(func() {
			c.want(200, id)
			c.send(post(id, "response", "done"))
			c.want(202, `{"status":"OK"}`)
			c.send(nextRequest)
		})
		answer, err := server.Offer(Event{RequestID: id, Payload: []byte(id)})
		if err == nil && answer == nil { // this machine was too slow for a moment
			var late Answer
			late, err = server.Await(t.Context())
			answer = &late
		} else {
			carried++
		}
		if err != nil || string(answer.Payload) != "done" {
			t.Fatalf("event %d: %+v, %v", i, answer, err)
		}
		group.Go(server.Acknowledge)
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := server.AwaitIdle(ctx); err != nil {
				t.Errorf("event %d: %v", i, err)
			}
		})
		group.Wait()
		client.Wait()
	}
	if carried == 0 {
		t.Error("no answer came at once, so nothing was tested")
	}
}

func TestAnOfferIsAnsweredByTheOneThatItWasGiven(t *testing.T) {
	server, address := serve(t, Config{})
	c := dial(t, address)
	c.send(nextRequest)
	inState(t, server, ready)
	other := dial(t, address)
	go func() { // the answer comes on another connection than the event went out on
		c.want(200, "one")
		other.send(post("one", "response", "1"))
		other.want(202, `{"status":"OK"}`)
	}()
	answer, err := server.Invoke(t.Context(), Event{RequestID: "one", Payload: []byte("one")})
	if err != nil || string(answer.Payload) != "1" {
		t.Fatalf("%+v, %v", answer, err)
	}
}

func TestAWholeRequestIsRecognised(t *testing.T) {
	const begin = "POST /2018-06-01/runtime/invocation/1/response HTTP/1.1\r\nHost: h\r\n"
	for text, want := range map[string]bool{
		begin + "Content-Length: 2\r\n\r\nab":                                         true,
		begin + "Content-Length: 2\r\n\r\na":                                          false,
		begin + "Content-Length: 0\r\n\r\n":                                           true,
		begin + "Content-Length: 2\r\n":                                               false,
		begin + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n":              true,
		begin + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n":                  false,
		begin + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nA: b\r\n":          false,
		begin + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nA: b\r\n\r\n":      true,
		begin + "Transfer-Encoding: chunked\r\n\r\n3\r\nab":                           false,
		begin + "Transfer-Encoding: chunked\r\n\r\n7fffffffffffff\r\nab\r\n0\r\n\r\n": false,
		begin + "Transfer-Encoding: chunked\r\n\r\n":                                  false,
		"NO REQUEST\r\n\r\n":                                                          false,
	} {
		if got := whole([]byte(text), new(head)) > 0; got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// Who offers an event holds the environment's turn: whatever the function sends, it comes back soon.
func TestADribblingFunctionDoesNotHoldWhoOffers(t *testing.T) {
	const promise = "POST /2018-06-01/runtime/invocation/id/response HTTP/1.1\r\nHost: x\r\n"
	for name, begin := range map[string]string{
		"an answer byte by byte":        promise + "Content-Length: 30000\r\n\r\n",
		"a malformed chunk and no end":  promise + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
		"a mode that is none, no end":   promise + "Lambda-Runtime-Function-Response-Mode: nonsense\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
		"a head that never ends":        promise + "X-Header: ",
		"a head and nothing afterwards": promise + "Content-Length: 2\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			server, address := serve(t, Config{})
			c := dial(t, address)
			c.send(nextRequest)
			if err := server.AwaitIdle(t.Context()); err != nil {
				t.Fatal(err)
			}
			stop := crowd(t) // where readers are patient
			defer stop()
			over, dribbled := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(dribbled)
				c.want(200, "{}")
				for _, err := c.conn.Write([]byte(begin)); err == nil; _, err = c.conn.Write([]byte("1")) {
					select {
					case <-over:
						return
					case <-time.After(time.Millisecond):
					}
				}
			}()
			began := time.Now()
			if _, err := server.Offer(Event{RequestID: "id", Payload: []byte("{}")}); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 2*time.Second { // a machine under load is slow; a held goroutine comes back never, or after 15 s
				t.Errorf("Offer returned after %s", took)
			}
			close(over)
			<-dribbled
		})
	}
}

// crowd makes the sockets of this process believe that many short exchanges are under way.
func crowd(t *testing.T) (stop func()) {
	t.Helper()
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			var many []socket.Exchange
			for range 2 * runtime.NumCPU() {
				many = append(many, socket.Begin())
			}
			for _, e := range many {
				e.End()
			}
			select {
			case <-over:
				return
			case <-time.After(3 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(over)
		<-done
	}
}
