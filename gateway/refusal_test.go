package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awslogs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"cloister/api/lambdaapi"
	"cloister/iam/sigv4"
)

func TestACallWithoutAGoodSignatureIsRefused(t *testing.T) {
	h := openHouse(t)
	h.lambda.invoke = func(context.Context, *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		t.Error("the service was called")
		return nil, nil
	}
	const body = `{"amount":1}`
	for name, test := range map[string]struct {
		signing signing
		change  func(*http.Request)
		code    string
	}{
		"unsigned":       {change: func(r *http.Request) { r.Header.Del("Authorization") }, code: "MissingAuthenticationTokenException"},
		"another scheme": {change: func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, code: "IncompleteSignatureException"},
		"wrong secret":   {signing: signing{secret: "wrong"}, code: "InvalidSignatureException"},
		"unknown key":    {signing: signing{keyID: "AKIDUNKNOWN"}, code: "UnrecognizedClientException"},
		"other region":   {signing: signing{region: "eu-west-1"}, code: "InvalidSignatureException"},
		"other service":  {signing: signing{service: "s3"}, code: "InvalidSignatureException"},
		"expired":        {signing: signing{time: time.Now().Add(-10 * time.Minute)}, code: "InvalidSignatureException"},
		"from the future": {signing: signing{time: time.Now().Add(10 * time.Minute)},
			code: "InvalidSignatureException"},
		"tampered body": {change: func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{"amount":9}`)) },
			code: "InvalidSignatureException"},
		"tampered header": {change: func(r *http.Request) {
			r.Header.Set("X-Amz-Date", time.Now().Add(time.Minute).UTC().Format("20060102T150405Z"))
		},
			code: "InvalidSignatureException"},
		"added amz header": {change: func(r *http.Request) { r.Header.Set("X-Amz-Invocation-Type", "DryRun") }, code: "InvalidSignatureException"},
		"tampered query":   {change: func(r *http.Request) { r.URL.RawQuery = "Qualifier=2" }, code: "InvalidSignatureException"},
		"tampered path":    {change: func(r *http.Request) { r.URL.Path = strings.Replace(r.URL.Path, "echo", "other", 1) }, code: "InvalidSignatureException"},
		"tampered method":  {change: func(r *http.Request) { r.Method = http.MethodPut }, code: "InvalidSignatureException"},
		"tampered host":    {change: func(r *http.Request) { r.Host = "lambda.example" }, code: "InvalidSignatureException"},
	} {
		t.Run(name, func(t *testing.T) {
			r := h.request(t, http.MethodPost, invocationsPath, body, test.signing)
			if test.change != nil {
				test.change(r)
			}
			got := h.do(t, r)
			if got.status != http.StatusForbidden || got.code != test.code || len(got.header.Get("X-Amzn-Requestid")) != 36 {
				t.Errorf("status %d, code %q, body %s, want 403 and %s", got.status, got.code, got.body, test.code)
			}
			if !got.closed {
				t.Error("the connection of a stranger stays open")
			}
		})
	}
}

func TestASignatureForOneServiceDoesNotOpenAnother(t *testing.T) {
	h := openHouse(t)
	const form = "Action=GetCallerIdentity&Version=2011-06-15"
	r := h.request(t, http.MethodPost, "/", form, signing{service: "lambda"})
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if got := h.do(t, r); got.status != http.StatusNotFound || got.code != "UnknownOperationException" {
		t.Errorf("status %d, code %q: a signature for lambda was taken for sts", got.status, got.code)
	}
	r = h.request(t, http.MethodPost, invocationsPath, "{}", signing{service: "sts"})
	if got := h.do(t, r); got.status/100 != 4 {
		t.Errorf("status %d: a signature for sts was taken for lambda", got.status)
	}
}

// carelessVerifier finds every signature good, but made for sts.
type carelessVerifier struct{}

func (carelessVerifier) Check(*http.Request) (sigv4.Claim, error) { return sigv4.Claim{}, nil }

func (carelessVerifier) Verify(context.Context, *http.Request, []byte) (sigv4.Signature, error) {
	return sigv4.Signature{AccessKeyID: testKeyID, Service: "sts"}, nil
}

func TestRouteAndVerifierMustAgreeOnTheService(t *testing.T) {
	h := openHouse(t, func(c *Config) { c.Verifier = carelessVerifier{} })
	got := h.do(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{}))
	if got.status != http.StatusInternalServerError || got.code != "ServiceException" {
		t.Errorf("status %d, code %q", got.status, got.code)
	}
}

func TestWhatExistsIsToldToSignedCallsOnly(t *testing.T) {
	h := openHouse(t)
	for _, path := range []string{invocationsPath, "/2015-03-31/nothing", "/", "/health", "/../etc/passwd"} {
		got := h.do(t, h.unsigned(t, http.MethodGet, path, ""))
		if got.status != http.StatusForbidden || got.code != "MissingAuthenticationTokenException" {
			t.Errorf("unsigned %s: status %d, code %q", path, got.status, got.code)
		}
	}
	got := h.do(t, h.request(t, http.MethodGet, "/2015-03-31/nothing", "", signing{}))
	if got.status != http.StatusNotFound || got.code != "UnknownOperationException" {
		t.Errorf("signed: status %d, code %q", got.status, got.code)
	}
	got = h.do(t, h.request(t, http.MethodPost, "/2015-03-31/functions", `{"FunctionName":`, signing{}))
	if got.status != http.StatusBadRequest || got.code != "SerializationException" {
		t.Errorf("malformed: status %d, code %q", got.status, got.code)
	}
}

// Every SDK client must be able to read the refusal in its own protocol.
func TestSDKsReadTheRefusalOfEveryProtocol(t *testing.T) {
	h := openHouse(t)
	config := h.awsConfig()
	config.Credentials = credentials.NewStaticCredentialsProvider(testKeyID, "wrong", "")
	for name, test := range map[string]struct {
		call func(aws.Config) error
		code string
	}{
		"rest-json": {func(c aws.Config) error {
			_, err := awslambda.NewFromConfig(c).GetFunction(t.Context(), &awslambda.GetFunctionInput{FunctionName: new("f")})
			return err
		}, "InvalidSignatureException"},
		"json": {func(c aws.Config) error {
			_, err := awslogs.NewFromConfig(c).DescribeLogGroups(t.Context(), nil)
			return err
		}, "InvalidSignatureException"},
		"query iam": {func(c aws.Config) error {
			_, err := awsiam.NewFromConfig(c).ListRoles(t.Context(), nil)
			return err
		}, "SignatureDoesNotMatch"},
		"query sts": {func(c aws.Config) error {
			_, err := awssts.NewFromConfig(c).GetCallerIdentity(t.Context(), nil)
			return err
		}, "SignatureDoesNotMatch"},
	} {
		err := test.call(config)
		fault, ok := errors.AsType[smithy.APIError](err)
		if !ok || fault.ErrorCode() != test.code || !strings.HasPrefix(fault.ErrorMessage(), "The request signature we calculated") {
			t.Errorf("%s: got %v, want %s", name, err, test.code)
		}
	}
}

// raw sends bytes as they are and reads one response.
func (h *house) raw(t testing.TB, request string) (answered, *bufio.Reader, *tls.Conn) {
	t.Helper()
	conn := h.dial(t)
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return read(t, response), reader, conn
}

// dump returns a signed request as bytes, with the framing headers replaced.
func dump(t testing.TB, r *http.Request, framing, body string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n%s", r.Method, r.URL.RequestURI(), r.URL.Host, framing)
	r.Header.Write(&b)
	return b.String() + "\r\n" + body
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && timeout.Timeout()
}

// A request in one piece with the next is legal HTTP/1.1, as long as the framing is not in doubt.
func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	h := openHouse(t)
	first := dump(t, h.request(t, http.MethodPost, invocationsPath, `"one"`, signing{}), "Content-Length: 5\r\n", `"one"`)
	second := dump(t, h.request(t, http.MethodPost, invocationsPath, `"two"`, signing{}), "Content-Length: 5\r\n", `"two"`)
	got, rest, _ := h.raw(t, first+second)
	response, err := http.ReadResponse(rest, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again := read(t, response); got.body != `"one"` || again.body != `"two"` {
		t.Errorf("answers %s, %s", got.body, again.body)
	}
}

func TestOldTLSAndPlainHTTPAreRefused(t *testing.T) {
	h := openHouse(t)
	roots := h.client.Transport.(*http.Transport).TLSClientConfig.RootCAs
	dial := func(c *tls.Config) error {
		c.RootCAs = roots
		conn, err := tls.Dial("tcp", h.address, c)
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := dial(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	cbc := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA}
	if err := dial(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: cbc}); err == nil {
		t.Error("a CBC suite is accepted")
	}
	if err := dial(&tls.Config{MaxVersion: tls.VersionTLS12}); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	if err := dial(&tls.Config{NextProtos: []string{"h2"}}); err == nil {
		t.Error("HTTP/2 alone is accepted")
	}
	if response, err := http.Get("http://" + h.address + "/"); err == nil && response.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP got status %d", response.StatusCode)
	}
}

// shape reports whether an answer is an AWS error in one of the three protocols.
func shape(a answered) error {
	if a.status < 400 {
		return nil
	}
	if len(a.header.Get("X-Amzn-Requestid")) != 36 {
		return fmt.Errorf("status %d without a request id", a.status)
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(a.body), &object); err == nil {
		if _, rpc := object["__type"]; !rpc && a.code == "" {
			return fmt.Errorf("JSON error names no code: %s", a.body)
		}
		return nil
	}
	var document struct {
		XMLName xml.Name `xml:"ErrorResponse"`
		Code    string   `xml:"Error>Code"`
	}
	if err := xml.Unmarshal([]byte(a.body), &document); err != nil || document.Code == "" {
		return fmt.Errorf("neither JSON nor XML error: %q", a.body)
	}
	return nil
}
