package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/lambdaapi"
)

func TestAnSDKInvokesAndReadsEveryHeaderOfTheAnswer(t *testing.T) {
	h := openHouse(t)
	var seen api.Call
	h.lambda.invoke = func(ctx context.Context, in *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		seen = *api.CallOf(ctx)
		return &lambdaapi.InvocationResponse{StatusCode: new(int32(200)), Payload: in.Payload, ExecutedVersion: new("7"),
			FunctionError: new("Unhandled"), LogResult: new("bG9n")}, nil
	}
	out, err := h.lambdaClient().Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: new("echo"), Payload: []byte(`{"a":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{string(out.Payload), *out.ExecutedVersion, *out.FunctionError, *out.LogResult}
	if diff := cmp.Diff([]string{`{"a":1}`, "7", "Unhandled", "bG9n"}, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(seen.UserAgent, "aws-sdk-go-v2/") || time.Since(seen.Time) > time.Minute || len(seen.RequestID) != 36 {
		t.Errorf("call %+v lacks user agent, time or request id", seen)
	}
	seen.UserAgent, seen.Time, seen.RequestID, seen.TraceID = "", time.Time{}, "", ""
	want := api.Call{Region: testRegion, AccountID: testAccount, CallerARN: testUserARN, CallerID: "AIDAALICE", SourceIP: "127.0.0.1"}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("call (-want +got):\n%s", diff)
	}
}

func TestEveryServiceIsServedOnOnePort(t *testing.T) {
	h := openHouse(t)
	identity, err := awssts.NewFromConfig(h.awsConfig()).GetCallerIdentity(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{testAccount, testUserARN, "AIDAALICE"}, []string{*identity.Account, *identity.Arn, *identity.UserId}); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	for _, test := range []struct{ service, path, target, contentType, body, wantBody string }{
		{"lambda", "/2015-03-31/functions", "", "", "", `"Type":"Service"`},
		{"logs", "/", "Logs_20140328.DescribeLogGroups", "application/x-amz-json-1.1", "{}", `"__type":"NotImplementedException"`},
		{"iam", "/", "", "application/x-www-form-urlencoded", "Action=ListRoles&Version=2010-05-08", "<Code>NotImplementedException</Code>"},
	} {
		r := h.unsigned(t, http.MethodPost, test.path, test.body)
		if test.service == "lambda" {
			r.Method = http.MethodGet
		}
		if test.target != "" {
			r.Header.Set("X-Amz-Target", test.target)
		}
		if test.contentType != "" {
			r.Header.Set("Content-Type", test.contentType)
		}
		signing{service: test.service}.sign(t, r, []byte(test.body))
		got := h.do(t, r)
		if got.status != http.StatusNotImplemented || !strings.Contains(got.body, test.wantBody) {
			t.Errorf("%s: status %d, body %s, want the typed refusal with %s", test.service, got.status, got.body, test.wantBody)
		}
	}
}

func TestEachCallHasItsOwnRequestID(t *testing.T) {
	h := openHouse(t)
	seen := map[string]bool{}
	for range 3 {
		got := h.do(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{}))
		id := got.header.Get("X-Amzn-Requestid")
		if len(id) != 36 || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) || seen[id] {
			t.Errorf("request id %q is not a new UUID version 4", id)
		}
		seen[id] = true
	}
}

func TestAnInvocationHasTheTraceOfItsCallerOrANewOne(t *testing.T) {
	h := openHouse(t)
	var seen string
	h.lambda.invoke = func(ctx context.Context, _ *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		seen = api.CallOf(ctx).TraceID
		return &lambdaapi.InvocationResponse{StatusCode: new(int32(200))}, nil
	}
	fresh := regexp.MustCompile(`^Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0$`)
	const sent = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
	for _, test := range []struct {
		sent string
		kept bool
	}{{"", false}, {sent, true}, {sent + strings.Repeat(";a=b", 200), false}} {
		r := h.request(t, http.MethodPost, invocationsPath, "{}", signing{})
		r.Header.Set(traceHeader, test.sent)
		got := h.do(t, r)
		if got.header.Get(traceHeader) != seen || test.kept != (seen == test.sent) || !test.kept && !fresh.MatchString(seen) {
			t.Errorf("sent %.80q: the function saw %.80q, the answer says %.80q", test.sent, seen, got.header.Get(traceHeader))
		}
	}
}

func TestADeniedCallNeverReachesTheService(t *testing.T) {
	h := openHouse(t)
	h.identity.deny("lambda:InvokeFunction")
	h.lambda.invoke = func(context.Context, *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		t.Error("the service was called")
		return nil, nil
	}
	_, err := h.lambdaClient().Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: new("echo")})
	fault, ok := errors.AsType[smithy.APIError](err)
	if !ok || fault.ErrorCode() != "AccessDeniedException" || !strings.HasPrefix(fault.ErrorMessage(),
		"User: "+testUserARN+" is not authorized to perform: lambda:InvokeFunction on resource: echo") {
		t.Errorf("got %v", err)
	}
}

func TestADenialInAQueryServiceHasTheShorterCode(t *testing.T) {
	h := openHouse(t)
	h.identity.deny("sts:AssumeRole")
	_, err := awssts.NewFromConfig(h.awsConfig()).AssumeRole(t.Context(),
		&awssts.AssumeRoleInput{RoleArn: new("arn:aws:iam::123456789012:role/r"), RoleSessionName: new("session")})
	if fault, ok := errors.AsType[smithy.APIError](err); !ok || fault.ErrorCode() != "AccessDenied" {
		t.Errorf("got %v", err)
	}
}

func TestAnOperationWithoutADeclaredPermissionIsRefused(t *testing.T) {
	h := openHouse(t)
	got := h.do(t, h.request(t, http.MethodGet, "/2018-10-31/layers", "", signing{}))
	if got.status != http.StatusInternalServerError || got.code != "ServiceException" {
		t.Errorf("status %d, code %q: a forgotten permission must not open the operation", got.status, got.code)
	}
	if !strings.Contains(h.log.String(), "no permission is declared for lambda:ListLayers") {
		t.Error("the log does not name the mistake")
	}
}

func TestAPanicIsAnsweredAndTheConnectionSurvives(t *testing.T) {
	h := openHouse(t)
	h.lambda.invoke = func(context.Context, *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		panic("the secret reason")
	}
	got := h.do(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{}))
	if got.status != http.StatusInternalServerError || got.code != "ServiceException" || strings.Contains(got.body, "secret reason") || got.closed {
		t.Errorf("got %+v", got)
	}
	if log := h.log.String(); !strings.Contains(log, "the secret reason") || !strings.Contains(log, "gateway_test.go") {
		t.Error("the log has no value or stack of the panic")
	}
	h.lambda.invoke = nil
	if got := h.do(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{})); got.status != http.StatusOK {
		t.Errorf("status %d after the panic", got.status)
	}
}

func TestTheLogHasOneLinePerCallAndNoPayload(t *testing.T) {
	h := openHouse(t)
	h.do(t, h.request(t, http.MethodPost, invocationsPath, `{"password":"hunter2"}`, signing{}))
	lines := strings.Count(h.log.String(), "msg=call")
	log := h.log.String()
	if lines != 1 || !strings.Contains(log, "operation=Invoke") || !strings.Contains(log, "caller="+testUserARN) || !strings.Contains(log, "status=200") {
		t.Errorf("%d lines:\n%s", lines, log)
	}
	for _, secret := range []string{"hunter2", testSecret, "Signature="} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestStrangersCannotFillTheLog(t *testing.T) {
	var log safeBuffer
	h := openHouse(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	h.do(t, h.unsigned(t, http.MethodPost, invocationsPath, "{}"))
	h.do(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{secret: "wrong"}))
	h.do(t, h.request(t, http.MethodGet, "/2015-03-31/nothing", "", signing{}))
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), "status=404") {
		t.Errorf("want one line, about the signed call:\n%s", log.String())
	}
}

func TestACallRunsToItsEndThoughItsClientLeaves(t *testing.T) {
	h := openHouse(t)
	entered, left, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	h.lambda.invoke = func(ctx context.Context, _ *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		close(entered)
		<-left
		ended <- ctx.Err()
		return nil, errors.New("nobody reads this")
	}
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-entered
		leave()
	}()
	if _, err := h.client.Do(h.request(t, http.MethodPost, invocationsPath, "{}", signing{}).WithContext(ctx)); err == nil {
		t.Fatal("the client got an answer")
	}
	close(left)
	if err := <-ended; err != nil {
		t.Errorf("the context ended with %v", err)
	}
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	complete := openHouse(t).config
	for name, change := range map[string]func(*Config){
		"no verifier":    func(c *Config) { c.Verifier = nil },
		"no identity":    func(c *Config) { c.Identity = nil },
		"no certificate": func(c *Config) { c.Certificate = nil },
		"no region":      func(c *Config) { c.Region = "" },
		"no services":    func(c *Config) { c.Services = nil },
		"same twice":     func(c *Config) { c.Services = append(c.Services[:1:1], c.Services[0]) },
	} {
		config := complete
		change(&config)
		if _, err := New(config); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
