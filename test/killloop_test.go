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

// standardAttempts is how often a client in the standard retry mode sends a call by default.
const standardAttempts = 3

// callers are clients of one kind, which call at once during a kill loop.
type callers struct {
	name     string
	first, n int // they have the numbers from first on
	attempts int // how often each sends a call at most

	// What their calls came to, guarded by killLoop.mu.
	calls    int      // answered, rightly or not
	hit      int      // of them, those with a kill in flight
	retried  int      // of them, those that were sent more than once
	failures []string // of the others, those that the standard mode tries again
	wrong    []string // calls that nothing finishes, and those that took more attempts than kills explain
}

// A killLoop kills front and worker while clients call. A kill costs a call that is in flight one attempt
// at most; the loop knows which calls those are, and lets none be hit more often than an SDK tries again.
type killLoop struct {
	t   *testing.T
	all []*callers

	mu            sync.Mutex
	flying        map[int]int // guarded by mu; client with a call in flight -> kills during it
	stale         map[int]int // guarded by mu; client between two calls -> kills that its next one may meet on its old connection
	kills, rounds int         // guarded by mu; two processes killed at once are one round
}

// begin is told before a client calls.
func (l *killLoop) begin(client int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flying[client] = l.stale[client]
	delete(l.stale, client)
}

// An outcome is how a call ended.
type outcome struct {
	verdict string // ok, failed, or final, which the standard mode does not try again
	retries int    // attempts beyond the first
	why     string // what became of the attempts
}

// end is told how a call ended.
func (l *killLoop) end(c *callers, client int, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	hits := l.flying[client]
	delete(l.flying, client)
	c.calls++
	if hits > 0 {
		c.hit++
	}
	if o.retries > 0 {
		c.retried++
	}
	told := fmt.Sprintf("%s: client %d, %d kills during its call, tried again %d times: %s: %s", c.name, client, hits, o.retries, o.verdict, o.why)
	switch {
	case o.verdict == "final" || o.retries > hits || o.verdict == "failed" && hits < c.attempts:
		c.wrong = append(c.wrong, told)
	case o.verdict == "failed":
		c.failures = append(c.failures, told)
	}
}

