package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"

	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// held returns how many bytes of the budget are in use.
func (h *house) held() int64 {
	h.budget.mu.Lock()
	defer h.budget.mu.Unlock()
	return h.budget.used
}

// zeros is a JSON string of n bytes.
func zeros(n int) []byte {
	b := bytes.Repeat([]byte{'0'}, n)
	b[0], b[n-1] = '"', '"'
	return b
}

func TestAPayloadOfExactlyTheLimitPasses(t *testing.T) {
	h := openHouse(t)
	payload := zeros(lambda.MaxPayloadBytes)
	out, err := h.lambdaClient().Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: new("echo"), Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Payload, payload) {
		t.Errorf("%d bytes came back changed", len(out.Payload))
	}
	waitFor(t, "return of the budget", func() bool { return h.held() == 0 })
}

func TestAnOversizedBodyIsRefusedWithTheWordsOfTheOperation(t *testing.T) {
	h := openHouse(t)
	invoke := h.request(t, http.MethodPost, invocationsPath, string(zeros(lambda.MaxPayloadBytes+1)), signing{})
	event := h.unsigned(t, http.MethodPost, invocationsPath, string(zeros(maxEventBytes+1)))
	event.Header.Set("X-Amz-Invocation-Type", "Event")
	form := h.unsigned(t, http.MethodPost, "/", "Action=CreateRole&Path="+strings.Repeat("x", maxFormBytes))
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	create := h.request(t, http.MethodPost, "/2015-03-31/functions", string(zeros(maxCodeBytes+1)), signing{})
	for name, test := range map[string]struct {
		request *http.Request
		want    string
	}{
		"Invoke":         {invoke, "Request must be smaller than 6291456 bytes for the InvokeFunction operation"},
		"Event":          {event, "Request must be smaller than 1048576 bytes for the InvokeFunction operation"},
		"CreateFunction": {create, "Request must be smaller than 70167211 bytes for the CreateFunction operation"},
		"query":          {form, "<Code>RequestEntityTooLarge</Code>"},
	} {
		got := h.do(t, test.request)
		if got.status != http.StatusRequestEntityTooLarge || !strings.Contains(got.body, test.want) || shape(got) != nil {
			t.Errorf("%s: status %d, body %s", name, got.status, got.body)
		}
	}
}

func TestAnSDKReadsTheRefusalOfAnOversizedPayload(t *testing.T) {
	h := openHouse(t)
	_, err := h.lambdaClient().Invoke(t.Context(),
		&awslambda.InvokeInput{FunctionName: new("echo"), Payload: zeros(lambda.MaxPayloadBytes + 1)})
	if fault, ok := errors.AsType[smithy.APIError](err); !ok || fault.ErrorCode() != "RequestEntityTooLargeException" {
		t.Errorf("got %v", err)
	}
}

// A client such as boto3 sends the whole body before it reads a byte. It must find the answer there, not a reset.
func TestAClientThatSendsEverythingFirstFindsTheRefusal(t *testing.T) {
	h := openHouse(t)
	const length = 20 << 20
	unsigned := h.unsigned(t, http.MethodPost, invocationsPath, "")
	conn := h.dial(t)
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, dump(t, unsigned, fmt.Sprintf("Content-Length: %d\r\n", length), "")); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	if _, err := reader.Peek(1); err != nil { // the refusal is there now
		t.Fatal(err)
	}
	if n, err := io.CopyN(conn, zeroReader{}, length); err != nil {
		t.Fatalf("reset after %d bytes: %v", n, err)
	}
	answer, err := io.ReadAll(reader)
	if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 413 ")) {
		t.Errorf("read %.100q, %v", answer, err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestABodyWithoutALengthIsReadToItsLimit(t *testing.T) {
	h := openHouse(t)
	for _, size := range []int{2, smallBodyBytes, smallBodyBytes + 1, 300 << 10, lambda.MaxPayloadBytes, lambda.MaxPayloadBytes + 1, 8 << 20} {
		body := string(zeros(size))
		r := h.unsigned(t, http.MethodPost, invocationsPath, "")
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), -1
		signing{}.sign(t, r, []byte(body))
		got := h.do(t, r)
		want := http.StatusOK
		if size > lambda.MaxPayloadBytes {
			want = http.StatusRequestEntityTooLarge
		}
		if got.status != want || want == http.StatusOK && got.body != body {
			t.Errorf("%d bytes: status %d, %d bytes came back, want status %d", size, got.status, len(got.body), want)
		}
	}
	waitFor(t, "return of the budget", func() bool { return h.held() == 0 })
}

