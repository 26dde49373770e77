package control

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
)

func TestANewFunctionIsPendingWithAllDefaultsAndThenActive(t *testing.T) {
	h := newQuietHouse(t)
	h.now = func() time.Time { return time.Date(2026, 11, 3, 4, 5, 6, 78e6, time.FixedZone("", 3600)) }
	in := h.newFunction("hello")
	created, err := h.CreateFunction(me, in)
	if err != nil {
		t.Fatal(err)
	}
	_, sha, size, _ := h.PutZip(me, account, in.Code.ZipFile)
	want := &lambdaapi.FunctionConfiguration{
		FunctionName: new("hello"), FunctionArn: new("arn:aws:lambda:us-east-1:111111111111:function:hello"), Version: new("$LATEST"),
		RevisionId: created.RevisionId, Runtime: new("python3.11"), Handler: new("index.handler"), Role: new(role), Description: new(""),
		MemorySize: new(int32(128)), Timeout: new(int32(3)), EphemeralStorage: &lambdaapi.EphemeralStorage{Size: new(int32(512))},
		CodeSha256: new(sha), CodeSize: new(size), LastModified: new("2026-11-03T03:05:06.078+0000"), PackageType: new("Zip"),
		Architectures: []string{"x86_64"}, TracingConfig: &lambdaapi.TracingConfigResponse{Mode: new("PassThrough")},
		SnapStart:            &lambdaapi.SnapStartResponse{ApplyOn: new("None"), OptimizationStatus: new("Off")},
		LoggingConfig:        &lambdaapi.LoggingConfig{LogFormat: new("Text"), LogGroup: new("/aws/lambda/hello")},
		RuntimeVersionConfig: &lambdaapi.RuntimeVersionConfig{RuntimeVersionArn: new("arn:aws:lambda:us-east-1::runtime:707974686f6e332e3131")},
		State:                new("Pending"), StateReason: new("The function is being created."), StateReasonCode: new("Creating"),
	}
	if diff := cmp.Diff(want, created); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	h.run()
	now := h.settled("hello")
	if *now.RevisionId == *created.RevisionId {
		t.Error("the revision id did not change with the state")
	}
	want.RevisionId, want.State, want.StateReason, want.StateReasonCode = now.RevisionId, new("Active"), nil, nil
	want.LastUpdateStatus = new("Successful")
	if diff := cmp.Diff(want, now); diff != "" {
		t.Errorf("active (-want +got):\n%s", diff)
	}
	got, err := h.GetFunction(me, &lambdaapi.GetFunctionRequest{FunctionName: new("hello")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&lambdaapi.GetFunctionResponse{Configuration: want, Code: &lambdaapi.FunctionCodeLocation{RepositoryType: new("S3")}}, got); diff != "" {
		t.Errorf("GetFunction (-want +got):\n%s", diff)
	}
}

func TestCreateFunctionRefusesInTheWordsOfAWS(t *testing.T) {
	h := newQuietHouse(t)
	const (
		invalidCode = "InvalidParameterValueException"
		variables   = "Lambda was unable to configure your environment variables because the environment variables you have provided "
	)
	environment := func(pairs ...string) *lambdaapi.Environment {
		e := &lambdaapi.Environment{Variables: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			e.Variables[pairs[i]] = pairs[i+1]
		}
		return e
	}
	tags := map[string]string{}
	for i := range 51 {
		tags[fmt.Sprint(i)] = ""
	}
	for _, test := range []struct {
		name    string
		change  func(in *lambdaapi.CreateFunctionRequest)
		code    string
		status  int
		message string
	}{
		{"no runtime", func(in *lambdaapi.CreateFunctionRequest) { in.Runtime = nil }, invalidCode, 400,
			"Runtime and Handler are mandatory parameters for functions created with deployment packages."},
		{"no handler", func(in *lambdaapi.CreateFunctionRequest) { in.Handler = nil }, invalidCode, 400,
			"Runtime and Handler are mandatory parameters for functions created with deployment packages."},
		{"no code", func(in *lambdaapi.CreateFunctionRequest) { in.Code = &lambdaapi.FunctionCode{} }, invalidCode, 400,
			"Please provide a source for function code."},
		{"too little memory", func(in *lambdaapi.CreateFunctionRequest) { in.MemorySize = new(int32(127)) }, invalidCode, 400,
			"'MemorySize' value failed to satisfy constraint: Member must have value greater than or equal to 128"},
		{"too much memory", func(in *lambdaapi.CreateFunctionRequest) { in.MemorySize = new(int32(10241)) }, invalidCode, 400,
			"'MemorySize' value failed to satisfy constraint: Member must have value less than or equal to 10240"},
		{"too long", func(in *lambdaapi.CreateFunctionRequest) { in.Timeout = new(int32(901)) }, "ValidationException", 400,
			"1 validation error detected: Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900"},
		{"no time", func(in *lambdaapi.CreateFunctionRequest) { in.Timeout = new(int32(0)) }, "ValidationException", 400,
			"1 validation error detected: Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		{"too large /tmp", func(in *lambdaapi.CreateFunctionRequest) {
			in.EphemeralStorage = &lambdaapi.EphemeralStorage{Size: new(int32(10241))}
		}, "ValidationException", 400,
			"1 validation error detected: Value '10241' at 'ephemeralStorage.size' failed to satisfy constraint: Member must have value less than or equal to 10240"},
		{"too small /tmp", func(in *lambdaapi.CreateFunctionRequest) {
			in.EphemeralStorage = &lambdaapi.EphemeralStorage{Size: new(int32(511))}
		}, "ValidationException", 400,
			"1 validation error detected: Value '511' at 'ephemeralStorage.size' failed to satisfy constraint: Member must have value greater than or equal to 512"},
		{"foreign architecture", func(in *lambdaapi.CreateFunctionRequest) { in.Architectures = []string{"arm64"} }, invalidCode, 400,
			"Architecture arm64 is not available here: the hosts of this installation are x86_64."},
		{"reserved variables", func(in *lambdaapi.CreateFunctionRequest) {
			in.Environment = environment("OK", "1", "AWS_REGION", "x", "AWS_ACCESS_KEY_ID", "y")
		}, invalidCode, 400, variables + "contains reserved keys that are currently not supported for modification. " +
			"Reserved keys used in this request: AWS_ACCESS_KEY_ID, AWS_REGION"},
		{"variables one byte over 4 KB", func(in *lambdaapi.CreateFunctionRequest) {
			in.Environment = environment("LARGE_VAR", strings.Repeat("x", 4096-7-len("LARGE_VAR")+1))
		}, invalidCode, 400, variables + "exceeded the 4KB limit. String measured: {\"LARGE_VAR\":\"" + strings.Repeat("x", 4096-7-len("LARGE_VAR")+1) + "\"}"},
		{"NUL in a variable", func(in *lambdaapi.CreateFunctionRequest) { in.Environment = environment("A", "a\x00B=b") }, invalidCode, 400,
			"Environment variables must not contain the NUL character."},
		{"NUL in the handler", func(in *lambdaapi.CreateFunctionRequest) { in.Handler = new("a\x00b") }, invalidCode, 400,
			"The handler must not contain control characters."},
		{"51 tags", func(in *lambdaapi.CreateFunctionRequest) { in.Tags = tags }, invalidCode, 400, "Number of tags exceeds resource tag limit."},
		{"long name", func(in *lambdaapi.CreateFunctionRequest) { in.FunctionName = new(strings.Repeat("a", 65)) }, invalidCode, 400,
			"1 validation error detected: Value '" + strings.Repeat("a", 65) + "' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 64"},
		{"another region", func(in *lambdaapi.CreateFunctionRequest) {
			in.FunctionName = new("arn:aws:lambda:eu-west-1:111111111111:function:f")
		}, "ResourceNotFoundException", 404, "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"},
		{"another account", func(in *lambdaapi.CreateFunctionRequest) {
			in.FunctionName = new("arn:aws:lambda:us-east-1:222222222222:function:f")
		}, "AccessDeniedException", 403, "The function belongs to another account."},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := h.newFunction("f")
			test.change(in)
			_, err := h.CreateFunction(me, in)
			refused(t, err, test.code, test.status, test.message)
		})
	}
	for message, change := range map[string]func(in *lambdaapi.CreateFunctionRequest){
		"The runtime parameter of go1.x is no longer supported for creating or updating AWS Lambda functions. " +
			"We recommend you use a supported runtime while creating or updating functions.": func(in *lambdaapi.CreateFunctionRequest) {
			in.Runtime = new("go1.x")
		},
		"Could not unzip uploaded file. Please check your file, then try to upload again.": func(in *lambdaapi.CreateFunctionRequest) {
			in.Code.ZipFile = []byte("text")
		},
	} {
		in := h.newFunction("f")
		change(in)
		_, err := h.CreateFunction(me, in)
		refusedBelow(t, err, lambda.InvalidParameter, message)
	}
	if h.objects(kindFunction, account) != 0 || h.objects(kindOrder, "") != 0 || h.packages != 0 {
		t.Error("a refused request left something behind")
	}
}

