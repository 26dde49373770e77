package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"

	"cloister/test/service"
)

// callers are how many clients call at once in a kill loop.
const callers = 10

// standardAttempts is how often a client in the standard retry mode sends a call by default.
const standardAttempts = 3

// A killLoop kills front and worker while clients call. A kill costs a call that is in flight one attempt
// at most; the loop knows which calls those are, and lets none be hit more often than an SDK tries again.
type killLoop struct {
	t *testing.T

	mu     sync.Mutex
	flying map[int]int // guarded by mu; client with a call in flight -> kills during it
	stale  map[int]int // guarded by mu; client between two calls -> kills that its next one may meet on its old connection
	tally
}

// tally is what a kill loop came to.
type tally struct {
	kills    int      // of a process
	rounds   int      // of kills: two processes killed at once are one
	calls    int      // answered, rightly or not
	hit      int      // of them, those with a kill in flight
	retried  int      // of them, those that were sent more than once
	failures []string // of the others
}

func (l *killLoop) begin(client int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flying[client] = l.stale[client]
	delete(l.stale, client)
}

func (l *killLoop) end(client, retries int, problem string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.flying[client] > 0 {
		l.hit++
	}
	if retries > 0 {
		l.retried++
	}
	if problem != "" {
		l.failures = append(l.failures, fmt.Sprintf("client %d, %d kills during its call: %s", client, l.flying[client], problem))
	}
	delete(l.flying, client)
}

// kill ends processes at once if there are calls in flight and each can stand it. No call begins meanwhile.
func (l *killLoop) kill(processes map[string]int, roles ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.flying) == 0 {
		return false
	}
	for _, hits := range l.flying {
		if hits+len(roles) >= standardAttempts {
			return false
		}
	}
	for _, role := range roles {
		if processes[role] == 0 {
			return false // it is being started
		}
	}
	for _, role := range roles {
		if err := syscall.Kill(processes[role], syscall.SIGKILL); err != nil {
			l.t.Errorf("kill %s: %v", role, err)
		}
		l.kills++
	}
	l.rounds++
	for client := range callers {
		if _, flies := l.flying[client]; flies {
			l.flying[client] += len(roles)
		} else {
			l.stale[client] += len(roles)
		}
	}
	return true
}

// answered says whether there were calls enough for every client to have begun.
func (l *killLoop) answered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls >= 2*callers
}

// run kills about every second until the time is over: front, worker, or both.
func (l *killLoop) run(s *service.Service, length time.Duration) {
	l.t.Helper()
	l.await("the clients did not begin", l.answered)
	began := time.Now()
	for turn := 0; time.Since(began) < length; turn++ {
		time.Sleep(500*time.Millisecond + rand.N(700*time.Millisecond))
		roles := [][]string{{"front"}, {"worker"}, {"front"}, {"front", "worker"}, {"worker"}}[turn%5]
		l.await("no calls that can stand another kill", func() bool { return l.kill(children(l.t, s), roles...) })
	}
}

// await waits longer than eventually: beside other tests a start of ten clients or environments takes a while.
func (l *killLoop) await(what string, ok func() bool) {
	l.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			l.t.Error(what)
			return
		}
	}
}

// serveKillLoop makes a function of which the answer proves that it is the one of the event.
func serveKillLoop(t *testing.T) *service.Service {
	t.Helper()
	s := start(t)
	create(t, s, "loop", map[string][]byte{"app.py": []byte(`
import hashlib, time
def handler(event, context):
    time.sleep(0.05)
    return [event["client"], event["count"], hashlib.sha256(event["padding"].encode()).hexdigest()]
`)}, "--memory-size", "512")
	return s
}

// boto3 runs the clients of killloop.py until stop is closed.
func (l *killLoop) boto3(ctx context.Context, s *service.Service, attempts int, stop <-chan struct{}) error {
	c := exec.CommandContext(ctx, filepath.Join(clients, "bin", "python"), "testdata/killloop.py", "loop", strconv.Itoa(callers), strconv.Itoa(attempts))
	c.Env = s.Environ
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for stopped := 0; lines.Scan(); {
		words := strings.SplitN(lines.Text(), " ", 4)
		client, _ := strconv.Atoi(words[1])
		if words[0] == "end" {
			retries, _ := strconv.Atoi(words[2])
			l.end(client, retries, strings.TrimPrefix(words[3], "ok"))
			continue
		}
		leave := "go"
		select {
		case <-stop:
			leave = "stop"
			stopped++
		default:
			l.begin(client)
		}
		fmt.Fprintln(in, leave, client)
		if stopped == callers {
			in.Close()
		}
	}
	return errors.Join(lines.Err(), c.Wait())
}