func TestALargeUploadMayWaitForContinue(t *testing.T) {
	h := openHouse(t)
	h.client.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
	r := h.request(t, http.MethodPost, invocationsPath, string(zeros(1<<20)), signing{})
	r.Header.Set("Expect", "100-continue")
	if got := h.do(t, r); got.status != http.StatusOK || len(got.body) != 1<<20 {
		t.Errorf("status %d, %d bytes", got.status, len(got.body))
	}
	sent := 0
	r = h.request(t, http.MethodPost, invocationsPath, string(zeros(8<<20)), signing{})
	r.Body = io.NopCloser(io.TeeReader(r.Body, writerFunc(func(p []byte) { sent += len(p) })))
	r.Header.Set("Expect", "100-continue")
	if got := h.do(t, r); got.status != http.StatusRequestEntityTooLarge || sent != 0 {
		t.Errorf("status %d after %d bytes, want a refusal before the first", got.status, sent)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestBodiesBeyondTheBudgetAreToldToTryAgain(t *testing.T) {
	const size = lambda.MaxPayloadBytes
	h := openHouse(t, func(c *Config) { c.BodyBudget = 4 * size })
	entered, leave := make(chan struct{}), make(chan struct{})
	h.lambda.invoke = func(context.Context, *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		entered <- struct{}{}
		<-leave
		return &lambdaapi.InvocationResponse{StatusCode: new(int32(200))}, nil
	}
	body := string(zeros(size))
	results := make(chan int, 2)
	for range 2 {
		r := h.request(t, http.MethodPost, invocationsPath, body, signing{})
		go func() {
			response, err := h.client.Do(r)
			if err != nil {
				results <- 0
				return
			}
			response.Body.Close()
			results <- response.StatusCode
		}()
	}
	<-entered
	<-entered
	got := h.do(t, h.request(t, http.MethodPost, invocationsPath, body, signing{}))
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || shape(got) != nil {
		t.Errorf("third body: status %d, headers %v, body %s", got.status, got.header, got.body)
	}
	// Small calls are not affected.
	small := h.do(t, h.request(t, http.MethodGet, "/2015-03-31/functions", "", signing{}))
	if small.status != http.StatusNotImplemented {
		t.Errorf("small call: status %d", small.status)
	}
	close(leave)
	for range 2 {
		if status := <-results; status != http.StatusOK {
			t.Errorf("body within the budget: status %d", status)
		}
	}
	waitFor(t, "return of the budget", func() bool { return h.held() == 0 })
}

func TestALargeBodyIsReadOnlyForAKeyThatExists(t *testing.T) {
	h := openHouse(t)
	h.client.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
	body := string(zeros(2 << 20))
	for name, r := range map[string]*http.Request{
		"unsigned":    h.unsigned(t, http.MethodPost, invocationsPath, body),
		"expired":     h.request(t, http.MethodPost, invocationsPath, body, signing{time: time.Now().Add(-time.Hour)}),
		"unknown key": h.request(t, http.MethodPost, invocationsPath, body, signing{keyID: "AKIDUNKNOWN"}),
	} {
		sent := 0
		r.Body = io.NopCloser(io.TeeReader(r.Body, writerFunc(func(p []byte) { sent += len(p) })))
		r.Header.Set("Expect", "100-continue")
		if got := h.do(t, r); got.status != http.StatusForbidden || sent != 0 {
			t.Errorf("%s: status %d after %d bytes", name, got.status, sent)
		}
	}
}

func TestCodeUploadsHaveTheirOwnLimit(t *testing.T) {
	h := openHouse(t)
	zip := make([]byte, 8<<20)
	out, err := h.lambdaClient().CreateFunction(t.Context(), &awslambda.CreateFunctionInput{
		FunctionName: new("f"), Role: new("arn:aws:iam::123456789012:role/r"), Code: &types.FunctionCode{ZipFile: zip}})
	if err != nil || out.CodeSize != int64(len(zip)) {
		t.Errorf("got %+v, %v", out, err)
	}
}
