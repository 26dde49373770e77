package control

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/lambdaapi"
)

func callOf(ctx context.Context) *api.Call { return api.CallOf(ctx) }

func TestEveryOperationOfTheAPIHasASubject(t *testing.T) {
	for _, operation := range lambdaapi.Service.Operations {
		if _, ok := subjects[operation.Name]; !ok {
			t.Errorf("%s has no subject", operation.Name)
		}
	}
	if got, want := len(subjects), len(lambdaapi.Service.Operations); got != want {
		t.Errorf("%d subjects for %d operations", got, want)
	}
}

func TestThePermissionNamesActionAndResource(t *testing.T) {
	s := &Server{region: region}
	const prefix = "arn:aws:lambda:us-east-1:111111111111:"
	for _, test := range []struct {
		operation        string
		in               any
		action, resource string
	}{
		{"Invoke", &lambdaapi.InvocationRequest{FunctionName: new("f")}, "lambda:InvokeFunction", prefix + "function:f"},
		{"Invoke", &lambdaapi.InvocationRequest{FunctionName: new("f"), Qualifier: new("1")}, "lambda:InvokeFunction", prefix + "function:f:1"},
		{"Invoke", &lambdaapi.InvocationRequest{FunctionName: new("f:live")}, "lambda:InvokeFunction", prefix + "function:f:live"},
		{"Invoke", &lambdaapi.InvocationRequest{FunctionName: new("arn:aws:lambda:us-east-1:222222222222:function:f")}, "lambda:InvokeFunction",
			"arn:aws:lambda:us-east-1:222222222222:function:f"},
		{"Invoke", &lambdaapi.InvocationRequest{FunctionName: new("f:1"), Qualifier: new("2")}, "lambda:InvokeFunction", "*"},
		{"InvokeWithResponseStream", &lambdaapi.InvokeWithResponseStreamRequest{FunctionName: new("f"), Qualifier: new("1")}, "lambda:InvokeFunction", prefix + "function:f:1"},
		{"CreateFunction", &lambdaapi.CreateFunctionRequest{FunctionName: new("f")}, "lambda:CreateFunction", prefix + "function:f"},
		{"GetFunction", &lambdaapi.GetFunctionRequest{FunctionName: new("f"), Qualifier: new("1")}, "lambda:GetFunction", prefix + "function:f"},
		{"DeleteFunction", &lambdaapi.DeleteFunctionRequest{FunctionName: new("f:1")}, "lambda:DeleteFunction", prefix + "function:f"},
		{"ListFunctions", &lambdaapi.ListFunctionsRequest{}, "lambda:ListFunctions", "*"},
		{"ListTags", &lambdaapi.ListTagsRequest{Resource: new(prefix + "function:f")}, "lambda:ListTags", prefix + "function:f"},
		{"PutProvisionedConcurrencyConfig", &lambdaapi.PutProvisionedConcurrencyConfigRequest{FunctionName: new("f"), Qualifier: new("live")},
			"lambda:PutProvisionedConcurrencyConfig", prefix + "function:f:live"},
		{"PublishLayerVersion", &lambdaapi.PublishLayerVersionRequest{LayerName: new("l")}, "lambda:PublishLayerVersion", prefix + "layer:l"},
		{"GetLayerVersion", &lambdaapi.GetLayerVersionRequest{LayerName: new("l"), VersionNumber: new(int64(3))}, "lambda:GetLayerVersion", prefix + "layer:l:3"},
		{"GetLayerVersion", &lambdaapi.GetLayerVersionRequest{LayerName: new("arn:aws:lambda:us-east-1:222222222222:layer:l"), VersionNumber: new(int64(3))},
			"lambda:GetLayerVersion", "arn:aws:lambda:us-east-1:222222222222:layer:l:3"},
		{"GetLayerVersionByArn", &lambdaapi.GetLayerVersionByArnRequest{Arn: new(prefix + "layer:l:3")}, "lambda:GetLayerVersion", prefix + "layer:l:3"},
		{"UpdateEventSourceMapping", &lambdaapi.UpdateEventSourceMappingRequest{UUID: new("u")}, "lambda:UpdateEventSourceMapping", prefix + "event-source-mapping:u"},
		{"GetCapacityProvider", &lambdaapi.GetCapacityProviderRequest{CapacityProviderName: new("c")}, "lambda:GetCapacityProvider", prefix + "capacity-provider:c"},
		{"GetCodeSigningConfig", &lambdaapi.GetCodeSigningConfigRequest{CodeSigningConfigArn: new(prefix + "code-signing-config:c")},
			"lambda:GetCodeSigningConfig", prefix + "code-signing-config:c"},
		{"GetPolicy", nil, "lambda:GetPolicy", "*"},
	} {
		want := []api.Permission{{Action: test.action, Resource: test.resource}}
		if diff := cmp.Diff(want, s.Permissions(test.operation, test.in, callOf(me))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.operation, diff)
		}
	}
}

func TestTagsAreConditionKeysAndNeedTheirOwnPermission(t *testing.T) {
	s := &Server{region: region}
	got := s.Permissions("CreateFunction", &lambdaapi.CreateFunctionRequest{FunctionName: new("f"), Tags: map[string]string{"b": "2", "a": "1"}}, callOf(me))
	context := map[string][]string{"aws:TagKeys": {"a", "b"}, "aws:RequestTag/a": {"1"}, "aws:RequestTag/b": {"2"}}
	want := []api.Permission{
		{Action: "lambda:CreateFunction", Resource: "arn:aws:lambda:us-east-1:111111111111:function:f", Context: context},
		{Action: "lambda:TagResource", Resource: "arn:aws:lambda:us-east-1:111111111111:function:f", Context: context},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got = s.Permissions("UntagResource", &lambdaapi.UntagResourceRequest{Resource: new("r"), TagKeys: []string{"a"}}, callOf(me))
	if !slices.Equal(got[0].Context["aws:TagKeys"], []string{"a"}) {
		t.Errorf("got %v", got)
	}
}
