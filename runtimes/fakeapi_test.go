package runtimes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// requestID is what the fake Runtime API calls its first event; the next ones count up from it.
const requestID = "8f507cfc-0000-4697-b07a-ac58fc914c9"

// A post is what a bootstrap said of one event, or of its initialisation.
type post struct {
	Path        string // below /2018-06-01/runtime
	ContentType string
	ErrorType   string
	Cause       string
	Body        string
}

// fakeAPI is a Runtime API of the simplest kind: it hands out events in order and, when there
// are no more, keeps the last next waiting until the test ends.
type fakeAPI struct {
	*httptest.Server
	headers http.Header // of every event
	events  []string

	mu          sync.Mutex // guards what follows
	given       int
	posts       []post
	connections map[string]bool
	idle        chan struct{} // closed when next is asked and no event is left
	done        chan struct{} // closed when the test is over
}

func newFakeAPI(t *testing.T, events []string, headers map[string]string) *fakeAPI {
	t.Helper()
	f := &fakeAPI{
		events: events, headers: http.Header{}, connections: map[string]bool{},
		idle: make(chan struct{}), done: make(chan struct{}),
	}
	f.headers.Set("Lambda-Runtime-Deadline-Ms", "1999999999999")
	f.headers.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
	f.headers.Set("Lambda-Runtime-Trace-Id", "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1")
	f.headers.Set("Content-Type", "application/json")
	for name, value := range headers {
		f.headers.Set(name, value)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", f.next)
	mux.HandleFunc("POST /2018-06-01/runtime/", f.post)
	f.Server = httptest.NewServer(mux)
	t.Cleanup(func() { close(f.done); f.Close() })
	return f
}

func (f *fakeAPI) next(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.connections[r.RemoteAddr] = true
	n := f.given
	f.given++
	f.mu.Unlock()
	if n >= len(f.events) {
		if n == len(f.events) {
			close(f.idle)
		}
		select {
		case <-f.done:
		case <-r.Context().Done():
		}
		return
	}
	maps.Copy(w.Header(), f.headers)
	w.Header().Set("Lambda-Runtime-Aws-Request-Id", requestID+string(rune('0'+n)))
	if f.headers.Get("Transfer-Encoding") == "chunked" { // a flush makes net/http chunk the body
		half := len(f.events[n]) / 2
		io.WriteString(w, f.events[n][:half])
		w.(http.Flusher).Flush()
		io.WriteString(w, f.events[n][half:])
		return
	}
	io.WriteString(w, f.events[n])
}

func (f *fakeAPI) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the process died while it sent
	}
	f.mu.Lock()
	f.connections[r.RemoteAddr] = true
	f.posts = append(f.posts, post{
		Path:        strings.TrimPrefix(r.URL.Path, "/2018-06-01/runtime"),
		ContentType: r.Header.Get("Content-Type"),
		ErrorType:   r.Header.Get("Lambda-Runtime-Function-Error-Type"),
		Cause:       r.Header.Get("Lambda-Runtime-Function-Xray-Error-Cause"),
		Body:        string(body),
	})
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	io.WriteString(w, `{"status":"OK"}`+"\n")
}

// A function is customer code and what happens to it in a test.
type function struct {
	files     map[string]string // below the task root
	handler   string
	events    []string
	headers   map[string]string // of every event, added to the usual ones
	variables map[string]string
}

// An outcome is what a process that ran a function left behind.
type outcome struct {
	posts       []post
	output      string // both streams
	exit        int    // -1 if it was still running, idle, when the test stopped it
	connections int    // that it made to the Runtime API
	root        string // the task root
}

// run starts a bootstrap as a plain process and returns when it ended or has no more events.
func run(t *testing.T, command []string, fn function) outcome {
	t.Helper()
	root := t.TempDir()
	for name, content := range fn.files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	api := newFakeAPI(t, fn.events, fn.headers)
	own, err := filepath.Abs("bootstrap")
	if err != nil {
		t.Fatal(err)
	}
	variables := map[string]string{
		"AWS_LAMBDA_RUNTIME_API": strings.TrimPrefix(api.URL, "http://"), "_HANDLER": fn.handler,
		"LAMBDA_TASK_ROOT": root, "LAMBDA_RUNTIME_DIR": own, "LANG": "C.UTF-8", "TZ": ":UTC", "PATH": "/usr/bin:/bin",
		"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
		"AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f", "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/23/[$LATEST]0", "PYTHONDONTWRITEBYTECODE": "1",
	}
	maps.Copy(variables, fn.variables)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	process := exec.CommandContext(ctx, command[0], command[1:]...)
	process.Dir = root
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		process.Env = append(process.Env, name+"="+variables[name])
	}
	var output bytes.Buffer
	process.Stdout, process.Stderr = &output, &output
	// A bootstrap may have children that hold its output open: all of them are ended together.
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	process.Cancel = func() error { return syscall.Kill(-process.Process.Pid, syscall.SIGKILL) }
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	out := outcome{root: root}
	select {
	case err = <-ended:
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			out.exit = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
	case <-api.idle:
		out.exit = -1
		process.Cancel()
		<-ended
	}
	if ctx.Err() != nil {
		t.Fatalf("the process neither ended nor asked for the next event within a minute; its output:\n%s", output.String())
	}
	api.mu.Lock()
	defer api.mu.Unlock()
	out.posts, out.output, out.connections = api.posts, output.String(), len(api.connections)
	return out
}

// one returns the only post of an outcome.
func (o outcome) one(t *testing.T) post {
	t.Helper()
	if len(o.posts) != 1 {
		t.Fatalf("%d posts, want 1: %+v\noutput:\n%s", len(o.posts), o.posts, o.output)
	}
	return o.posts[0]
}
