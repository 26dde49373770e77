package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloister/api/lambdaapi"
)

// pipes is a listener in memory. In a synctest bubble all waiting on its connections is in fake time, so
// the tests here use the real, long timeouts and measure them exactly.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accept:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8443} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.accept <- server
	return client, nil
}

// inFakeTime runs a test against a house whose connections are pipes.
func inFakeTime(t *testing.T, test func(t *testing.T, h *house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := pipes{make(chan net.Conn), make(chan struct{})}
		test(t, openHouseOn(t, p, p.dial))
		time.Sleep(time.Second) // net/http waits half of that before it closes on a client that still sends
	})
}

// untilClosed reads conn to its end and returns what came and how long that took.
func untilClosed(t *testing.T, conn net.Conn) (string, time.Duration) {
	t.Helper()
	start := time.Now()
	conn.SetReadDeadline(start.Add(24 * time.Hour))
	got, _ := io.ReadAll(conn)
	took := time.Since(start)
	if took >= 24*time.Hour {
		t.Error("the connection was never closed")
	}
	return string(got), took
}

func TestAConnectionThatNeverBeginsItsHandshakeIsClosed(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *house) {
		conn, err := h.client.Transport.(*http.Transport).DialContext(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, took := untilClosed(t, conn); took != h.config.HeaderTimeout {
			t.Errorf("closed after %v, want %v", took, h.config.HeaderTimeout)
		}
	})
}

func TestASlowHeaderIsGivenUp(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *house) {
		conn := h.dial(t)
		io.WriteString(conn, "POST "+invocationsPath+" HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		var attack sync.WaitGroup
		attack.Go(func() { // one more byte now and then
			for {
				time.Sleep(time.Second)
				if _, err := conn.Write([]byte("a")); err != nil {
					return
				}
			}
		})
		if _, took := untilClosed(t, conn); took > h.config.HeaderTimeout {
			t.Errorf("closed after %v, want %v", took, h.config.HeaderTimeout)
		}
		conn.Close()
		attack.Wait()
	})
}

func TestAnIdleConnectionIsClosed(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *house) {
		conn := h.dial(t)
		go io.WriteString(conn, dump(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{}), "Content-Length: 2\r\n", "{}"))
		got, took := untilClosed(t, conn)
		if !strings.HasPrefix(got, "HTTP/1.1 200 OK") || took != h.config.IdleTimeout {
			t.Errorf("closed after %v and %.40q, want %v", took, got, h.config.IdleTimeout)
		}
	})
}

func TestABodyThatStallsIsGivenUp(t *testing.T) {
	body := string(zeros(1 << 20))
	for _, first := range []int{0, bodyStep, 3 * bodyStep} { // before the deadline is first moved on, and after
		inFakeTime(t, func(t *testing.T, h *house) {
			conn := h.dial(t)
			head := dump(t, h.request(t, http.MethodPost, invocationsPath, body, signing{}), fmt.Sprintf("Content-Length: %d\r\n", len(body)), "")
			go io.WriteString(conn, head+body[:first])
			got, took := untilClosed(t, conn)
			if !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, "RequestTimeoutException") {
				t.Errorf("after %d bytes: %.300q", first, got)
			}
			if most := h.config.HeaderTimeout + h.config.BodyTimeout; took > most {
				t.Errorf("after %d bytes: took %v, want at most %v", first, took, most)
			}
			if used := h.held(); used != 0 {
				t.Errorf("%d bytes of the budget were not given back", used)
			}
		})
	}
}

// Every step of a body has its own time, so a large upload may take longer than any one timeout.
func TestASlowButSteadyUploadSucceeds(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *house) {
		body := string(zeros(4 << 20))
		conn := h.dial(t)
		head := dump(t, h.request(t, http.MethodPost, invocationsPath, body, signing{}),
			fmt.Sprintf("Content-Length: %d\r\nConnection: close\r\n", len(body)), "")
		start := time.Now()
		go func() {
			io.WriteString(conn, head)
			for rest := body; rest != ""; rest = rest[min(len(rest), bodyStep):] {
				time.Sleep(h.config.BodyTimeout * 9 / 10)
				io.WriteString(conn, rest[:min(len(rest), bodyStep)])
			}
		}()
		got, _ := untilClosed(t, conn)
		if took := time.Since(start); took < 2*time.Minute || !strings.HasPrefix(got, "HTTP/1.1 200 OK") {
			t.Errorf("after %v: %.300q", took, got)
		}
	})
}

// The longest function runs for 15 minutes; only sending and receiving have deadlines.
func TestAnInvocationMayTakeLongerThanAnyTimeout(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *house) {
		h.lambda.invoke = func(ctx context.Context, in *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
			select {
			case <-time.After(15 * time.Minute):
				return &lambdaapi.InvocationResponse{StatusCode: new(int32(200)), Payload: []byte(fmt.Sprint(len(in.Payload)))}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		for _, size := range []int{0, 10, 600 << 10} {
			body := ""
			if size > 0 {
				body = string(zeros(size))
			}
			got := h.do(t, h.request(t, http.MethodPost, invocationsPath, body, signing{}))
			if got.status != http.StatusOK || got.body != fmt.Sprint(size) {
				t.Errorf("%d bytes: status %d, body %s", size, got.status, got.body)
			}
		}
	})
}

func TestAClientThatDoesNotReadItsAnswerIsCutOff(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *house) {
		conn := h.dial(t)
		io.WriteString(conn, dump(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{}), "Content-Length: 2\r\n", "{}"))
		start := time.Now()
		waitFor(t, "end of the connection", func() bool { return h.open() == 0 })
		const alert = 5 * time.Second // package tls tries that long to say goodbye
		if took := time.Since(start).Round(time.Second); took < h.config.WriteTimeout || took > h.config.WriteTimeout+alert {
			t.Errorf("cut off after %v, want %v", took, h.config.WriteTimeout)
		}
	})
}

func TestARefusedClientThatWaitsForContinueIsNotWaitedFor(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *house) {
		conn := h.dial(t)
		go io.WriteString(conn, dump(t, h.unsigned(t, http.MethodPost, invocationsPath, ""), "Content-Length: 1000000\r\nExpect: 100-continue\r\n", ""))
		if got, took := untilClosed(t, conn); !strings.HasPrefix(got, "HTTP/1.1 403 ") || took > time.Second {
			t.Errorf("closed after %v and %.40q", took, got)
		}
	})
}

func TestARefusedClientThatStopsSendingIsNotWaitedForLong(t *testing.T) {
	inFakeTime(t, func(t *testing.T, h *house) {
		conn := h.dial(t)
		go io.WriteString(conn, dump(t, h.unsigned(t, http.MethodPost, invocationsPath, ""), "Content-Length: 1000000\r\n", "{"))
		if got, took := untilClosed(t, conn); !strings.HasPrefix(got, "HTTP/1.1 403 ") || took > drainTimeout+time.Second {
			t.Errorf("closed after %v and %.40q", took, got)
		}
	})
}
