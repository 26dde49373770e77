package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"cloister/api/lambdaapi"
)

// blockInvocations makes Invoke wait until the returned function is called.
func (h *house) blockInvocations() (entered chan struct{}, leave func()) {
	entered, gate := make(chan struct{}, 16), make(chan struct{})
	h.lambda.invoke = func(ctx context.Context, _ *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		entered <- struct{}{}
		select {
		case <-gate:
			return &lambdaapi.InvocationResponse{StatusCode: new(int32(200))}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return entered, func() { close(gate) }
}

// invokeInBackground sends one invocation and delivers its status, 0 for an error of the connection.
func (h *house) invokeInBackground(t *testing.T) chan int {
	t.Helper()
	r := h.request(t, http.MethodPost, invocationsPath, "{}", signing{})
	status := make(chan int, 1)
	go func() {
		response, err := h.client.Do(r)
		if err != nil {
			status <- 0
			return
		}
		response.Body.Close()
		status <- response.StatusCode
	}()
	return status
}

func (h *house) open() int {
	h.connections.mu.Lock()
	defer h.connections.mu.Unlock()
	return len(h.connections.waiting) + len(h.connections.working)
}

func TestAStrangerOnlyKeepsAConnectionUntilItIsWanted(t *testing.T) {
	const limit = 8
	h := openHouse(t, func(c *Config) { c.MaxConnections = limit })
	entered, leave := h.blockInvocations()
	working := h.invokeInBackground(t)
	<-entered

	var strangers []net.Conn
	for range 3 * limit {
		conn, err := net.Dial("tcp", h.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		strangers = append(strangers, conn)
	}
	waitFor(t, "full house", func() bool { return h.open() == limit })

	// Whoever comes now gets in at the cost of a stranger, and the call at work is not dropped.
	h.identity.deny("lambda:ListFunctions")
	if got := h.do(t, h.request(t, http.MethodGet, "/2015-03-31/functions", "", signing{})); got.code != "AccessDeniedException" {
		t.Errorf("a client got status %d, code %q", got.status, got.code)
	}
	leave()
	if status := <-working; status != http.StatusOK {
		t.Errorf("the call at work got status %d", status)
	}
	closed := 0
	for _, conn := range strangers {
		conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			closed++
		}
	}
	if closed < 2*limit {
		t.Errorf("%d of %d strangers were dropped", closed, len(strangers))
	}
}

func TestAHouseFullOfWorkTakesNobodyIn(t *testing.T) {
	h := openHouse(t, func(c *Config) { c.MaxConnections = 2 })
	entered, leave := h.blockInvocations()
	first, second := h.invokeInBackground(t), h.invokeInBackground(t)
	<-entered
	<-entered
	if status := <-h.invokeInBackground(t); status != 0 {
		t.Errorf("a third connection got status %d", status)
	}
	leave()
	if a, b := <-first, <-second; a != http.StatusOK || b != http.StatusOK {
		t.Errorf("the two at work got %d and %d", a, b)
	}
	if got := h.do(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{})); got.status != http.StatusOK {
		t.Errorf("afterwards status %d", got.status)
	}
}

func TestAnIdleConnectionMakesRoomForAnother(t *testing.T) {
	h := openHouse(t, func(c *Config) { c.MaxConnections = 1 })
	idle := h.dial(t)
	reader := bufio.NewReader(idle)
	io.WriteString(idle, dump(t, h.request(t, http.MethodPost, invocationsPath, "1", signing{}), "Content-Length: 1\r\n", "1"))
	response, err := http.ReadResponse(reader, nil)
	if err != nil || read(t, response).status != http.StatusOK {
		t.Fatalf("first connection: %v", err)
	}
	waitFor(t, "idle connection", func() bool {
		h.connections.mu.Lock()
		defer h.connections.mu.Unlock()
		return len(h.connections.waiting) == 1
	})
	if got := h.do(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{})); got.status != http.StatusOK {
		t.Errorf("status %d", got.status)
	}
	idle.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := reader.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the idle connection is still open: %v", err)
	}
}

func TestClosedConnectionsAreForgotten(t *testing.T) {
	h := openHouse(t)
	for range 3 {
		h.do(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{}))
		h.do(t, h.unsigned(t, http.MethodPost, invocationsPath, "{}"))
		h.client.CloseIdleConnections()
	}
	waitFor(t, "empty house", func() bool { return h.open() == 0 })
}

func TestShutdownLetsCallsInFlightFinish(t *testing.T) {
	h := openHouse(t)
	entered, leave := h.blockInvocations()
	working := h.invokeInBackground(t)
	<-entered
	down := make(chan error, 1)
	go func() { down <- h.Shutdown(t.Context()) }()
	waitFor(t, "closed listener", func() bool {
		conn, err := net.Dial("tcp", h.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-down:
		t.Fatalf("Shutdown returned %v with a call in flight", err)
	case <-time.After(50 * time.Millisecond):
	}
	leave()
	if status := <-working; status != http.StatusOK {
		t.Errorf("the call in flight got status %d", status)
	}
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestShutdownCutsOffWhatDoesNotFinishInTime(t *testing.T) {
	h := openHouse(t)
	entered, leave := h.blockInvocations()
	defer leave()
	working := h.invokeInBackground(t)
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if status := <-working; status != 0 {
		t.Errorf("the call that was cut off got status %d", status)
	}
}
