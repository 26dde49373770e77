package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awslambda "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// told is what a client reads of an error.
type told struct {
	status        int
	code, message string
	retryAfter    string // seconds
	milliseconds  string // of the header that SDKs read
}

func TestEveryKindOfErrorIsToldAsAWSDoes(t *testing.T) {
	const hidden = "Service encountered an internal error."
	tests := map[lambda.Kind]told{
		lambda.Internal:         {500, "ServiceException", hidden, "", ""},
		lambda.InvalidParameter: {400, "InvalidParameterValueException", "the message", "", ""},
		lambda.NotFound:         {404, "ResourceNotFoundException", "the message", "", ""},
		lambda.Conflict:         {409, "ResourceConflictException", "the message", "", ""},
		lambda.NotReady:         {409, "ResourceConflictException", "the message", "", ""},
		lambda.Throttled:        {429, "TooManyRequestsException", "the message", "1", "1000"},
		lambda.Capacity:         {503, "ServiceException", "the message", "1", "1000"},
		lambda.Unavailable:      {503, "ServiceException", "the message", "1", "200"},
		lambda.EnvironmentGone:  {503, "ServiceException", "the message", "1", "200"},
		lambda.TooLarge:         {413, "RequestEntityTooLargeException", "the message", "", ""},
		lambda.InvalidRuntime:   {502, "InvalidRuntimeException", "the message", "", ""},
		lambda.AccessDenied:     {403, "AccessDeniedException", "the message", "", ""},
		lambda.Corrupt:          {500, "ServiceException", hidden, "", ""},
		lambda.InvalidPayload:   {400, "InvalidRequestContentException", "the message", "", ""},
		lambda.Busy:             {503, "ServiceException", "the message", "1", "200"},
	}
	h := openHouse(t)
	client := h.lambdaClient()
	for kind := lambda.Kind(0); kind.String() != "unknown"; kind++ {
		want, ok := tests[kind]
		if !ok || int(kind) >= len(translations) {
			t.Errorf("kind %d (%s) is new: say here and in translations what clients see of it", kind, kind)
			continue
		}
		t.Run(kind.String(), func(t *testing.T) {
			failure := &lambda.Error{Kind: kind, Op: "the operation", Message: "the message", Err: errors.New("the cause")}
			got := h.failWith(t, client, fmt.Errorf("wrapped by a neighbour: %w", failure))
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			bare := h.failWith(t, client, &lambda.Error{Kind: kind, Op: "the operation"})
			if bare.message == "" || strings.Contains(bare.message, "operation:") || bare.code != want.code {
				t.Errorf("without a message: %+v", bare)
			}
		})
	}
}

// failWith makes Invoke fail with err and returns what an SDK client reads.
func (h *house) failWith(t *testing.T, client *awslambda.Client, err error) told {
	t.Helper()
	h.lambda.invoke = func(context.Context, *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		return nil, err
	}
	_, err = client.Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: new("echo")})
	fault, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		t.Fatalf("the SDK cannot read the error: %v", err)
	}
	response, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok {
		t.Fatalf("no response in %v", err)
	}
	return told{response.HTTPStatusCode(), fault.ErrorCode(), fault.ErrorMessage(), response.Response.Header.Get("Retry-After"),
		response.Response.Header.Get("X-Amz-Retry-After")}
}

// The SDKs' own back-off is over before a process has started again, or room was made.
func TestAnSDKWaitsAsLongAsItIsTold(t *testing.T) {
	h := openHouse(t)
	var calls []time.Time
	h.lambda.invoke = func(context.Context, *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		if calls = append(calls, time.Now()); len(calls) < 3 {
			return nil, lambda.Errorf(lambda.Unavailable, "invoke", "the worker is restarting")
		}
		return &lambdaapi.InvocationResponse{StatusCode: new(int32(200))}, nil
	}
	config := h.awsConfig()
	config.RetryMaxAttempts = 3
	config.Retryer = func() aws.Retryer { return retry.NewStandard() }
	if _, err := awslambda.NewFromConfig(config).Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: new("echo")}); err != nil || len(calls) != 3 {
		t.Fatalf("%d calls, %v", len(calls), err)
	}
	if waited := calls[2].Sub(calls[0]); waited < 2*restartAfter {
		t.Errorf("three attempts within %s", waited)
	}
}