func TestVariablesOfExactly4KBAreAccepted(t *testing.T) {
	h := newHouse(t)
	in := h.newFunction("f")
	in.Environment = &lambdaapi.Environment{Variables: map[string]string{"LARGE_VAR": strings.Repeat("<", 4096-7-len("LARGE_VAR"))}}
	if _, err := h.CreateFunction(me, in); err != nil {
		t.Fatal(err)
	}
}

// Every member of the requests that is not built must be refused, also those of a later model.
func TestEveryUnbuiltMemberIsRefusedBeforeAnythingChanges(t *testing.T) {
	h := newQuietHouse(t)
	h.createAndStop(t)
	before := h.get("f", "")
	refuse := func(operation string, request func() any, built []string, call func(in any) error) {
		for path := range leaves(t, request(), "") {
			if contains(built, path) {
				continue
			}
			t.Run(operation+" "+path, func(t *testing.T) {
				in := request()
				leaves(t, in, path)
				fault, ok := errors.AsType[api.Fault](call(in))
				group, _, _ := strings.Cut(path, ".") // may be refused as a whole
				named := ok && (strings.Contains(fault.Error(), path+" of lambda:"+operation) || strings.Contains(fault.Error(), " "+group+" of lambda:"+operation))
				if !named || fault.ErrorCode() != "NotImplementedException" || fault.HTTPStatus() != 501 {
					t.Errorf("got %v", fault)
				}
			})
		}
	}
	refuse("CreateFunction", func() any { return h.newFunction("g") }, builtInCreate, func(in any) error {
		_, err := h.CreateFunction(me, in.(*lambdaapi.CreateFunctionRequest))
		return err
	})
	refuse("UpdateFunctionConfiguration", func() any {
		return &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f")}
	}, builtInUpdateConfiguration, func(in any) error {
		_, err := h.UpdateFunctionConfiguration(me, in.(*lambdaapi.UpdateFunctionConfigurationRequest))
		return err
	})
	refuse("UpdateFunctionCode", func() any {
		return &lambdaapi.UpdateFunctionCodeRequest{FunctionName: new("f"), ZipFile: zipOf(t, "2")}
	}, builtInUpdateCode, func(in any) error {
		_, err := h.UpdateFunctionCode(me, in.(*lambdaapi.UpdateFunctionCodeRequest))
		return err
	})
	refuse("PublishVersion", func() any { return &lambdaapi.PublishVersionRequest{FunctionName: new("f")} }, builtInPublish, func(in any) error {
		_, err := h.PublishVersion(me, in.(*lambdaapi.PublishVersionRequest))
		return err
	})
	if diff := cmp.Diff(before, h.get("f", "")); diff != "" || h.objects(kindFunction, account) != 1 {
		t.Errorf("something changed: %s", diff)
	}
}

