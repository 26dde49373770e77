// Package script plays sequences of Runtime API requests against a server and writes down what
// it answers. The recorder plays them against AWS's emulator, the tests of package runtimeapi
// against ours; both must come to the same table but for the differences that a step declares.
//
// It is not part of the product and knows nothing of how either server is started: a Target
// does. No attacker has a say here.
package script

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answerTimeout bounds every wait for a server.
const answerTimeout = 10 * time.Second

// A Target is a running server with one environment, whose runtime the player plays.
type Target interface {
	// Address is where the Runtime API listens.
	Address() string
	// Invoke starts an invocation and returns at once. The channel gets the payload of the
	// answer; it has room for it.
	Invoke(payload []byte, clientContext string) <-chan string
	// Parked blocks until n requests for the next event are waiting in the server.
	Parked(n int)
}

// A Step is one thing that the player does. Make it with the functions below.
type Step struct {
	kind    kind
	label   string // of a request that is finished later
	method  string
	path    string
	headers []string
	body    string
	size    int // of a body made of "x", if positive
	chunked bool
	raw     string
	count   int
	context string // the caller's client context, of an invocation

	// Ours is what our server does where it deliberately differs, and Because why.
	Ours    *Reply
	Because string
}

type kind uint8

const (
	invoke kind = iota
	answer
	send
	start
	finish
	parked
)

// Invoke starts an invocation.
func Invoke(payload string) Step { return Step{kind: invoke, body: payload} }

// InvokeWith starts an invocation with a client context.
func InvokeWith(payload, clientContext string) Step {
	return Step{kind: invoke, body: payload, context: clientContext}
}

// Answer waits for the answer of the oldest invocation that has not been asked for yet.
func Answer() Step { return Step{kind: answer} }

// Done lets the runtime ask for the next event, which the emulator waits for before it hands an
// answer on, and waits for the answer.
func Done() Step { return Step{kind: answer, label: "done", method: "GET", path: next} }

// Get sends a GET request and waits for its answer.
func Get(path string) Step { return Request("GET", path, "") }

// Post sends a POST request and waits for its answer. Headers are "Name: value".
func Post(path, body string, headers ...string) Step { return Request("POST", path, body, headers...) }

// Request sends a request and waits for its answer. In path, headers and body "{id}" stands for
// the request id of the last event, "{id1}" for that of the first.
func Request(method, path, body string, headers ...string) Step {
	return Step{kind: send, method: method, path: path, headers: headers, body: body}
}

// Raw sends bytes on a connection of its own and waits for an answer.
func Raw(text string) Step { return Step{kind: send, raw: text} }

// Finish waits for the answer to the request that was started under the label.
func Finish(label string) Step { return Step{kind: finish, label: label} }

// Parked waits until n requests for the next event are waiting.
func Parked(n int) Step { return Step{kind: parked, count: n} }

// Start makes a request one that Finish waits for, on a connection of its own.
func (s Step) Start(label string) Step {
	s.kind, s.label = start, label
	return s
}

// Chunked makes a request send its body in two chunks, or none if it is empty.
func (s Step) Chunked() Step {
	s.chunked = true
	return s
}

// Sized gives a request a body of n bytes.
func (s Step) Sized(n int) Step {
	s.size = n
	return s
}

// Differs declares that our server answers ours, and why.
func (s Step) Differs(ours Reply, because string) Step {
	s.Ours, s.Because = &ours, because
	return s
}

// A Sequence is played in a fresh environment.
type Sequence struct {
	Name  string
	Steps []Step
}

// A Reply is what came of a step.
type Reply struct {
	Step    string            `json:"step"`
	Status  int               `json:"status,omitempty"` // 0: an invocation's answer, or the connection broke
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"` // a long one is told by its length
}

// recordedHeaders are those that a runtime may look at.
var recordedHeaders = []string{"Allow", "Content-Type", "X-Content-Type-Options", "Lambda-Runtime-Aws-Request-Id", "Lambda-Runtime-Client-Context",
	"Lambda-Runtime-Cognito-Identity", "Lambda-Runtime-Deadline-Ms", "Lambda-Runtime-Invoked-Function-Arn", "Lambda-Runtime-Trace-Id"}

type player struct {
	target  Target
	ids     []string // request ids of the events, in order of arrival
	pending map[string]<-chan Reply
	answers []<-chan string
	began   time.Time
}

// Play plays a sequence and returns one Reply for each of its Replies. Every request has a
// connection of its own.
func Play(target Target, sequence Sequence) ([]Reply, error) {
	p := &player{target: target, pending: make(map[string]<-chan Reply), began: time.Now()}
	var replies []Reply
	for i, step := range sequence.Steps {
		reply, err := p.play(step)
		if err != nil {
			return nil, fmt.Errorf("%s: step %d, %s: %w", sequence.Name, i+1, step, err)
		}
		if step.replies() {
			reply.Step = step.String()
			replies = append(replies, reply)
		}
	}
	return replies, nil
}

func (s Step) replies() bool { return s.kind == send || s.kind == finish || s.kind == answer }