// kill ends processes at once if each kind of client has a call in flight and all calls can stand it. No call
// begins before they have ended, with all their threads: until then they still seem to accept what is lost.
func (l *killLoop) kill(processes map[string]int, roles ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.all {
		flying := 0
		for client := c.first; client < c.first+c.n; client++ {
			hits, flies := l.flying[client]
			if flies {
				flying++
			}
			if c.attempts > 1 && max(hits, l.stale[client])+len(roles) >= c.attempts {
				return false
			}
		}
		if flying == 0 {
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
	for _, role := range roles {
		l.await(role+" does not end", func() bool { return syscall.Kill(processes[role], 0) == syscall.ESRCH })
	}
	l.rounds++
	for _, c := range l.all {
		for client := c.first; client < c.first+c.n; client++ {
			if _, flies := l.flying[client]; flies {
				l.flying[client] += len(roles)
			} else {
				l.stale[client] += len(roles)
			}
		}
	}
	return true
}

// warm says whether every kind of client has been answered often enough for each to have begun.
func (l *killLoop) warm() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.all {
		if c.calls < 2*c.n {
			return false
		}
	}
	return true
}

// run kills about every second until the time is over: front, worker, or both.
func (l *killLoop) run(s *service.Service, length time.Duration) {
	l.t.Helper()
	l.await("the clients did not begin", l.warm)
	began := time.Now()
	for turn := 0; time.Since(began) < length && !l.t.Failed(); turn++ {
		time.Sleep(300*time.Millisecond + rand.N(700*time.Millisecond)) // at any moment of what the last kill has set off
		roles := [][]string{{"front"}, {"worker"}, {"front"}, {"front", "worker"}, {"worker"}}[turn%5]
		l.await("no calls that can stand another kill", func() bool { return l.kill(children(l.t, s), roles...) })
	}
}

// await waits longer than eventually: beside other tests a start of all clients or environments takes a while.
func (l *killLoop) await(what string, ok func() bool) {
	l.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
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
`)}, "--memory-size", "512", "--timeout", "30") // not what is tested: on a busy machine an answer takes seconds
	return s
}

// boto3 runs the clients of killloop.py until stop is closed.
func (l *killLoop) boto3(ctx context.Context, s *service.Service, c *callers, stop <-chan struct{}) error {
	command := exec.CommandContext(ctx, filepath.Join(clients, "bin", "python"), "testdata/killloop.py",
		"loop", strconv.Itoa(c.first), strconv.Itoa(c.n), strconv.Itoa(c.attempts))
	command.Env = s.Environ
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		return err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for stopped := 0; lines.Scan(); {
		words := strings.SplitN(lines.Text(), " ", 5)
		client, _ := strconv.Atoi(words[1])
		if words[0] == "end" {
			retries, _ := strconv.Atoi(words[2])
			l.end(c, client, outcome{verdict: words[3], retries: retries, why: words[4]})
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
		if stopped == c.n {
			in.Close()
		}
	}
	return errors.Join(lines.Err(), command.Wait())
}

// goSDK runs clients of the Go SDK until stop is closed.
func (l *killLoop) goSDK(ctx context.Context, c *callers, stop <-chan struct{}) error {
	var all sync.WaitGroup
	defer all.Wait()
	for client := c.first; client < c.first+c.n; client++ {
		// Each has a pool of its own: in a common one a second attempt could meet the same kill once more, on an
		// idle connection that the kernel has not closed yet.
		settings, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return err
		}
		lam := awslambda.NewFromConfig(settings)
		all.Go(func() {
			for count := 0; ; count++ {
				select {
				case <-stop:
					return
				default:
				}
				l.begin(client)
				l.end(c, client, callOnce(ctx, lam, client, count))
			}
		})
	}
	return nil
}

// callOnce says ok or final: an error is what the last attempt met, or is not for another one.
func callOnce(ctx context.Context, lam *awslambda.Client, client, count int) outcome {
	padding := strings.Repeat("x", 10)
	if count%4 == 0 {
		padding = strings.Repeat("x", 300_000)
	}
	event, err := json.Marshal(map[string]any{"client": client, "count": count, "padding": padding})
	if err != nil {
		return outcome{verdict: "final", why: err.Error()}
	}
	out, err := lam.Invoke(ctx, &awslambda.InvokeInput{FunctionName: new("loop"), Payload: event})
	if err != nil {
		return outcome{verdict: "final", why: err.Error()}
	}
	o := outcome{verdict: "ok"}
	if results, ok := retry.GetAttemptResults(out.ResultMetadata); ok {
		o.retries = len(results.Results) - 1
		for _, attempt := range results.Results {
			o.why += fmt.Sprintf("%v; ", attempt.Err)
		}
	}
	digest := sha256.Sum256([]byte(padding))
	want, err := json.Marshal([]any{client, count, hex.EncodeToString(digest[:])})
	if got := bytes.ReplaceAll(out.Payload, []byte(" "), nil); err != nil || out.FunctionError != nil || !bytes.Equal(got, want) {
		return outcome{verdict: "final", retries: o.retries, why: fmt.Sprintf("answer %s, want %s", out.Payload, want)}
	}
	return o
}

func TestStandardRetriesFinishEveryCallWhileFrontAndWorkerAreKilled(t *testing.T) {
	s := serveKillLoop(t)
	for _, v := range s.Environ {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, value) // for the Go SDK
		}
	}
	python := &callers{name: "boto3", first: 0, n: 5, attempts: standardAttempts}
	golang := &callers{name: "Go SDK", first: 5, n: 5, attempts: standardAttempts}
	// The control: what the kills do to a client that does not try again.
	control := &callers{name: "boto3 without retries", first: 10, n: 2, attempts: 1}
	l := &killLoop{t: t, all: []*callers{python, golang, control}, flying: map[int]int{}, stale: map[int]int{}}
	stop := make(chan struct{})
	var running sync.WaitGroup
	for _, run := range []func() error{
		func() error { return l.boto3(t.Context(), s, python, stop) },
		func() error { return l.boto3(t.Context(), s, control, stop) },
		func() error { return l.goSDK(t.Context(), golang, stop) },
	} {
		running.Go(func() {
			if err := run(); err != nil {
				t.Error(err)
			}
		})
	}
	l.run(s, 20*time.Second)
	close(stop)
	running.Wait()

	for _, c := range l.all {
		t.Logf("%d kills in %d rounds; %s: %d calls, %d of them hit, %d sent again, %d failed", l.kills, l.rounds, c.name, c.calls, c.hit, c.retried, len(c.failures))
		for _, w := range c.wrong {
			t.Error(w)
		}
		if c == control {
			continue
		}
		for _, f := range c.failures {
			t.Error(f)
		}
		if c.retried < l.rounds {
			t.Errorf("the kills hardly met %s: %d rounds, %d calls sent again", c.name, l.rounds, c.retried)
		}
	}
	if l.rounds < minimumRounds {
		t.Errorf("only %d rounds of kills, want %d", l.rounds, minimumRounds)
	}
	if len(control.failures) < l.rounds || control.retried > 0 {
		t.Errorf("without retries %d calls failed in %d rounds of kills: the kills test nothing", len(control.failures), l.rounds)
	}
	if out := invoke(t, s, "loop", `{"client":1,"count":2,"padding":""}`); !strings.HasPrefix(out, "[1, 2, ") {
		t.Errorf("after the kills the function answered %s", out)
	}
}

// minimumRounds of kills are possible in a loop even on a machine that is busy with other things.
const minimumRounds = 6