// createAndStop makes f active without a running worker.
func (h *house) createAndStop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	h.create("f")
	cancel()
	<-done
}

func contains(built []string, path string) bool {
	for _, b := range built {
		if path == b || strings.HasPrefix(path, b+".") {
			return true
		}
	}
	return false
}

// leaves returns the paths of all members of the structure that in points to, without those of
// structures in lists; it fills the member called set with something that asks for something.
func leaves(t *testing.T, in any, set string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	var walk func(v reflect.Value, prefix string, on bool)
	walk = func(v reflect.Value, prefix string, on bool) {
		for i := range v.NumField() {
			path, member := prefix+v.Type().Field(i).Name, v.Field(i)
			if member.Kind() == reflect.Pointer && member.Type().Elem().Kind() == reflect.Struct {
				inner := reflect.New(member.Type().Elem())
				if !member.IsNil() {
					inner = member
				}
				hit := set == path || strings.HasPrefix(set, path+".")
				walk(inner.Elem(), path+".", hit)
				if hit {
					member.Set(inner)
				}
				continue
			}
			found[path] = true
			if path != set {
				continue
			}
			switch member.Kind() {
			case reflect.Pointer:
				member.Set(reflect.New(member.Type().Elem()))
				switch e := member.Elem(); e.Kind() {
				case reflect.String:
					e.SetString("something")
				case reflect.Bool:
					e.SetBool(true)
				case reflect.Float64:
					e.SetFloat(1)
				default:
					e.SetInt(1)
				}
			case reflect.Slice:
				member.Set(reflect.MakeSlice(member.Type(), 1, 1))
			case reflect.Map:
				member.Set(reflect.MakeMap(member.Type()))
				member.SetMapIndex(reflect.Zero(member.Type().Key()), reflect.Zero(member.Type().Elem()))
			}
		}
	}
	walk(reflect.ValueOf(in).Elem(), "", false)
	if set != "" && !found[set] {
		t.Fatalf("no member %s", set)
	}
	return found
}