// goSDK runs as many clients of the Go SDK until stop is closed.
func (l *killLoop) goSDK(ctx context.Context, s *service.Service, stop <-chan struct{}) error {
	for _, v := range s.Environ {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			l.t.Setenv(name, value)
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	for client := range callers {
		// Each has a pool of its own: in a common one a second attempt could meet the same kill once more, on an
		// idle connection that the kernel has not closed yet.
		c, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return err
		}
		lam := awslambda.NewFromConfig(c)
		all.Go(func() {
			for count := 0; ; count++ {
				select {
				case <-stop:
					return
				default:
				}
				l.begin(client)
				retries, problem := callOnce(ctx, lam, client, count)
				l.end(client, retries, problem)
			}
		})
	}
	return nil
}

func callOnce(ctx context.Context, lam *awslambda.Client, client, count int) (retries int, problem string) {
	padding := strings.Repeat("x", 10)
	if count%4 == 0 {
		padding = strings.Repeat("x", 300_000)
	}
	event, err := json.Marshal(map[string]any{"client": client, "count": count, "padding": padding})
	if err != nil {
		return 0, err.Error()
	}
	out, err := lam.Invoke(ctx, &awslambda.InvokeInput{FunctionName: new("loop"), Payload: event})
	if err != nil {
		return 0, err.Error()
	}
	if results, ok := retry.GetAttemptResults(out.ResultMetadata); ok {
		retries = len(results.Results) - 1
	}
	digest := sha256.Sum256([]byte(padding))
	want, err := json.Marshal([]any{client, count, hex.EncodeToString(digest[:])})
	if got := bytes.ReplaceAll(out.Payload, []byte(" "), nil); err != nil || out.FunctionError != nil || !bytes.Equal(got, want) {
		return retries, fmt.Sprintf("answer %s, want %s", out.Payload, want)
	}
	return retries, ""
}

// during runs clients while the processes are killed.
func during(t *testing.T, s *service.Service, length time.Duration, run func(*killLoop, <-chan struct{}) error) tally {
	t.Helper()
	l := &killLoop{t: t, flying: map[int]int{}, stale: map[int]int{}}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- run(l, stop) }()
	l.run(s, length)
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("%d kills in %d rounds, all with calls in flight; %d calls, %d of them hit, %d sent again, %d failed",
		l.kills, l.rounds, l.calls, l.hit, l.retried, len(l.failures))
	return l.tally
}

func TestStandardRetriesFinishEveryCallWhileFrontAndWorkerAreKilled(t *testing.T) {
	s := serveKillLoop(t)
	for name, run := range map[string]func(*killLoop, <-chan struct{}) error{
		"boto3":  func(l *killLoop, stop <-chan struct{}) error { return l.boto3(t.Context(), s, standardAttempts, stop) },
		"Go SDK": func(l *killLoop, stop <-chan struct{}) error { return l.goSDK(t.Context(), s, stop) },
	} {
		got := during(t, s, 22*time.Second, run)
		for _, f := range got.failures {
			t.Errorf("%s: %s", name, f)
		}
		if got.retried < got.rounds {
			t.Errorf("%s: the kills hardly met a call: %d rounds, %d calls sent again", name, got.rounds, got.retried)
		}
	}
	// A control: it is the retries that finish the calls.
	got := during(t, s, 6*time.Second, func(l *killLoop, stop <-chan struct{}) error { return l.boto3(t.Context(), s, 1, stop) })
	if len(got.failures) < got.rounds || got.retried > 0 {
		t.Errorf("without retries %d of %d calls failed in %d rounds of kills: the kills test nothing", len(got.failures), got.calls, got.rounds)
	}
	if out := invoke(t, s, "loop", `{"client":1,"count":2,"padding":""}`); !strings.HasPrefix(out, "[1, 2, ") {
		t.Errorf("after the kills the function answered %s", out)
	}
}
