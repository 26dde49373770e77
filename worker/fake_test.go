package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloister/lambda"
	"cloister/runtimes"
	"cloister/sandbox"
)

// backend makes sandboxes without walls: processes are goroutines that speak the Runtime API. It
// shows the worker's own behaviour, freezes and ends included, under the race detector; walls are
// shown by sandbox/sandboxtest.
type backend struct {
	program func(p *process)
	parked  atomic.Int64
	live    atomic.Int64
}

func (b *backend) Level() sandbox.Level           { return sandbox.Native }
func (b *backend) SelfTest(context.Context) error { return nil }
func (b *backend) Sweep(context.Context) error    { return nil }
func (b *backend) Close() error                   { return nil }
func (b *backend) Park(context.Context, sandbox.Class) (sandbox.Sandbox, error) {
	api, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	services, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.parked.Add(1)
	b.live.Add(1)
	return &box{backend: b, api: api, services: services}, nil
}

type box struct {
	backend       *backend
	api, services net.Listener

	mu        sync.Mutex
	processes []*process
	freezes   int
	frozen    bool
	destroyed bool
}

func (b *box) ID() string                { return fmt.Sprintf("%p", b) }
func (b *box) RuntimeAPI() net.Listener  { return b.api }
func (b *box) RuntimeAPIAddress() string { return b.api.Addr().String() }
func (b *box) Services() net.Listener    { return b.services }
func (b *box) ServicesAddress() string   { return b.services.Addr().String() }
func (b *box) Attach(context.Context, []sandbox.Mount, sandbox.Limits) error {
	return nil
}
func (b *box) SetCPU(float64) error { return nil }
func (b *box) Start(_ context.Context, p sandbox.Process) (sandbox.Running, error) {
	out, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", p.Stdout.Fd()), os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	ctx, kill := context.WithCancel(context.Background())
	running := &process{box: b, ctx: ctx, kill: kill, out: out, api: new(http.Transport), done: make(chan struct{})}
	b.mu.Lock()
	b.processes = append(b.processes, running)
	b.mu.Unlock()
	go func() {
		b.backend.program(running)
		out.Close()
		running.api.CloseIdleConnections()
		close(running.done)
	}()
	return running, nil
}
func (b *box) KillAll(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.processes {
		p.kill()
		<-p.done
	}
	b.processes, b.frozen = nil, false
	return nil
}
func (b *box) Freeze(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen = true
	b.freezes++
	return nil
}
func (b *box) Thaw(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen = false
	return nil
}
func (b *box) MemoryPeak() (int64, error) { return 10 << 20, nil }

func (b *box) Usage() (sandbox.Usage, error) { return sandbox.Usage{MemoryPeakBytes: 10 << 20}, nil }
func (b *box) Destroy(ctx context.Context) error {
	b.KillAll(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.destroyed {
		b.destroyed = true
		b.api.Close()
		b.services.Close()
		b.backend.live.Add(-1)
	}
	return nil
}

// process is a runtime as a goroutine.
type process struct {
	box  *box
	ctx  context.Context
	kill context.CancelFunc
	out  *os.File
	api  *http.Transport // its own, for connections end with a process
	exit sandbox.Exit
	done chan struct{}
}

func (p *process) Wait() sandbox.Exit {
	<-p.done
	return p.exit
}
func (p *process) Done() <-chan struct{} { return p.done }

// call makes one request to the Runtime API; an empty id means that the process was killed.
func (p *process) call(method, path, body string) (id, answer string) {
	r, err := http.NewRequestWithContext(p.ctx, method, "http://"+p.box.RuntimeAPIAddress()+"/2018-06-01/runtime"+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if strings.HasSuffix(path, "error") {
		r.Header.Set("Lambda-Runtime-Function-Error-Type", "Runtime.ImportModuleError")
	}
	response, err := p.api.RoundTrip(r)
	if err != nil {
		p.exit = sandbox.Exit{Code: -1, Signal: 9}
		return "", ""
	}
	defer response.Body.Close()
	b, _ := io.ReadAll(response.Body)
	return response.Header.Get("Lambda-Runtime-Aws-Request-Id"), string(b)
}

// serve answers events by do until the process ends; do returning false ends it.
func serve(do func(p *process, id, event string) bool) func(*process) {
	return func(p *process) {
		for {
			id, event := p.call("GET", "/invocation/next", "")
			if id == "" || !do(p, id, event) {
				return
			}
		}
	}
}

func (p *process) answer(id, body string) bool {
	p.call("POST", "/invocation/"+id+"/response", body)
	return true
}

// upstream has code for everybody and keeps the log.
type upstream struct {
	fetches atomic.Int64
	refuse  func(grant string) error // nil refuses nothing

	mu   sync.Mutex
	text bytes.Buffer
}

func (u *upstream) Fetch(_ context.Context, grant string, _ lambda.Artifact, w io.Writer) error {
	u.fetches.Add(1)
	if u.refuse != nil {
		if err := u.refuse(grant); err != nil {
			return err
		}
	}
	_, err := w.Write([]byte("image"))
	return err
}
func (u *upstream) Append(_, _, _ string, events []lambda.LogEvent) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range events {
		u.text.WriteString(e.Message)
	}
}
func (u *upstream) Flush(context.Context) {}
func (u *upstream) log() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.text.String()
}
func (u *upstream) Pipe(context.Context) (net.Conn, error) {
	inside, outside := net.Pipe()
	go func() { io.Copy(outside, outside); outside.Close() }()
	return inside, nil
}

// catalog has every runtime.
type catalog struct{}

func (c catalog) List(context.Context) []runtimes.Offer { return nil }
func (c catalog) Resolve(_ context.Context, identifier string) (runtimes.Runtime, error) {
	if identifier == "absent" {
		return runtimes.Runtime{}, errors.New("no such runtime")
	}
	return runtimes.Runtime{Identifier: identifier, VersionARN: "arn:aws:lambda:us-east-1::runtime:x", Bootstrap: []string{"/bootstrap"}, Key: identifier, File: os.DevNull}, nil
}

// newHost returns a host whose functions run the program.
func newHost(t *testing.T, program func(*process), change ...func(*Config)) (*Host, *backend, *upstream) {
	t.Helper()
	b, u := &backend{program: program}, new(upstream)
	c := Config{Backend: b, Runtimes: catalog{}, Upstream: u, Region: "us-east-1", Logger: slog.New(slog.DiscardHandler), Parked: -1}
	for _, f := range change {
		f(&c)
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Close(context.Background())
		if n := b.live.Load(); n != 0 {
			t.Errorf("%d sandboxes outlived the host", n)
		}
	})
	return h, b, u
}

func spec() lambda.EnvironmentSpec {
	return lambda.EnvironmentSpec{
		Version: lambda.Version{
			ID: lambda.VersionID{AccountID: "1", FunctionName: "f", Version: "$LATEST"}, Runtime: "python3.11", MemoryMiB: 128,
			Timeout: time.Second, EphemeralMiB: 512, Code: lambda.Artifact{ID: "code", Owner: "1", Size: 5}, LogGroup: "/aws/lambda/f",
		},
		LogStream: "stream",
	}
}

func createEnvironment(t *testing.T, h *Host, s lambda.EnvironmentSpec) string {
	t.Helper()
	id, err := h.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func run(t *testing.T, h *Host, id, event string) *lambda.Result {
	t.Helper()
	for {
		result, err := h.Invoke(t.Context(), id, &lambda.Invocation{RequestID: "8a1b", Payload: []byte(event), LogTail: true})
		if lambda.KindOf(err) == lambda.Busy {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
}
