package runtimeapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An invoker is a Runtime API server under measurement.
type invoker interface {
	Invoke(ctx context.Context, event Event) (Answer, error)
	AwaitIdle(ctx context.Context) error
	Serve(l net.Listener) error
}

// BenchmarkEcho measures a warm invocation of a function on AWS's Go client, against ours and
// against the smallest server that net/http allows, each time with an idle runtime as the worker
// does. "invoke-us/op" is the caller's wait, "server-us/op" the CPU time of the server's process,
// which is also the caller's.
func BenchmarkEcho(b *testing.B) {
	binary := buildGoRuntime(b)
	for _, size := range []int{100, 100 << 10} {
		payload := fmt.Appendf(nil, `{"echo":"%s"}`, strings.Repeat("x", size))
		for name, server := range map[string]func() invoker{"ours": func() invoker { return New(Config{}) }, "net_http": func() invoker { return newMinimal() }} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) { benchmarkEcho(b, server(), binary, payload) })
		}
	}
}

func benchmarkEcho(b *testing.B, server invoker, binary string, payload []byte) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	runtime := exec.Command(binary)
	runtime.Env = []string{"AWS_LAMBDA_RUNTIME_API=" + l.Addr().String()}
	if err := runtime.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		runtime.Process.Kill()
		runtime.Wait()
		l.Close()
		<-served
	}()
	count := 0
	var waited time.Duration
	echo := func() {
		if err := server.AwaitIdle(b.Context()); err != nil {
			b.Fatal(err)
		}
		count++
		event := Event{RequestID: fmt.Sprintf("event-%d", count), FunctionARN: testFunctionARN, Deadline: time.Now().Add(time.Minute), Payload: payload}
		began := time.Now()
		answer, err := server.Invoke(b.Context(), event)
		waited += time.Since(began)
		if err != nil || answer.FunctionError || len(answer.Payload) != len(payload)-len(`{"echo":}`) {
			b.Fatalf("got %.100s, error %v", answer.Payload, err)
		}
	}
	for range 100 {
		echo()
	}
	b.ReportAllocs()
	before := cpuTime(b)
	waited = 0
	b.ResetTimer()
	for range b.N {
		echo()
	}
	b.StopTimer()
	b.ReportMetric(float64(waited.Microseconds())/float64(b.N), "invoke-us/op")
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "server-us/op")
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// A minimal server does what a correct runtime needs and nothing else.
type minimal struct {
	idle    chan struct{}
	events  chan Event
	answers chan Answer
	server  http.Server
}

func newMinimal() *minimal {
	m := &minimal{idle: make(chan struct{}), events: make(chan Event), answers: make(chan Answer)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+invocationPath+"next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case m.idle <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		select {
		case e := <-m.events:
			h := w.Header()
			h.Set("Content-Type", "application/json")
			h.Set("Lambda-Runtime-Aws-Request-Id", e.RequestID)
			h.Set("Lambda-Runtime-Invoked-Function-Arn", e.FunctionARN)
			h.Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(e.Deadline.UnixMilli()))
			w.Write(e.Payload)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST "+invocationPath+"{id}/response", func(w http.ResponseWriter, r *http.Request) {
		payload, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		m.answers <- Answer{Payload: payload}
		w.WriteHeader(http.StatusAccepted)
		w.Write([]byte(accepted.body))
	})
	m.server.Handler = mux
	return m
}

func (m *minimal) Serve(l net.Listener) error {
	defer m.server.Close()
	return m.server.Serve(l)
}

func (m *minimal) AwaitIdle(ctx context.Context) error {
	select {
	case <-m.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *minimal) Invoke(ctx context.Context, event Event) (Answer, error) {
	select {
	case m.events <- event:
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
	select {
	case answer := <-m.answers:
		return answer, nil
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

// BenchmarkHead measures the parser alone on what AWS's Go client sends.
func BenchmarkHead(b *testing.B) {
	text := []byte("POST /2018-06-01/runtime/invocation/8476a536-e9f4-11e8-9739-2dfe598c3fcd/response HTTP/1.1\r\nHost: 169.254.100.1:9001\r\nUser-Agent: aws-lambda-go/go1.26.0\r\n" +
		"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\nTrailer: Lambda-Runtime-Function-Error-Body,Lambda-Runtime-Function-Error-Type\r\nAccept-Encoding: gzip\r\n\r\n")
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var h head
	for b.Loop() {
		if i := bytes.Index(text, emptyLine); i < 0 {
			b.Fatal("no empty line")
		}
		if err := parseHead(text, &h); err != nil {
			b.Fatal(err)
		}
	}
}
