// Package floor is what Cloister is measured against: the cheapest service that a Lambda runtime
// client can talk to. One process with net/http takes an invocation over TLS, hands it to the
// runtime that polls the Runtime API, and returns the answer. It has no signatures,
// policies, isolation, limits, logs or state, and it is no part of the product.
package floor

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Floor is one service for one function.
type Floor struct {
	Clients    net.Listener // https://…/invoke
	RuntimeAPI net.Listener // http://…/2018-06-01/runtime/…
	Polled     chan time.Time

	work    chan *call
	pending sync.Map
	ids     atomic.Int64
}

type call struct {
	event  []byte
	answer chan []byte
}

const prefix = "/2018-06-01/runtime/invocation/"

// Start listens on two free ports and serves until the listeners are closed.
func Start(certificate tls.Certificate) (*Floor, error) {
	f := &Floor{work: make(chan *call, 1024), Polled: make(chan time.Time, 1)}
	var err error
	if f.RuntimeAPI, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.RuntimeAPI.Close()
		return nil, err
	}
	f.Clients = tls.NewListener(plain, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	runtime := http.NewServeMux()
	runtime.HandleFunc("GET "+prefix+"next", f.next)
	runtime.HandleFunc("POST "+prefix+"{id}/response", f.response)
	runtime.HandleFunc("POST "+prefix+"{id}/error", f.response)
	go http.Serve(f.RuntimeAPI, runtime)
	go http.Serve(f.Clients, http.HandlerFunc(f.invoke))
	return f, nil
}

// Close stops both listeners.
func (f *Floor) Close() {
	f.Clients.Close()
	f.RuntimeAPI.Close()
}

func (f *Floor) invoke(w http.ResponseWriter, r *http.Request) {
	event, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	c := &call{event, make(chan []byte, 1)}
	f.work <- c
	send(w, <-c.answer)
}

func send(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func (f *Floor) next(w http.ResponseWriter, r *http.Request) {
	select {
	case f.Polled <- time.Now():
	default:
	}
	select {
	case c := <-f.work:
		id := strconv.FormatInt(f.ids.Add(1), 10)
		f.pending.Store(id, c)
		w.Header().Set("Lambda-Runtime-Aws-Request-Id", id)
		w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(30*time.Second).UnixMilli(), 10))
		w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:echo")
		send(w, c.event)
	case <-r.Context().Done():
	}
}

func (f *Floor) response(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if c, ok := f.pending.LoadAndDelete(r.PathValue("id")); ok && err == nil {
		c.(*call).answer <- body
	}
	w.WriteHeader(http.StatusAccepted)
}
