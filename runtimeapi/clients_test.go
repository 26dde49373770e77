package runtimeapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloister/lambda"
)

// The runtime clients under test, unmodified.
var pythonClient = []string{"awslambdaric==4.2.2", "simplejson==3.20.2", "snapshot-restore-py==1.0.0"}

const testFunctionARN = "arn:aws:lambda:us-east-1:123456789012:function:test:live"

// A clientRuntime is a function on one of AWS's runtime clients, running against a server.
type clientRuntime struct {
	t       testing.TB
	server  *Server
	output  *bytes.Buffer // complete when exited is closed
	exited  chan struct{}
	command *exec.Cmd
	count   int
}

func startClient(t testing.TB, command *exec.Cmd) *clientRuntime {
	t.Helper()
	server, address := serve(t, Config{})
	r := &clientRuntime{t: t, server: server, command: command, output: new(bytes.Buffer), exited: make(chan struct{})}
	command.Env = append(command.Env, "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "AWS_LAMBDA_RUNTIME_API="+address, "AWS_LAMBDA_FUNCTION_NAME=test", "AWS_LAMBDA_FUNCTION_VERSION=1",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128", "AWS_LAMBDA_LOG_GROUP_NAME=group", "AWS_LAMBDA_LOG_STREAM_NAME=stream")
	command.Stdout, command.Stderr = r.output, r.output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		command.Wait()
		close(r.exited)
	}()
	t.Cleanup(func() {
		command.Process.Kill()
		<-r.exited
		if t.Failed() {
			t.Logf("the runtime's output:\n%s", r.output)
		}
	})
	return r
}

// invoke calls the function and waits until it asks for the next event.
func (r *clientRuntime) invoke(payload, clientContext string) Answer {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	r.count++
	event := Event{RequestID: fmt.Sprintf("8476a536-e9f4-11e8-9739-%012d", r.count), FunctionARN: testFunctionARN, ClientContext: clientContext,
		Deadline: time.Now().Add(time.Minute), Payload: []byte(payload)}
	answer, err := r.server.Invoke(ctx, event)
	if err == nil {
		err = r.server.AwaitIdle(ctx)
	}
	if err != nil {
		r.t.Fatalf("event %d: %v", r.count, err)
	}
	return answer
}

func (r *clientRuntime) wantEcho(value string) {
	r.t.Helper()
	answer := r.invoke(`{"echo":`+value+`}`, "")
	if answer.FunctionError || !sameJSON(answer.Payload, []byte(value)) {
		r.t.Fatalf("echo of %.100s: got %.100s, error %t", value, answer.Payload, answer.FunctionError)
	}
}

func sameJSON(a, b []byte) bool {
	var left, right any
	if json.Unmarshal(a, &left) != nil || json.Unmarshal(b, &right) != nil {
		return false
	}
	a, _ = json.Marshal(left)
	b, _ = json.Marshal(right)
	return bytes.Equal(a, b)
}

// exercise runs what every client must do.
func (r *clientRuntime) exercise() {
	t := r.t
	for i := range 180 {
		r.wantEcho(fmt.Sprintf(`{"number":%d,"text":"Grüße, 世界 🌍 \u0000\n"}`, i))
	}
	for i := range 20 {
		answer := r.invoke(fmt.Sprintf(`{"fail":"mistake %d: ü"}`, i), "")
		var report struct{ ErrorMessage, ErrorType string }
		if err := json.Unmarshal(answer.Payload, &report); err != nil || !answer.FunctionError || report.ErrorMessage != fmt.Sprintf("mistake %d: ü", i) || report.ErrorType == "" {
			t.Fatalf("error %d: got %s, function error %t", i, answer.Payload, answer.FunctionError)
		}
	}
	large := `"` + strings.Repeat("x", lambda.MaxPayloadBytes-len(`{"echo":""}`)) + `"`
	r.wantEcho(large)
	if answer := r.invoke(fmt.Sprintf(`{"size":%d}`, lambda.MaxResponseBytes), ""); len(answer.Payload) != lambda.MaxResponseBytes || answer.FunctionError {
		t.Fatalf("largest response: got %d bytes, function error %t", len(answer.Payload), answer.FunctionError)
	}
	var known struct {
		ID, ARN string
		Client  map[string]string
	}
	answer := r.invoke(`{"context":true}`, "{\n\t\"custom\": {\"city\": \"Zürich\"}}")
	if err := json.Unmarshal(answer.Payload, &known); err != nil || known.ARN != testFunctionARN || !strings.HasSuffix(known.ID, fmt.Sprint(r.count)) || known.Client["city"] != "Zürich" {
		t.Fatalf("context: got %s, error %v", answer.Payload, err)
	}
}

