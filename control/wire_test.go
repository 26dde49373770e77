package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// front answers as gateway does, without signatures and policies.
func (h *house) front(w http.ResponseWriter, r *http.Request) {
	var operation *api.Operation
	out, err := func() (any, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		var labels api.Labels
		if operation, labels, err = lambdaapi.Service.Match(r, body); err != nil {
			return nil, err
		}
		in, err := lambdaapi.Service.Decode(operation, labels, r, body)
		if err != nil {
			return nil, err
		}
		return operation.Call(me, h.Server, in)
	}()
	if err != nil {
		lambdaapi.Service.EncodeError(w, operation, "request-1", err)
		return
	}
	lambdaapi.Service.Encode(w, operation, "request-1", out)
}

// client is an AWS SDK that talks to the house over HTTP.
func (h *house) client() (*sdk.Client, string) {
	server := httptest.NewServer(http.HandlerFunc(h.front))
	h.t.Cleanup(server.Close)
	return sdk.NewFromConfig(aws.Config{Region: region, BaseEndpoint: new(server.URL), HTTPClient: server.Client(),
		Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", ""),
		Retryer:     func() aws.Retryer { return aws.NopRetryer{} }}), server.URL
}

func TestTheWaitersOfAnSDKEnd(t *testing.T) {
	h := newHouse(t)
	client, _ := h.client()
	fast := func(o *sdk.FunctionActiveV2WaiterOptions) {
		o.MinDelay, o.MaxDelay = time.Millisecond, time.Millisecond
	}
	get := &sdk.GetFunctionInput{FunctionName: new("f")}
	settings := &sdk.GetFunctionConfigurationInput{FunctionName: new("f")}
	version := &sdk.GetFunctionConfigurationInput{FunctionName: new("f"), Qualifier: new("1")}
	all := func() []error {
		return []error{
			sdk.NewFunctionExistsWaiter(client).Wait(t.Context(), get, 5*time.Second),
			sdk.NewFunctionActiveV2Waiter(client, fast).Wait(t.Context(), get, 5*time.Second),
			sdk.NewFunctionActiveWaiter(client, func(o *sdk.FunctionActiveWaiterOptions) {
				o.MinDelay, o.MaxDelay = time.Millisecond, time.Millisecond
			}).Wait(t.Context(), settings, 5*time.Second),
			sdk.NewFunctionUpdatedV2Waiter(client, func(o *sdk.FunctionUpdatedV2WaiterOptions) {
				o.MinDelay, o.MaxDelay = time.Millisecond, time.Millisecond
			}).Wait(t.Context(), get, 5*time.Second),
			sdk.NewPublishedVersionActiveWaiter(client, func(o *sdk.PublishedVersionActiveWaiterOptions) {
				o.MinDelay, o.MaxDelay = time.Millisecond, time.Millisecond
			}).Wait(t.Context(), version, 5*time.Second),
		}
	}
	_, err := client.CreateFunction(t.Context(), &sdk.CreateFunctionInput{FunctionName: new("f"), Runtime: "python3.11", Handler: new("index.handler"),
		Role: new(role), Code: &types.FunctionCode{ZipFile: zipOf(t, "1")}, Publish: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(all()...); err != nil {
		t.Error(err)
	}
	// A failed update ends the update waiter with an error, at once.
	h.preparing(func(context.Context, string) error { return lambda.Errorf(lambda.InvalidRuntime, "prepare", "gone") })
	if _, err := client.UpdateFunctionCode(t.Context(), &sdk.UpdateFunctionCodeInput{FunctionName: new("f"), ZipFile: zipOf(t, "2")}); err != nil {
		t.Fatal(err)
	}
	h.settled("f")
	for i, err := range all() {
		if failed := err != nil; failed != (i == 3) {
			t.Errorf("waiter %d: %v", i, err)
		}
	}
}

func TestTerraformsSequenceIsAnswered(t *testing.T) {
	h := newHouse(t)
	client, _ := h.client()
	c := t.Context()
	created, err := client.CreateFunction(c, &sdk.CreateFunctionInput{FunctionName: new("tf"), Runtime: "nodejs20.x", Handler: new("index.handler"), Role: new(role),
		Code: &types.FunctionCode{ZipFile: zipOf(t, "1")}, MemorySize: new(int32(128)), Timeout: new(int32(3)), Architectures: []types.Architecture{"x86_64"},
		EphemeralStorage: &types.EphemeralStorage{Size: new(int32(512))}, PackageType: types.PackageTypeZip, Publish: true,
		TracingConfig: &types.TracingConfig{Mode: types.TracingModePassThrough}, Tags: map[string]string{"team": "a"}})
	if err != nil {
		t.Fatal(err)
	}
	h.settled("tf")
	read := func(qualifier *string) *sdk.GetFunctionOutput {
		t.Helper()
		got, err := client.GetFunction(c, &sdk.GetFunctionInput{FunctionName: new("tf"), Qualifier: qualifier})
		if err != nil {
			t.Fatal(err)
		}
		if got.Code == nil { // the provider dereferences it unseen
			t.Fatal("GetFunction without Code")
		}
		versions, err := client.ListVersionsByFunction(c, &sdk.ListVersionsByFunctionInput{FunctionName: new("tf"), MaxItems: new(int32(10000))})
		if err != nil || len(versions.Versions) == 0 {
			t.Fatal(versions, err)
		}
		if _, err := client.GetFunctionCodeSigningConfig(c, &sdk.GetFunctionCodeSigningConfigInput{FunctionName: new("tf")}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.GetFunctionConcurrency(c, &sdk.GetFunctionConcurrencyInput{FunctionName: new("tf")}); err != nil {
			t.Fatal(err)
		}
		if tags, err := client.ListTags(c, &sdk.ListTagsInput{Resource: created.FunctionArn}); err != nil || tags.Tags["team"] != "a" {
			t.Fatal(tags, err)
		}
		return got
	}
	if got := read(nil); got.Tags["team"] != "a" || got.Configuration.State != types.StateActive || got.Concurrency != nil {
		t.Errorf("read %v", got.Configuration.State)
	}
	if got := read(new("1")); *got.Configuration.Version != "1" {
		t.Errorf("read %v", *got.Configuration.Version)
	}
	// An update of the configuration, then of the code, as the provider applies a plan.
	updated, err := client.UpdateFunctionConfiguration(c, &sdk.UpdateFunctionConfigurationInput{FunctionName: new("tf"), Timeout: new(int32(10)),
		Environment: &types.Environment{Variables: map[string]string{"STAGE": "1"}}, VpcConfig: &types.VpcConfig{SubnetIds: []string{}, SecurityGroupIds: []string{}},
		DeadLetterConfig: &types.DeadLetterConfig{TargetArn: new("")}, KMSKeyArn: new(""), Layers: []string{}, FileSystemConfigs: []types.FileSystemConfig{}})
	if err != nil {
		t.Fatal(err)
	}
	if updated.LastUpdateStatus != types.LastUpdateStatusInProgress {
		t.Errorf("status %s", updated.LastUpdateStatus)
	}
	h.settled("tf")
	if _, err := client.UpdateFunctionCode(c, &sdk.UpdateFunctionCodeInput{FunctionName: new("tf"), ZipFile: zipOf(t, "2"),
		Architectures: []types.Architecture{"x86_64"}}); err != nil {
		t.Fatal(err)
	}
	h.settled("tf")
	published, err := client.PublishVersion(c, &sdk.PublishVersionInput{FunctionName: new("tf")})
	if err != nil || *published.Version != "2" {
		t.Fatal(published, err)
	}
	if _, err := client.DeleteFunction(c, &sdk.DeleteFunctionInput{FunctionName: new("tf")}); err != nil {
		t.Fatal(err)
	}
	_, err = client.GetFunction(c, &sdk.GetFunctionInput{FunctionName: new("tf")})
	if gone, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok || !strings.HasPrefix(*gone.Message, "Function not found: ") {
		t.Errorf("after deletion: %v", err)
	}
}

// What boto3 sees: the bytes of the answer, member by member.
func TestTheJSONIsThatOfAWS(t *testing.T) {
	h := newHouse(t)
	_, url := h.client()
	h.now = func() time.Time { return time.Date(2026, 11, 3, 4, 5, 6, 0, time.UTC) }
	in := h.newFunction("f")
	in.Environment = &lambdaapi.Environment{}
	if _, err := h.CreateFunction(me, in); err != nil {
		t.Fatal(err)
	}
	c := h.settled("f")
	status, got := fetch(t, http.MethodGet, url+"/2015-03-31/functions/f", "")
	want := map[string]any{
		"Code": map[string]any{"RepositoryType": "S3"},
		"Configuration": map[string]any{
			"Architectures": []any{"x86_64"}, "CodeSha256": *c.CodeSha256, "CodeSize": float64(*c.CodeSize), "Description": "",
			"Environment": map[string]any{"Variables": map[string]any{}}, "EphemeralStorage": map[string]any{"Size": 512.0},
			"FunctionArn": "arn:aws:lambda:us-east-1:111111111111:function:f", "FunctionName": "f", "Handler": "index.handler",
			"LastModified": "2026-11-03T04:05:06.000+0000", "LastUpdateStatus": "Successful",
			"LoggingConfig": map[string]any{"LogFormat": "Text", "LogGroup": "/aws/lambda/f"}, "MemorySize": 128.0, "PackageType": "Zip",
			"RevisionId": *c.RevisionId, "Role": role, "Runtime": "python3.11",
			"RuntimeVersionConfig": map[string]any{"RuntimeVersionArn": "arn:aws:lambda:us-east-1::runtime:707974686f6e332e3131"},
			"SnapStart":            map[string]any{"ApplyOn": "None", "OptimizationStatus": "Off"}, "State": "Active", "Timeout": 3.0,
			"TracingConfig": map[string]any{"Mode": "PassThrough"}, "Version": "$LATEST",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" || status != 200 {
		t.Errorf("%d (-want +got):\n%s", status, diff)
	}
	for _, test := range []struct {
		method, path, body string
		status             int
		want               map[string]any
	}{
		{http.MethodGet, "/2015-03-31/functions/g", "", 404,
			map[string]any{"Type": "User", "Message": "Function not found: arn:aws:lambda:us-east-1:111111111111:function:g"}},
		{http.MethodPut, "/2015-03-31/functions/f/configuration", `{"RevisionId":"x"}`, 412, map[string]any{"Type": "User",
			"message": "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id"}},
		{http.MethodGet, "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A111111111111%3Afunction%3Af", "", 200, map[string]any{"Tags": map[string]any{}}},
		{http.MethodGet, "/2019-09-30/functions/f/concurrency", "", 200, map[string]any{}},
		{http.MethodGet, "/2020-06-30/functions/f/code-signing-config", "", 200, map[string]any{}},
		{http.MethodGet, "/2015-03-31/functions/?MasterRegion=eu-west-1&FunctionVersion=ALL", "", 200, map[string]any{"Functions": []any{}}},
		{http.MethodDelete, "/2015-03-31/functions/f", "", 204, nil},
	} {
		status, got := fetch(t, test.method, url+test.path, test.body)
		if diff := cmp.Diff(test.want, got); diff != "" || status != test.status {
			t.Errorf("%s %s: %d (-want +got):\n%s", test.method, test.path, status, diff)
		}
	}
}

func fetch(t *testing.T, method, url, body string) (int, map[string]any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if len(data) > 0 && response.StatusCode != http.StatusNoContent {
		if err := json.Unmarshal(data, &out); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
	}
	return response.StatusCode, out
}

func TestAnUnbuiltOperationAnswersTheTypedRefusal(t *testing.T) {
	h := newHouse(t)
	_, url := h.client()
	status, got := fetch(t, http.MethodGet, url+"/2015-03-31/functions/f/aliases", "")
	if message, _ := got["message"].(string); status != 501 || !strings.Contains(message, "lambda:ListAliases") {
		t.Errorf("%d %v", status, got)
	}
}
