package control

import (
	"strings"
	"testing"

	"cloister/api/lambdaapi"
	"cloister/lambda"
)

func TestTheARNIsQualifiedAsTheCallerQualifies(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	h.publish("f")
	const arn = "arn:aws:lambda:us-east-1:111111111111:function:f"
	for _, test := range []struct{ name, qualifier, want, version string }{
		{"f", "", arn, "$LATEST"},
		{"f", "$LATEST", arn + ":$LATEST", "$LATEST"},
		{"f", "1", arn + ":1", "1"},
		{"f:1", "", arn + ":1", "1"},
		{"function:f", "", arn, "$LATEST"},
		{"111111111111:function:f:1", "1", arn + ":1", "1"},
		{arn, "", arn, "$LATEST"},
		{arn + ":1", "", arn + ":1", "1"},
	} {
		got := h.get(test.name, test.qualifier)
		if *got.FunctionArn != test.want || *got.Version != test.version {
			t.Errorf("%s %s: got %s, version %s", test.name, test.qualifier, *got.FunctionArn, *got.Version)
		}
	}
}

func TestWhatIsNotThereIsNotFound(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	const arn = "arn:aws:lambda:us-east-1:111111111111:function:"
	for _, test := range []struct{ name, qualifier, message string }{
		{"g", "", "Function not found: " + arn + "g"},
		{"g", "1", "Function not found: " + arn + "g:1"},
		{"f", "1221", "Function not found: " + arn + "f:1221"},
		{"f", "live", "Function not found: " + arn + "f:live"},
		{"f", "01", "Function not found: " + arn + "f:01"},
		{"f", "99999999999999999999", "Function not found: " + arn + "f:99999999999999999999"},
		{"f", "$latest", "Function not found: " + arn + "f:$latest"},
		{strings.Repeat("a", 65), "", "Function not found: " + arn + strings.Repeat("a", 65)},
		{"arn:aws:lambda:eu-west-1:111111111111:function:f", "", "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"},
	} {
		in := &lambdaapi.GetFunctionRequest{FunctionName: new(test.name)}
		if test.qualifier != "" {
			in.Qualifier = new(test.qualifier)
		}
		_, err := h.GetFunction(me, in)
		refused(t, err, "ResourceNotFoundException", 404, test.message)
	}
	_, err := h.GetFunction(me, &lambdaapi.GetFunctionRequest{FunctionName: new("f:1"), Qualifier: new("2")})
	refusedBelow(t, err, lambda.InvalidParameter, "The derived qualifier from the function name does not match the specified qualifier.")
}

func TestAnotherAccountSeesAndChangesNothing(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	other := as("222222222222")
	const arn = "arn:aws:lambda:us-east-1:111111111111:function:f"
	calls := map[string]func(name string) error{
		"get": func(name string) error {
			_, err := h.GetFunction(other, &lambdaapi.GetFunctionRequest{FunctionName: new(name)})
			return err
		},
		"update": func(name string) error {
			_, err := h.UpdateFunctionConfiguration(other, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new(name)})
			return err
		},
		"delete": func(name string) error {
			_, err := h.DeleteFunction(other, &lambdaapi.DeleteFunctionRequest{FunctionName: new(name)})
			return err
		},
		"versions": func(name string) error {
			_, err := h.ListVersionsByFunction(other, &lambdaapi.ListVersionsByFunctionRequest{FunctionName: new(name)})
			return err
		},
		"tag": func(name string) error {
			_, err := h.ListTags(other, &lambdaapi.ListTagsRequest{Resource: new(arn)})
			return err
		},
	}
	for name, call := range calls {
		refused(t, call(arn), "AccessDeniedException", 403, "The function belongs to another account.")
		if name != "tag" {
			refused(t, call("f"), "ResourceNotFoundException", 404, "Function not found: arn:aws:lambda:us-east-1:222222222222:function:f")
		}
	}
	list, err := h.ListFunctions(other, &lambdaapi.ListFunctionsRequest{FunctionVersion: new("ALL")})
	if err != nil || len(list.Functions) != 0 {
		t.Errorf("listed %v, %v", list, err)
	}
	if _, err := h.CreateFunction(other, h.newFunction("f")); err != nil {
		t.Errorf("the same name in another account: %v", err)
	}
	h.get("f", "")
}