// Replies lists the steps of a sequence that have a reply, in order.
func (s Sequence) Replies() []Step {
	return slices.DeleteFunc(slices.Clone(s.Steps), func(step Step) bool { return !step.replies() })
}

func (p *player) play(step Step) (Reply, error) {
	switch step.kind {
	case invoke:
		p.answers = append(p.answers, p.target.Invoke([]byte(step.body), step.context))
		return Reply{}, nil
	case parked:
		p.target.Parked(step.count)
		return Reply{}, nil
	case answer:
		if step.path != "" {
			if err := p.send(step); err != nil {
				return Reply{}, err
			}
		}
		return p.awaitAnswer()
	case start:
		return Reply{}, p.send(step)
	case finish:
		return p.awaitReply(step.label)
	default:
		if err := p.send(step); err != nil {
			return Reply{}, err
		}
		return p.awaitReply("")
	}
}

func (p *player) awaitAnswer() (Reply, error) {
	if len(p.answers) == 0 {
		return Reply{}, errors.New("no invocation to wait for")
	}
	first := p.answers[0]
	p.answers = p.answers[1:]
	select {
	case payload := <-first:
		return Reply{Body: p.normal(payload)}, nil
	case <-time.After(answerTimeout):
		return Reply{}, errors.New("the invocation got no answer")
	}
}

func (p *player) awaitReply(label string) (Reply, error) {
	select {
	case reply := <-p.pending[label]:
		if id := reply.Headers["Lambda-Runtime-Aws-Request-Id"]; id != "" {
			p.ids = append(p.ids, id)
		}
		reply.Body = p.normal(reply.Body)
		for name, value := range reply.Headers {
			reply.Headers[name] = p.normal(value)
		}
		return reply, nil
	case <-time.After(answerTimeout):
		return Reply{}, errors.New("no answer")
	}
}

// send sends a request and leaves its answer to be read by another goroutine.
func (p *player) send(step Step) error {
	conn, err := net.DialTimeout("tcp", p.target.Address(), answerTimeout)
	if err != nil {
		return err
	}
	text := p.fill(step.text())
	go io.WriteString(conn, text) // the server may answer and close before it has read everything
	replies := make(chan Reply, 1)
	p.pending[step.label] = replies
	go func() {
		defer conn.Close()
		replies <- read(conn, step.method)
	}()
	return nil
}

// read reads an answer; the zero Reply stands for a connection that broke.
func read(conn net.Conn, method string) Reply {
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return Reply{}
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return Reply{}
	}
	reply := Reply{Status: response.StatusCode, Body: string(content), Headers: make(map[string]string)}
	for _, name := range recordedHeaders {
		if value := response.Header.Get(name); value != "" {
			reply.Headers[name] = value
		}
	}
	return reply
}

// fill puts request ids into a text.
func (p *player) fill(text string) string {
	if len(p.ids) == 0 {
		return text
	}
	return strings.NewReplacer("{id}", p.ids[len(p.ids)-1], "{id1}", p.ids[0]).Replace(text)
}

// normal takes out what differs from one playing to the next.
func (p *player) normal(text string) string {
	if len(text) > 512 {
		return fmt.Sprintf("(%d bytes)", len(text))
	}
	for i, id := range p.ids {
		text = strings.ReplaceAll(text, id, fmt.Sprintf("{id%d}", i+1))
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil && ms > p.began.UnixMilli() && ms < p.began.Add(time.Hour).UnixMilli() {
		return "{deadline}"
	}
	return text
}

// text is the request as it goes over the wire.
func (s Step) text() string {
	if s.raw != "" {
		return s.raw
	}
	content := s.body
	if s.size > 0 {
		content = strings.Repeat("x", s.size)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: runtime\r\n", s.method, s.path)
	for _, line := range s.headers {
		b.WriteString(line + "\r\n")
	}
	switch {
	case s.chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		for _, part := range []string{content[:len(content)/2], content[len(content)/2:]} {
			if part != "" {
				fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
			}
		}
		b.WriteString("0\r\n\r\n")
	case s.method == "POST" || content != "":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(content), content)
	default:
		b.WriteString("\r\n")
	}
	return b.String()
}

// String tells the step as the table shows it.
func (s Step) String() string {
	switch s.kind {
	case invoke:
		return "invoke " + s.body
	case answer:
		return "answer of the invocation"
	case finish:
		return "finish " + s.label
	case parked:
		return "parked"
	}
	if s.raw != "" {
		return strconv.Quote(s.raw)
	}
	text := s.method + " " + s.path
	for _, line := range s.headers {
		if len(line) > 128 {
			line = fmt.Sprintf("%.40s… (%d bytes)", line, len(line))
		}
		text += " | " + line
	}
	if s.chunked {
		text += " | chunked"
	}
	if s.size > 0 {
		return text + fmt.Sprintf(" | %d bytes", s.size)
	}
	if s.body != "" {
		text += " | " + s.body
	}
	return text
}

// A Table is what the recorder writes.
type Table struct {
	Commit    string             `json:"commit"` // of the emulator
	Sequences map[string][]Reply `json:"sequences"`
}
