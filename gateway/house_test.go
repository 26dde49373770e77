package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"

	"cloister/api"
	"cloister/api/iamapi"
	"cloister/api/lambdaapi"
	"cloister/api/logsapi"
	"cloister/api/stsapi"
	"cloister/gateway/certificate"
	"cloister/iam"
	"cloister/iam/sigv4"
	"cloister/internal/seal"
)

const (
	testRegion  = "us-east-1"
	testAccount = "123456789012"
	testKeyID   = "AKIDEXAMPLE"
	testSecret  = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	testUserARN = "arn:aws:iam::123456789012:user/alice"

	invocationsPath = "/2015-03-31/functions/echo/invocations"
)

// house is a running Server with real TLS, signatures and wire formats; services and policies are fakes
// that a test may change before its first call.
type house struct {
	*Server
	address  string
	client   *http.Client
	lambda   *fakeLambda
	identity *fakeIdentity
	log      *safeBuffer
	served   chan error
}

// openHouse opens one on a TCP port.
func openHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return openHouseOn(t, l, dialTo(l.Addr().String()), change...)
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// dialTo reaches address, whatever is asked for.
func dialTo(address string) dialFunc {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
}

func openHouseOn(t testing.TB, l net.Listener, dial dialFunc, change ...func(*Config)) *house {
	t.Helper()
	h := &house{lambda: &fakeLambda{}, identity: &fakeIdentity{}, log: &safeBuffer{}, served: make(chan error, 1)}
	verifier, err := sigv4.New(sigv4.Config{Region: testRegion, Services: []string{"lambda", "logs", "iam", "sts"}, Lookup: lookup})
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.NewKey(make([]byte, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := certificate.LoadOrCreate(certificate.Config{Directory: t.TempDir(), Names: []string{"127.0.0.1", "localhost"}, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	config := Config{
		Services: []Service{
			fakeService{lambdaapi.Service, h.lambda}, fakeService{logsapi.Service, logsapi.Unimplemented{}},
			fakeService{iamapi.Service, iamapi.Unimplemented{}}, fakeService{stsapi.Service, fakeSTS{}},
		},
		Verifier: verifier, Identity: h.identity, Region: testRegion, Certificate: authority.GetCertificate,
		Logger: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&config)
	}
	if h.Server, err = New(config); err != nil {
		t.Fatal(err)
	}
	h.address = l.Addr().String()
	go func() { h.served <- h.Serve(l) }()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.CA())
	h.client = &http.Client{Transport: &http.Transport{
		DialContext:     dial,
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"},
		// Offers HTTP/2, as many clients do.
		ForceAttemptHTTP2: true,
	}}
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		h.Close()
		if err := <-h.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return h
}

func (h *house) url(path string) string { return "https://" + h.address + path }

func (h *house) awsConfig() aws.Config {
	return aws.Config{Region: testRegion, BaseEndpoint: new(h.url("")), HTTPClient: h.client, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(testKeyID, testSecret, "")}
}

func (h *house) lambdaClient() *awslambda.Client { return awslambda.NewFromConfig(h.awsConfig()) }

// dial opens a raw TLS connection.
func (h *house) dial(t testing.TB) *tls.Conn {
	t.Helper()
	transport := h.client.Transport.(*http.Transport)
	conn, err := transport.DialContext(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return tls.Client(conn, &tls.Config{RootCAs: transport.TLSClientConfig.RootCAs, ServerName: "127.0.0.1"})
}

func lookup(_ context.Context, accessKeyID, sessionToken string) (string, error) {
	if accessKeyID != testKeyID || sessionToken != "" {
		return "", sigv4.ErrUnknownKey
	}
	return testSecret, nil
}

// fakeIdentity knows one user, who may do everything but what denied names.
type fakeIdentity struct {
	mu     sync.Mutex
	denied map[string]bool
	asked  []api.Permission
}

func (f *fakeIdentity) Caller(_ context.Context, accessKeyID, _ string) (iam.Caller, error) {
	if accessKeyID != testKeyID {
		return iam.Caller{}, &api.Error{Code: "UnrecognizedClientException", Status: 403, Message: "The security token included in the request is invalid."}
	}
	return iam.Caller{AccountID: testAccount, ARN: testUserARN, UserID: "AIDAALICE"}, nil
}

func (f *fakeIdentity) Authorize(_ context.Context, caller iam.Caller, p api.Permission) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked[:min(len(f.asked), 8)], p)
	if f.denied[p.Action] {
		return &api.Error{Code: "AccessDeniedException", Status: http.StatusForbidden, Message: "User: " + caller.ARN +
			" is not authorized to perform: " + p.Action + " on resource: " + p.Resource +
			" because no identity-based policy allows the " + p.Action + " action"}
	}
	return nil
}

func (f *fakeIdentity) deny(action string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.denied = map[string]bool{action: true}
}

// fakeService asks for one permission per operation, named like it.
type fakeService struct {
	api    *api.Service
	server any
}

func (s fakeService) API() *api.Service { return s.api }
func (s fakeService) Server() any       { return s.server }

func (s fakeService) Permissions(operation string, in any, _ *api.Call) []api.Permission {
	switch operation {
	case "GetCallerIdentity", "ListLayers": // the second stands for one that a service forgot
		return nil
	case "Invoke":
		return []api.Permission{{Action: "lambda:InvokeFunction", Resource: *in.(*lambdaapi.InvocationRequest).FunctionName}}
	}
	return []api.Permission{{Action: s.api.Name + ":" + operation, Resource: "*"}}
}

// fakeLambda answers Invoke with the payload, or as invoke says; nothing else is implemented.
type fakeLambda struct {
	lambdaapi.Unimplemented
	invoke func(ctx context.Context, in *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error)
}

func (f *fakeLambda) Invoke(ctx context.Context, in *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
	if f.invoke != nil {
		return f.invoke(ctx, in)
	}
	return &lambdaapi.InvocationResponse{StatusCode: new(int32(200)), Payload: in.Payload, ExecutedVersion: new("$LATEST")}, nil
}

func (f *fakeLambda) CreateFunction(_ context.Context, in *lambdaapi.CreateFunctionRequest) (*lambdaapi.FunctionConfiguration, error) {
	return &lambdaapi.FunctionConfiguration{FunctionName: in.FunctionName, CodeSize: new(int64(len(in.Code.ZipFile)))}, nil
}

type fakeSTS struct{ stsapi.Unimplemented }

func (fakeSTS) GetCallerIdentity(ctx context.Context, _ *stsapi.GetCallerIdentityRequest) (*stsapi.GetCallerIdentityResponse, error) {
	call := api.CallOf(ctx)
	return &stsapi.GetCallerIdentityResponse{Account: &call.AccountID, Arn: &call.CallerARN, UserId: &call.CallerID}, nil
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A signing is what a test signs with; the zero value is right for lambda.
type signing struct {
	keyID, secret, service, region string
	time                           time.Time
}

// sign adds the headers of a signature over r and body.
func (s signing) sign(t testing.TB, r *http.Request, body []byte) {
	t.Helper()
	set := func(field *string, standard string) {
		if *field == "" {
			*field = standard
		}
	}
	set(&s.keyID, testKeyID)
	set(&s.secret, testSecret)
	set(&s.service, "lambda")
	set(&s.region, testRegion)
	if s.time.IsZero() {
		s.time = time.Now()
	}
	hash := sha256.Sum256(body)
	err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: s.keyID, SecretAccessKey: s.secret},
		r, hex.EncodeToString(hash[:]), s.service, s.region, s.time)
	if err != nil {
		t.Fatal(err)
	}
}

// request returns a request with a body and a signature.
func (h *house) request(t testing.TB, method, path, body string, s signing) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, h.url(path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	s.sign(t, r, []byte(body))
	return r
}

// answered is what a test compares of a response.
type answered struct {
	status int
	code   string // X-Amzn-Errortype
	body   string
	header http.Header
	closed bool
}

func (h *house) do(t testing.TB, r *http.Request) answered {
	t.Helper()
	response, err := h.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, response)
}

func read(t testing.TB, response *http.Response) answered {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{response.StatusCode, response.Header.Get("X-Amzn-Errortype"), string(body), response.Header, response.Close}
}

func (h *house) unsigned(t testing.TB, method, path, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, h.url(path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}
