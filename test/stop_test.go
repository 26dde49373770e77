package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"

	"cloister/test/service"
)

// goClient is a client of the Go SDK with a connection pool of its own, and without retries.
func goClient(t *testing.T, s *service.Service) *awslambda.Client {
	t.Helper()
	for _, v := range s.Environ {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, value)
		}
	}
	c, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return awslambda.NewFromConfig(c)
}

// A record of what the service has promised: names of answered calls, and of answers that are none.
type record struct {
	mu       sync.Mutex
	promised map[string]bool // guarded by mu
	refused  []error         // guarded by mu; refusals by a service that could be reached
}

// note keeps the outcome of a call and says whether the service can still be reached.
func (r *record) note(name string, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.promised[name] = true
		return true
	}
	if _, answered := errors.AsType[smithy.APIError](err); answered {
		r.refused = append(r.refused, fmt.Errorf("%s: %w", name, err))
		return true
	}
	return false
}

// invokeUntilGone calls the function "echo" of a service that is about to end, and returns the names of the
// calls that were answered.
func invokeUntilGone(t *testing.T, s *service.Service, callers int) (wait func() *record) {
	t.Helper()
	r := &record{promised: map[string]bool{}}
	var all sync.WaitGroup
	for caller := range callers {
		client := goClient(t, s)
		all.Go(func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("call-%d-%d", caller, n)
				out, err := client.Invoke(context.Background(), &awslambda.InvokeInput{FunctionName: new("echo"), Payload: []byte(`"` + name + `"`)})
				if err == nil && (out.FunctionError != nil || string(out.Payload) != `"`+name+`"`) {
					t.Errorf("%s was answered %s", name, out.Payload)
				}
				if !r.note(name, err) {
					return
				}
			}
		})
	}
	return func() *record { all.Wait(); return r }
}

// deployUntilGone makes functions on a service that is about to end, and returns the names of those that it
// has acknowledged.
func deployUntilGone(t *testing.T, s *service.Service, role string) (wait func() *record) {
	t.Helper()
	client := goClient(t, s)
	zip, err := service.Zip(app)
	if err != nil {
		t.Fatal(err)
	}
	r := &record{promised: map[string]bool{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			name := fmt.Sprintf("deployed-%d", n)
			_, err := client.CreateFunction(context.Background(), &awslambda.CreateFunctionInput{FunctionName: &name, Runtime: types.Runtime(python()),
				Handler: new("app.handler"), Role: &role, Code: &types.FunctionCode{ZipFile: zip}})
			if !r.note(name, err) {
				return
			}
		}
	}()
	return func() *record { <-done; return r }
}

// check ends the test unless the service has kept that many promises to be looked at, and never refused.
func (r *record) check(t *testing.T, what string, least int) {
	t.Helper()
	for _, err := range r.refused {
		t.Errorf("a service that ends refused: %v", err)
	}
	if len(r.promised) < least {
		t.Fatalf("%d %s: the load is too low to show anything", len(r.promised), what)
	}
}

func TestAStopUnderLoadAnswersEveryCallThatRanAndLosesNothing(t *testing.T) {
	s := start(t)
	create(t, s, "echo", map[string][]byte{"app.py": []byte(`
import time
def handler(event, context):
    print("ran <" + event + ">")
    time.sleep(0.1)
    return event
`)})
	invocations, deployments := invokeUntilGone(t, s, 6), deployUntilGone(t, s, makeRole(t, s, "deployed", ""))
	time.Sleep(4 * time.Second) // of load, not for something to happen
	if err := s.Stop(); err != nil {
		t.Errorf("the stop: %v", err)
	}
	answered, deployed := invocations(), deployments()
	answered.check(t, "calls", 20)
	deployed.check(t, "deployments", 2)
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	ran := map[string]bool{}
	for _, line := range regexp.MustCompile(`ran <(call-\d+-\d+)>`).FindAllStringSubmatch(logText(t, s, "/aws/lambda/echo"), -1) {
		ran[line[1]] = true
		if !answered.promised[line[1]] {
			t.Errorf("%s ran and was not answered", line[1])
		}
	}
	for name := range answered.promised {
		if !ran[name] {
			t.Errorf("%s was answered and its log line is lost", name)
		}
	}
	areActive(t, s, deployed)
}

func TestAKillOfEverythingUnderLoadLosesNoDeploymentThatWasAcknowledged(t *testing.T) {
	s := start(t)
	deployments := deployUntilGone(t, s, makeRole(t, s, "deployed", ""))
	time.Sleep(3 * time.Second) // of load
	pids := children(t, s)
	s.Kill()
	for _, pid := range pids { // they may have ended by themselves
		syscall.Kill(pid, syscall.SIGKILL)
	}
	deployed := deployments()
	deployed.refused = nil // while the parts die one after the other
	deployed.check(t, "deployments", 2)
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	areActive(t, s, deployed)
}

// areActive checks that every promised function is there and becomes active.
func areActive(t *testing.T, s *service.Service, r *record) {
	t.Helper()
	client := goClient(t, s)
	for name := range r.promised {
		waiter := awslambda.NewFunctionActiveV2Waiter(client, func(o *awslambda.FunctionActiveV2WaiterOptions) { o.MinDelay = 50 * time.Millisecond })
		if err := waiter.Wait(t.Context(), &awslambda.GetFunctionInput{FunctionName: &name}, 30*time.Second); err != nil {
			t.Errorf("%s was acknowledged: %v", name, err)
		}
	}
}

func TestAServeThatIsKilledIsFollowedByAnotherWhenItsProcessesHaveEnded(t *testing.T) {
	data := t.TempDir()
	killed := start(t, func(c *service.Config) { c.Data = data })
	create(t, killed, "f", app)
	invoke(t, killed, "f", `{"name":"a"}`)
	orphans := children(t, killed)
	if err := syscall.Kill(killed.PID(), syscall.SIGKILL); err != nil { // front and worker are left to themselves
		t.Fatal(err)
	}
	next := start(t, func(c *service.Config) { c.Data = data })
	killed.Kill() // collects it
	for role, pid := range orphans {
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil && !strings.Contains(string(status), "State:\tZ") {
			t.Errorf("the %s of the killed serve lives beside the next one", role)
		}
	}
	if got := invoke(t, next, "f", `{"name":"b"}`); !strings.Contains(got, "Hello, b") {
		t.Error(got)
	}
}

func TestAServeWaitsForAWorkerThatDoesNotEnd(t *testing.T) {
	data := t.TempDir()
	s := start(t, func(c *service.Config) { c.Data = data })
	s.Kill()
	// What a worker still has open when its serve was killed and it takes its time.
	socket := filepath.Join("/run/cloister", s.ID, "worker.sock")
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	worker, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() { started <- s.Restart(t.Context()) }()
	select {
	case err := <-started:
		t.Errorf("started beside a worker of the killed serve: %v", err)
		worker.Close()
	case <-time.After(time.Second):
		worker.Close()
		if err := <-started; err != nil {
			t.Error(err)
		}
	}
}
