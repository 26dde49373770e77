package control

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/api/lambdaapi"
	"cloister/lambda"
)

func TestAnUpdateChangesOnlyWhatItNames(t *testing.T) {
	h := newHouse(t)
	in := h.newFunction("f")
	in.Environment = &lambdaapi.Environment{Variables: map[string]string{"A": "a"}}
	if _, err := h.CreateFunction(me, in); err != nil {
		t.Fatal(err)
	}
	want := h.settled("f")
	got, err := h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), MemorySize: new(int32(256))})
	if err != nil {
		t.Fatal(err)
	}
	want.MemorySize = new(int32(256))
	want.RevisionId, want.LastModified = got.RevisionId, got.LastModified
	want.LastUpdateStatus, want.LastUpdateStatusReason, want.LastUpdateStatusReasonCode =
		new("InProgress"), new("The function is being created."), new("Creating")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("updated (-want +got):\n%s", diff)
	}
	h.settled("f")
	got, err = h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"),
		Environment: &lambdaapi.Environment{Variables: map[string]string{"B": "b"}}, Runtime: new("nodejs20.x"), Timeout: new(int32(900)),
		Handler: new("h"), Description: new("d"), EphemeralStorage: &lambdaapi.EphemeralStorage{Size: new(int32(1024))},
		LoggingConfig: &lambdaapi.LoggingConfig{LogGroup: new("g")}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"B": "b"}, got.Environment.Variables); diff != "" {
		t.Error(diff)
	}
	if *got.RuntimeVersionConfig.RuntimeVersionArn == *want.RuntimeVersionConfig.RuntimeVersionArn {
		t.Error("the runtime version did not follow the runtime")
	}
	h.settled("f")
	v, err := h.runs("f", "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lambda.Version{ID: v.ID, ARN: "arn:aws:lambda:us-east-1:111111111111:function:f:$LATEST", Runtime: "nodejs20.x", Handler: "h",
		MemoryMiB: 256, Timeout: 900 * time.Second, EphemeralMiB: 1024, Variables: map[string]string{"B": "b"}, Role: role, Code: v.Code, LogGroup: "g"}, v); diff != "" {
		t.Errorf("resolved (-want +got):\n%s", diff)
	}
}

func TestTheRoleIsCheckedWhenItChangesAndOnlyThen(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	h.passed = nil
	h.describe("f", "other")
	_, err := h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), Role: new(role)})
	if err != nil || len(h.passed) != 0 {
		t.Fatalf("PassRole of %v, error %v", h.passed, err)
	}
	h.settled("f")
	h.passErr = denied("no")
	_, err = h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), Role: new(role + "2")})
	refused(t, err, "AccessDeniedException", 403, "no")
	if got := *h.get("f", "").Role; got != role {
		t.Errorf("role is %s", got)
	}
}

func TestUpdateFunctionCodeReplacesTheCode(t *testing.T) {
	h := newHouse(t)
	before := h.create("f")
	old, err := h.runs("f", "")
	if err != nil {
		t.Fatal(err)
	}
	code := zipOf(t, "2")
	trial, err := h.UpdateFunctionCode(me, &lambdaapi.UpdateFunctionCodeRequest{FunctionName: new("f"), ZipFile: code, DryRun: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, h.get("f", "")); diff != "" {
		t.Errorf("a dry run changed something: %s", diff)
	}
	got, err := h.UpdateFunctionCode(me, &lambdaapi.UpdateFunctionCodeRequest{FunctionName: new("f"), ZipFile: code})
	if err != nil {
		t.Fatal(err)
	}
	if *got.CodeSha256 == *before.CodeSha256 || *got.CodeSha256 != *trial.CodeSha256 || *got.LastUpdateStatus != "InProgress" {
		t.Errorf("got %s %s", *got.CodeSha256, *got.LastUpdateStatus)
	}
	h.settled("f")
	now, err := h.runs("f", "")
	if err != nil || now.Code == old.Code || now.ID == old.ID {
		t.Errorf("still runs %v, %v", now, err)
	}
	h.retires(old.ID)
	for _, test := range []struct {
		in      *lambdaapi.UpdateFunctionCodeRequest
		message string
	}{
		{&lambdaapi.UpdateFunctionCodeRequest{}, "Please provide a source for function code."},
		{&lambdaapi.UpdateFunctionCodeRequest{ImageUri: new("x")}, "Please don't provide ImageUri when updating a function with packageType Zip."},
		{&lambdaapi.UpdateFunctionCodeRequest{ZipFile: code, Architectures: []string{"arm64"}},
			"Architecture arm64 is not available here: the hosts of this installation are x86_64."},
	} {
		test.in.FunctionName = new("f")
		_, err = h.UpdateFunctionCode(me, test.in)
		refused(t, err, "InvalidParameterValueException", 400, test.message)
	}
}

func TestAnUpdateThatChangesNothingStillMakesNewEnvironments(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	old, _ := h.runs("f", "")
	revision := h.get("f", "").RevisionId
	now := h.describe("f", "")
	v, err := h.runs("f", "")
	if err != nil || v.ID == old.ID || *now.RevisionId == *revision {
		t.Errorf("same environments or revision: %v %v", v.ID, err)
	}
}

func TestAStaleRevisionIdIsRefused(t *testing.T) {
	h := newHouse(t)
	created, err := h.CreateFunction(me, h.newFunction("f"))
	if err != nil {
		t.Fatal(err)
	}
	h.settled("f")
	const message = "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
	stale := created.RevisionId
	_, err = h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), RevisionId: stale})
	refused(t, err, "PreconditionFailedException", 412, message)
	_, err = h.UpdateFunctionCode(me, &lambdaapi.UpdateFunctionCodeRequest{FunctionName: new("f"), RevisionId: stale, ZipFile: zipOf(t, "2")})
	refused(t, err, "PreconditionFailedException", 412, message)
	_, err = h.PublishVersion(me, &lambdaapi.PublishVersionRequest{FunctionName: new("f"), RevisionId: stale})
	refused(t, err, "PreconditionFailedException", 412, message)
	_, err = h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), RevisionId: h.get("f", "").RevisionId})
	if err != nil {
		t.Error(err)
	}
}

func TestOfRacingUpdatesOneWinsAndTheOthersAreTold(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	release := make(chan struct{})
	h.preparing(func(context.Context, string) error { <-release; return nil })
	var mu sync.Mutex
	var won []string
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			description := fmt.Sprint("update ", i)
			_, err := h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), Description: new(description)})
			if err != nil {
				refused(t, err, "ResourceConflictException", 409, "The operation cannot be performed at this time. "+
					"An update is in progress for resource: arn:aws:lambda:us-east-1:111111111111:function:f")
				return
			}
			mu.Lock()
			defer mu.Unlock()
			won = append(won, description)
		})
	}
	group.Wait()
	close(release)
	if got := h.settled("f"); len(won) != 1 || *got.Description != won[0] {
		t.Errorf("winners %v, description %q", won, *got.Description)
	}
}