func TestServicesHaveTheirOwnWordForUnavailable(t *testing.T) {
	for service, want := range map[string]string{"lambda": "ServiceException", "logs": "ServiceUnavailableException", "iam": "ServiceUnavailable", "sts": "ServiceUnavailable"} {
		x := &exchange{ResponseWriter: httptest.NewRecorder(), route: &route{api: &api.Service{Name: service}}}
		fault, ok := x.fault(lambda.Errorf(lambda.Unavailable, "append", "closed")).(api.Fault)
		if !ok || fault.ErrorCode() != want || fault.HTTPStatus() != http.StatusServiceUnavailable || x.Header().Get("X-Amz-Retry-After") == "" {
			t.Errorf("%s answers %v", service, fault)
		}
	}
}

func TestTheSDKKnowsTheExceptionsByType(t *testing.T) {
	h := openHouse(t)
	h.lambda.invoke = func(context.Context, *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		return nil, lambda.Errorf(lambda.Throttled, "admit", "Rate Exceeded.")
	}
	_, err := h.lambdaClient().Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: new("echo")})
	if throttled, ok := errors.AsType[*types.TooManyRequestsException](err); !ok || *throttled.Message != "Rate Exceeded." {
		t.Errorf("got %v", err)
	}
}

func TestAFaultOfTheServicePassesAsItIs(t *testing.T) {
	h := openHouse(t)
	got := h.failWith(t, h.lambdaClient(), fmt.Errorf("control: %w", &lambdaapi.TooManyRequestsException{
		Message: new("Rate Exceeded."), Reason: new("ReservedFunctionConcurrentInvocationLimitExceeded"), RetryAfterSeconds: new("7")}))
	if want := (told{429, "TooManyRequestsException", "Rate Exceeded.", "7", ""}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got = h.failWith(t, h.lambdaClient(), api.NotImplemented("lambda", "Invoke"))
	if got.status != http.StatusNotImplemented || got.code != "NotImplementedException" {
		t.Errorf("got %+v", got)
	}
}

func TestTheCauseOfAnInternalErrorIsLoggedWithTheRequestID(t *testing.T) {
	h := openHouse(t)
	h.lambda.invoke = func(context.Context, *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
		return nil, errors.New("disk /var/lib/cloister/metadata.db is full")
	}
	got := h.do(t, h.request(t, http.MethodPost, invocationsPath, "{}", signing{}))
	if got.status != http.StatusInternalServerError || strings.Contains(got.body, "metadata.db") {
		t.Errorf("status %d, body %s", got.status, got.body)
	}
	for line := range strings.Lines(h.log.String()) {
		if strings.Contains(line, "metadata.db") && strings.Contains(line, got.header.Get("X-Amzn-Requestid")) && strings.Contains(line, "level=ERROR") {
			return
		}
	}
	t.Errorf("no error with cause and request id in\n%s", h.log)
}

// The SDK's own judge of what to send again decides whether our codes and statuses are right.
func TestSDKsSendAgainWhatMayBeSentAgain(t *testing.T) {
	h := openHouse(t)
	for kind, want := range map[lambda.Kind]int{
		lambda.Throttled: 3, lambda.Unavailable: 3, lambda.EnvironmentGone: 3, lambda.Capacity: 3, lambda.Internal: 3,
		lambda.InvalidParameter: 1, lambda.NotFound: 1, lambda.NotReady: 1, lambda.AccessDenied: 1, lambda.TooLarge: 1,
	} {
		calls := 0
		h.lambda.invoke = func(context.Context, *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
			calls++
			return nil, lambda.Errorf(kind, "invoke", "the message")
		}
		config := h.awsConfig()
		config.RetryMaxAttempts = 3
		config.Retryer = func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
			})
		}
		client := awslambda.NewFromConfig(config)
		if _, err := client.Invoke(t.Context(), &awslambda.InvokeInput{FunctionName: new("echo")}); err == nil {
			t.Error("no error")
		}
		if calls != want {
			t.Errorf("%s: sent %d times, want %d", kind, calls, want)
		}
	}
}
