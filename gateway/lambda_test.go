package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// fakePlane is a data plane that records what it is asked and answers as it is told.
type fakePlane struct {
	ref     lambda.FunctionReference
	inv     *lambda.Invocation
	checked bool
	result  *lambda.Result
	err     error
}

func (p *fakePlane) Invoke(_ context.Context, ref lambda.FunctionReference, inv *lambda.Invocation) (*lambda.Result, error) {
	p.ref, p.inv = ref, inv
	return p.result, p.err
}

func (p *fakePlane) Check(_ context.Context, ref lambda.FunctionReference) error {
	p.ref, p.checked = ref, true
	return p.err
}

type fakeControl struct{ lambdaapi.Unimplemented }

func (fakeControl) Permissions(string, any, *api.Call) []api.Permission { return nil }

// invoke asks a Lambda of us-east-1 as a caller of the test account.
func (p *fakePlane) invoke(in *lambdaapi.InvocationRequest) (*lambdaapi.InvocationResponse, error) {
	ctx := api.WithCall(context.Background(), &api.Call{AccountID: testAccount, RequestID: "the-id", TraceID: "Root=1"})
	return NewLambda(fakeControl{}, p, testRegion).Invoke(ctx, in)
}

func TestAnInvocationIsTranslatedToWordsOfLambda(t *testing.T) {
	plane := &fakePlane{result: &lambda.Result{Payload: []byte(`"out"`), FunctionError: "Unhandled", ExecutedVersion: "3", LogTail: []byte("END")}}
	out, err := plane.invoke(&lambdaapi.InvocationRequest{FunctionName: new("f"), Qualifier: new("live"), Payload: []byte(`"in"`),
		LogType: new("Tail"), ClientContext: new(base64.StdEncoding.EncodeToString([]byte(`{"a":1}`)))})
	if err != nil {
		t.Fatal(err)
	}
	wantRef := lambda.FunctionReference{Region: testRegion, AccountID: testAccount, Name: "f", Qualifier: "live"}
	wantInvocation := &lambda.Invocation{RequestID: "the-id", FunctionARN: "arn:aws:lambda:us-east-1:123456789012:function:f:live",
		Payload: []byte(`"in"`), ClientContext: `{"a":1}`, TraceID: "Root=1", LogTail: true}
	wantOut := &lambdaapi.InvocationResponse{StatusCode: new(int32(200)), Payload: []byte(`"out"`), FunctionError: new("Unhandled"),
		ExecutedVersion: new("3"), LogResult: new(base64.StdEncoding.EncodeToString([]byte("END")))}
	if diff := cmp.Diff(wantRef, plane.ref); diff != "" {
		t.Errorf("reference (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantInvocation, plane.inv); diff != "" {
		t.Errorf("invocation (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantOut, out); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestAnInvocationWithoutTailOrErrorHasNoSuchHeaders(t *testing.T) {
	plane := &fakePlane{result: &lambda.Result{Payload: []byte("1"), ExecutedVersion: lambda.LatestVersion, LogTail: []byte("END")}}
	out, err := plane.invoke(&lambdaapi.InvocationRequest{FunctionName: new("f")})
	if err != nil {
		t.Fatal(err)
	}
	if out.LogResult != nil || out.FunctionError != nil {
		t.Errorf("got %+v", out)
	}
}

func TestADryRunOnlyChecks(t *testing.T) {
	plane := &fakePlane{}
	out, err := plane.invoke(&lambdaapi.InvocationRequest{FunctionName: new("f"), InvocationType: new(lambdaapi.InvocationTypeDryRun)})
	if err != nil || *out.StatusCode != 204 || !plane.checked || plane.inv != nil {
		t.Errorf("got %+v, %v; checked %t, invoked %t", out, err, plane.checked, plane.inv != nil)
	}
	plane.err = lambda.Errorf(lambda.NotFound, "check", "Function not found")
	if _, err := plane.invoke(&lambdaapi.InvocationRequest{FunctionName: new("f"), InvocationType: new(lambdaapi.InvocationTypeDryRun)}); !errors.Is(err, plane.err) {
		t.Errorf("got %v", err)
	}
}

func TestWhatCannotBeRunIsRefusedBeforeTheDataPlane(t *testing.T) {
	tooLong := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(" "), lambda.MaxClientContextBytes))
	for name, test := range map[string]struct {
		in   lambdaapi.InvocationRequest
		want string
	}{
		"event":             {lambdaapi.InvocationRequest{InvocationType: new(lambdaapi.InvocationTypeEvent)}, "NotImplementedException"},
		"durable execution": {lambdaapi.InvocationRequest{DurableExecutionName: new("d")}, "NotImplementedException"},
		"tenant":            {lambdaapi.InvocationRequest{TenantId: new("t")}, "NotImplementedException"},
		"another region": {lambdaapi.InvocationRequest{FunctionName: new("arn:aws:lambda:eu-west-1:123456789012:function:f")},
			"Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"},
		"two qualifiers":      {lambdaapi.InvocationRequest{FunctionName: new("f:1"), Qualifier: new("2")}, "does not match the specified qualifier"},
		"not a name":          {lambdaapi.InvocationRequest{FunctionName: new("f f")}, "is not a function name"},
		"context too long":    {lambdaapi.InvocationRequest{ClientContext: &tooLong}, "no more than 3583 bytes"},
		"context not base64":  {lambdaapi.InvocationRequest{ClientContext: new("{}")}, "valid Base64-encoded JSON"},
		"context is not JSON": {lambdaapi.InvocationRequest{ClientContext: new("e30K{")}, "valid Base64-encoded JSON"},
	} {
		if test.in.FunctionName == nil {
			test.in.FunctionName = new("f")
		}
		plane := &fakePlane{result: &lambda.Result{}}
		_, err := plane.invoke(&test.in)
		if err == nil || !strings.Contains(err.Error(), test.want) || plane.inv != nil || plane.checked {
			t.Errorf("%s: got %v, want %q; reached the data plane: %t", name, err, test.want, plane.inv != nil)
		}
	}
}