// tooLarge asks for a response over the limit and returns what the caller gets.
func (r *clientRuntime) tooLarge() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	answer, err := r.server.Invoke(ctx, Event{RequestID: "too-large", Deadline: time.Now().Add(time.Minute), Payload: fmt.Appendf(nil, `{"size":%d}`, lambda.MaxResponseBytes+1)})
	if err != nil || !answer.FunctionError || answer.ErrorType != "Function.ResponseSizeTooLarge" {
		r.t.Fatalf("got %.100s %s, error %v", answer.Payload, answer.ErrorType, err)
	}
}

func (r *clientRuntime) wantExit() {
	r.t.Helper()
	select {
	case <-r.exited:
	case <-time.After(30 * time.Second):
		r.t.Fatal("the runtime has not exited")
	}
}

// buildGoRuntime compiles testdata/goruntime.
func buildGoRuntime(t testing.TB) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "bootstrap")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./testdata/goruntime")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the Go runtime: %v\n%s", err, output)
	}
	return binary
}

func TestAWSsGoClientWorksUnmodified(t *testing.T) {
	binary := buildGoRuntime(t)
	r := startClient(t, exec.CommandContext(t.Context(), binary))
	if init, err := r.server.AwaitInit(t.Context()); err != nil || !init.Ready {
		t.Fatalf("init: %+v, error %v", init, err)
	}
	r.exercise()
	r.tooLarge()
	r.wantExit() // it takes the 413 for fatal

	r = startClient(t, exec.CommandContext(t.Context(), binary))
	answer, err := r.server.Invoke(t.Context(), Event{RequestID: "panics", Deadline: time.Now().Add(time.Minute), Payload: []byte(`{"panic":"no"}`)})
	if err != nil || !answer.FunctionError || !strings.Contains(string(answer.Payload), `"errorMessage":"no"`) {
		t.Fatalf("panic: got %s, error %v", answer.Payload, err)
	}
	r.wantExit()
}

func TestAWSsPythonClientWorksUnmodified(t *testing.T) {
	packages := installPythonClient(t)
	r := startClient(t, python(t, packages, "function.handle"))
	if init, err := r.server.AwaitInit(t.Context()); err != nil || !init.Ready {
		t.Fatalf("init: %+v, error %v", init, err)
	}
	r.exercise()
	r.tooLarge()
	r.wantExit() // it takes the 413 for fatal
}

func TestAWSsPythonClientReportsAFailedInit(t *testing.T) {
	r := startClient(t, python(t, installPythonClient(t), "broken.handle"))
	init, err := r.server.AwaitInit(t.Context())
	if err != nil || init.Ready || init.Error == nil || !strings.Contains(string(init.Error.Payload), "it broke while it was loaded") {
		t.Fatalf("init: %+v, error %v", init, err)
	}
	r.wantExit()
}

func python(t *testing.T, packages, handler string) *exec.Cmd {
	t.Helper()
	functions, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "/usr/bin/python3", "-B", "-m", "awslambdaric", handler)
	command.Dir = t.TempDir()
	command.Env = []string{"PYTHONPATH=" + packages + ":" + functions}
	return command
}

// installPythonClient puts pythonClient into the user's cache, once for each interpreter.
func installPythonClient(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	version, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		t.Fatalf("the host's /usr/bin/python3: %v", err)
	}
	target := filepath.Join(cache, "cloister-test", strings.Join(pythonClient, "+")+"+py"+strings.TrimSpace(string(version)))
	if _, err := os.Stat(target); err == nil {
		return target
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(target), "new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	install := exec.CommandContext(t.Context(), "/usr/bin/python3", append([]string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
		"--only-binary=:all:", "--target", fresh}, pythonClient...)...)
	if output, err := install.CombinedOutput(); err != nil {
		t.Fatalf("install the Python client: %v\n%s", err, output)
	}
	if err := os.Rename(fresh, target); err != nil {
		if _, found := os.Stat(target); found != nil { // another test may have been first
			t.Fatal(err)
		}
	}
	return target
}
