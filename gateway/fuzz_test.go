package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"cloister/iam/sigv4"
)

// A script is a connection whose client has sent all its bytes already and only listens from then on.
type script struct {
	input  *bytes.Reader
	closed chan struct{}

	mu     sync.Mutex
	output bytes.Buffer // guarded by mu
	once   sync.Once
}

func newScript(input []byte) *script {
	return &script{input: bytes.NewReader(input), closed: make(chan struct{})}
}

func (s *script) Read(p []byte) (int, error) { return s.input.Read(p) }

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.Write(p)
}

func (s *script) Close() error { s.once.Do(func() { close(s.closed) }); return nil }

func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// scripts is a listener that accepts what is sent to it.
type scripts chan net.Conn

func (s scripts) Accept() (net.Conn, error) {
	conn, ok := <-s
	if !ok {
		return nil, http.ErrServerClosed
	}
	return conn, nil
}

func (s scripts) Close() error   { return nil }
func (s scripts) Addr() net.Addr { return &net.TCPAddr{} }

// FuzzRequests sends bytes to the front door without TLS. Whatever they are, nothing panics and every answer
// is AWS's, except that net/http refuses what is not HTTP in its own words and closes.
func FuzzRequests(f *testing.F) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	h := openHouse(f, func(c *Config) {
		var err error
		c.Verifier, err = sigv4.New(sigv4.Config{Region: testRegion, Services: []string{"lambda", "logs", "iam", "sts"},
			Lookup: lookup, Now: func() time.Time { return now }})
		if err != nil {
			f.Fatal(err)
		}
	})
	plain := make(scripts)
	go h.http.Serve(plain)
	f.Cleanup(func() { close(plain) })

	for _, seed := range seeds(f, h, now) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		conn := newScript(input)
		plain <- conn
		select {
		case <-conn.closed:
		case <-time.After(30 * time.Second):
			t.Fatal("the connection was not closed after its last byte")
		}
		if log := h.log.String(); strings.Contains(log, "panic") {
			t.Fatalf("panic:\n%s", log)
		}
		h.log.reset()
		if bytes.Contains(input, []byte("HEAD ")) {
			return // an answer without its body cannot be told from the next one
		}
		conn.mu.Lock()
		defer conn.mu.Unlock()
		if err := checkAnswers(conn.output.Bytes()); err != nil {
			t.Errorf("%v\ninput %q\noutput %q", err, input, conn.output.Bytes())
		}
	})
}

func checkAnswers(output []byte) error {
	reader := bufio.NewReader(bytes.NewReader(output))
	for {
		if _, err := reader.Peek(1); err == io.EOF {
			return nil
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return fmt.Errorf("not HTTP: %w", err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return fmt.Errorf("body of the answer: %w", err)
		}
		if response.StatusCode == http.StatusContinue || notHTTP(response) {
			continue
		}
		got := answered{response.StatusCode, response.Header.Get("X-Amzn-Errortype"), string(body), response.Header, response.Close}
		if err := shape(got); err != nil {
			return err
		}
	}
}

// notHTTP reports whether net/http answered by itself, before the handler.
func notHTTP(r *http.Response) bool {
	switch r.StatusCode {
	case http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge, http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return r.Close && strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain")
	case http.StatusExpectationFailed:
		return r.Close
	}
	return false
}

// seeds are requests of every protocol, well signed at that time, and some that are not.
func seeds(t testing.TB, h *house, now time.Time) []string {
	var all []string
	add := func(method, path, body string, s signing, header ...string) {
		r := h.unsigned(t, method, path, body)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		s.time = now
		s.sign(t, r, []byte(body))
		all = append(all, dump(t, r, fmt.Sprintf("Content-Length: %d\r\n", len(body)), body))
	}
	form := "application/x-www-form-urlencoded"
	add("POST", invocationsPath+"?Qualifier=1", `{"a":1}`, signing{}, "X-Amz-Log-Type", "Tail")
	add("POST", "/2015-03-31/functions", `{"FunctionName":"f","Role":"arn:aws:iam::123456789012:role/r","Code":{"ZipFile":"UEs="}}`, signing{})
	add("GET", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Af/configuration", "", signing{})
	add("GET", "/2018-10-31/layers?find=LayerVersion&Arn=x", "", signing{})
	add("POST", "/", "{}", signing{service: "logs"}, "X-Amz-Target", "Logs_20140328.DescribeLogGroups", "Content-Type", "application/x-amz-json-1.1")
	add("POST", "/", "Action=GetCallerIdentity&Version=2011-06-15", signing{service: "sts"}, "Content-Type", form)
	add("POST", "/", "Action=CreateRole&Version=2010-05-08&RoleName=r&Tags.member.1.Key=k&Tags.member.1.Value=v", signing{service: "iam"}, "Content-Type", form)
	for _, service := range []string{"lambda", "sts"} {
		path := map[string]string{"lambda": invocationsPath, "sts": "/?Action=GetCallerIdentity&Version=2011-06-15"}[service]
		r := h.presigned(t, "POST", path, "", service, now)
		all = append(all, dump(t, r, "Content-Length: 0\r\n", ""))
	}
	add("GET", "/nothing", "", signing{secret: "wrong"})
	return append(all,
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST "+invocationsPath+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01")
}

func TestTheSeedsOfTheFuzzTargetReachTheServices(t *testing.T) {
	now := time.Now()
	h := openHouse(t)
	want := []int{200, 201, 501, 400, 501, 200, 400, 200, 200}
	for i, seed := range seeds(t, h, now)[:len(want)] {
		if got, _, _ := h.raw(t, seed); got.status != want[i] {
			t.Errorf("seed %d: status %d, want %d; %s", i, got.status, want[i], got.body)
		}
	}
}