func TestMembersThatAskForNothingNewAreAccepted(t *testing.T) {
	h := newHouse(t)
	in := h.newFunction("f")
	in.PackageType, in.TracingConfig = new("Zip"), &lambdaapi.TracingConfig{Mode: new("PassThrough")}
	in.SnapStart, in.LoggingConfig = &lambdaapi.SnapStart{ApplyOn: new("None")}, &lambdaapi.LoggingConfig{LogFormat: new("Text"), LogGroup: new("mine")}
	in.VpcConfig = &lambdaapi.VpcConfig{SubnetIds: []string{}, SecurityGroupIds: []string{}, Ipv6AllowedForDualStack: new(false)}
	in.DeadLetterConfig, in.KMSKeyArn, in.Layers = &lambdaapi.DeadLetterConfig{TargetArn: new("")}, new(""), []string{}
	if _, err := h.CreateFunction(me, in); err != nil {
		t.Fatal(err)
	}
	if v, err := h.runs("f", ""); h.settled("f") == nil || *h.get("f", "").LoggingConfig.LogGroup != "mine" {
		t.Error(v, err)
	}
}

func TestAFunctionIsCreatedOnce(t *testing.T) {
	h := newHouse(t)
	h.create("hello")
	_, err := h.CreateFunction(me, h.newFunction("hello"))
	refused(t, err, "ResourceConflictException", 409, "Function already exist: hello")

	var wins sync.Map
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if _, err := h.CreateFunction(me, h.newFunction("race")); err == nil {
				wins.Store(i, true)
			} else if fault, ok := errors.AsType[api.Fault](err); !ok || fault.ErrorCode() != "ResourceConflictException" {
				t.Errorf("got %v", err)
			}
		})
	}
	group.Wait()
	count := 0
	wins.Range(func(any, any) bool { count++; return true })
	if count != 1 {
		t.Errorf("%d of 8 racing creations won, want 1", count)
	}
}

func TestARoleThatMayNotBeGivenStopsCreation(t *testing.T) {
	h := newQuietHouse(t)
	h.passErr = &api.Error{Code: "AccessDeniedException", Status: 403, Message: "User: x is not authorized to perform: iam:PassRole on resource: y"}
	_, err := h.CreateFunction(me, h.newFunction("f"))
	refused(t, err, "AccessDeniedException", 403, "User: x is not authorized to perform: iam:PassRole on resource: y")
	h.passErr = nil
	h.roleErr = invalid("The role defined for the function cannot be assumed by Lambda.")
	_, err = h.CreateFunction(me, h.newFunction("f"))
	refused(t, err, "InvalidParameterValueException", 400, "The role defined for the function cannot be assumed by Lambda.")
	if h.packages != 0 || h.objects(kindFunction, account) != 0 {
		t.Error("a refused creation stored something")
	}
}

func TestACallWithoutACallerIsRefused(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	nobody := t.Context()
	_, err := h.GetFunction(nobody, &lambdaapi.GetFunctionRequest{FunctionName: new("f")})
	refused(t, err, "AccessDeniedException", 403, "The call has no caller.")
	_, err = h.ListFunctions(nobody, &lambdaapi.ListFunctionsRequest{})
	refused(t, err, "AccessDeniedException", 403, "The call has no caller.")
}

func TestWhatTheStoreSaysOfUsIsNoFaultOfTheCaller(t *testing.T) {
	if err := storeError("read", lambda.Errorf(lambda.InvalidParameter, "check store call", "bad key")); lambda.KindOf(err) != lambda.Internal {
		t.Errorf("the caller would be told %v", err)
	}
	if err := storeError("commit", lambda.Errorf(lambda.Unavailable, "commit", "the disk is full")); lambda.KindOf(err) != lambda.Unavailable {
		t.Errorf("the caller would not be asked to try again: %v", err)
	}
}
