package runtimeapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/runtimeapi/internal/script"
)

// A scriptTarget is our server as the sequences see it.
type scriptTarget struct {
	t       *testing.T
	server  *Server
	address string
	events  int
}

func (s *scriptTarget) Address() string { return s.address }

func (s *scriptTarget) Parked(n int) {
	waitFor(s.t, fmt.Sprintf("%d waiting requests", n), func() bool { return len(s.server.waiting) == n }, s.server)
}

func (s *scriptTarget) Invoke(payload []byte, clientContext string) <-chan string {
	s.events++
	event := Event{
		RequestID:     fmt.Sprintf("%08d-aaaa-bbbb-cccc-000000000000", s.events),
		FunctionARN:   "arn:aws:lambda:us-east-1:012345678912:function:test_function",
		ClientContext: clientContext,
		Deadline:      time.Now().Add(time.Minute),
		Payload:       payload,
	}
	answer := make(chan string, 1)
	go func() {
		got, err := s.server.Invoke(s.t.Context(), event)
		if err != nil {
			answer <- err.Error()
			return
		}
		answer <- string(got.Payload)
	}()
	waitFor(s.t, "the invocation to begin", func() bool {
		return s.server.current != nil && s.server.current.event.RequestID == event.RequestID
	}, s.server)
	return answer
}

func TestEverySequenceIsAnsweredAsByTheEmulator(t *testing.T) {
	text, err := os.ReadFile("testdata/emulator.json")
	if err != nil {
		t.Fatal(err)
	}
	var table script.Table
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	sequences := script.Sequences()
	if len(table.Sequences) != len(sequences) || len(table.Commit) != 40 {
		t.Fatalf("the table of commit %q has %d sequences, want %d: record it again", table.Commit, len(table.Sequences), len(sequences))
	}
	for _, sequence := range sequences {
		t.Run(sequence.Name, func(t *testing.T) {
			recorded, ok := table.Sequences[sequence.Name]
			if !ok {
				t.Fatal("not recorded: record the table again")
			}
			server, address := serve(t, Config{})
			got, err := script.Play(&scriptTarget{t: t, server: server, address: address}, sequence)
			if err != nil {
				t.Fatal(err)
			}
			compareReplies(t, sequence, recorded, got)
		})
	}
}

// compareReplies also holds each declared difference to be one.
func compareReplies(t *testing.T, sequence script.Sequence, recorded, got []script.Reply) {
	t.Helper()
	steps := sequence.Replies()
	if len(recorded) != len(steps) || len(got) != len(steps) {
		t.Fatalf("%d recorded and %d own replies to %d steps: record the table again", len(recorded), len(got), len(steps))
	}
	for i, step := range steps {
		want := recorded[i]
		if step.Ours != nil {
			want = *step.Ours
			want.Step = recorded[i].Step
			if cmp.Equal(withHeaders(want), withHeaders(recorded[i])) {
				t.Errorf("%s: declared as a difference (%s), but the emulator answers the same", step, step.Because)
			}
			if step.Because == "" {
				t.Errorf("%s: a difference without a reason", step)
			}
		}
		if diff := cmp.Diff(withHeaders(want), withHeaders(got[i])); diff != "" {
			t.Errorf("%s: answer differs (-want +got):\n%s", step, diff)
		}
	}
}

func withHeaders(r script.Reply) script.Reply {
	if r.Headers == nil {
		r.Headers = map[string]string{}
	}
	return r
}

// serve runs a server on a loopback port until the test ends.
func serve(t testing.TB, config Config) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := New(config)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve has not returned 10 s after its listener was closed")
		}
	})
	return server, l.Addr().String()
}

// waitFor blocks until condition, called with the server's mutex held, is true.
func waitFor(t testing.TB, what string, condition func() bool, server *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		server.mu.Lock()
		done := condition()
		server.mu.Unlock()
		if done {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited 10 s for %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}
