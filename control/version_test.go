package control

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// The sequence and its answers are those recorded from AWS for the life of a version.
func TestPublishingFollowsTheLifeRecordedFromAWS(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	latest := h.describe("f", "First version :)")
	first, err := h.PublishVersion(me, &lambdaapi.PublishVersionRequest{FunctionName: new("f"),
		CodeSha256: latest.CodeSha256, RevisionId: latest.RevisionId, Description: new("First version description :)")})
	if err != nil {
		t.Fatal(err)
	}
	want := *latest
	want.FunctionArn, want.Version, want.RevisionId = new("arn:aws:lambda:us-east-1:111111111111:function:f:1"), new("1"), first.RevisionId
	want.Description = new("First version description :)")
	if diff := cmp.Diff(&want, first); diff != "" {
		t.Errorf("first version (-want +got):\n%s", diff)
	}
	if now := h.get("f", ""); *now.RevisionId == *latest.RevisionId || *now.RevisionId == *first.RevisionId || *now.Description != "First version :)" {
		t.Errorf("$LATEST after publishing: %v", now)
	}
	h.describe("f", "Second version :))")
	if diff := cmp.Diff(first, h.get("f", "1")); diff != "" {
		t.Errorf("the first version changed: %s", diff)
	}
	second := h.publish("f")
	third := h.publish("f")
	if *second.Version != "2" || *second.Description != "Second version :))" {
		t.Errorf("second: %s %q", *second.Version, *second.Description)
	}
	if diff := cmp.Diff(second, third); diff != "" {
		t.Errorf("publishing the same again made something else: %s", diff)
	}
	if diff := cmp.Diff([]string{"$LATEST", "1", "2"}, h.versions("f")); diff != "" {
		t.Error(diff)
	}
	h.deleteVersion(t, "1")
	if diff := cmp.Diff([]string{"$LATEST", "2"}, h.versions("f")); diff != "" {
		t.Error(diff)
	}
}

func (h *house) deleteVersion(t *testing.T, number string) {
	t.Helper()
	if _, err := h.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("f"), Qualifier: new(number)}); err != nil {
		t.Fatal(err)
	}
}

// versions lists the versions of a function, from one page.
func (h *house) versions(name string) (found []string) {
	h.t.Helper()
	out, err := h.ListVersionsByFunction(me, &lambdaapi.ListVersionsByFunctionRequest{FunctionName: new(name)})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, v := range out.Versions {
		found = append(found, *v.Version)
	}
	return found
}

func TestAVersionNumberIsNeverGivenTwice(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	h.publish("f")
	version, _ := h.runs("f", "1")
	h.deleteVersion(t, "1")
	if got := *h.publish("f").Version; got != "2" {
		t.Errorf("published %s after the deletion of 1, want 2", got)
	}
	if _, err := h.runs("f", "1"); lambda.KindOf(err) != lambda.NotFound {
		t.Errorf("the deleted version runs: %v", err)
	}
	h.retires(version.ID)
	h.deleteVersion(t, "2")
	h.restart()
	if got := *h.publish("f").Version; got != "3" {
		t.Errorf("published %s after a restart, want 3", got)
	}
}

func TestCreateAndUpdateCanPublish(t *testing.T) {
	h := newQuietHouse(t)
	in := h.newFunction("f")
	in.Publish = new(true)
	created, err := h.CreateFunction(me, in)
	if err != nil {
		t.Fatal(err)
	}
	// AWS answers the version's number under the function's ARN here, and the version's own below.
	if *created.Version != "1" || *created.FunctionArn != "arn:aws:lambda:us-east-1:111111111111:function:f" || *created.State != "Pending" {
		t.Errorf("created %s %s %s", *created.Version, *created.FunctionArn, *created.State)
	}
	h.run()
	h.settled("f")
	if got := h.get("f", "1"); *got.State != "Active" || *got.LastUpdateStatus != "Successful" || *got.RevisionId == *created.RevisionId {
		t.Errorf("version 1 is %v", got)
	}
	if got := *h.publish("f").Version; got != "1" {
		t.Errorf("published %s, want 1 again", got)
	}
	release := make(chan struct{})
	h.preparing(func(context.Context, string) error { <-release; return nil })
	updated, err := h.UpdateFunctionCode(me, &lambdaapi.UpdateFunctionCodeRequest{FunctionName: new("f"), ZipFile: zipOf(t, "2"), Publish: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	if *updated.Version != "2" || *updated.FunctionArn != "arn:aws:lambda:us-east-1:111111111111:function:f:2" ||
		*updated.State != "Pending" || updated.LastUpdateStatus != nil {
		t.Errorf("updated %v", updated)
	}
	if diff := cmp.Diff(updated, h.get("f", "2")); diff != "" {
		t.Errorf("version 2 while pending: %s", diff)
	}
	if _, err := h.runs("f", "2"); lambda.KindOf(err) != lambda.NotReady {
		t.Errorf("a pending version: %v", err)
	}
	if got := h.get("f", ""); *got.State != "Active" || *got.LastUpdateStatus != "InProgress" {
		t.Errorf("$LATEST is %v", got)
	}
	close(release)
	h.settled("f")
	if _, err := h.runs("f", "2"); err != nil {
		t.Error(err)
	}
	again, err := h.UpdateFunctionCode(me, &lambdaapi.UpdateFunctionCodeRequest{FunctionName: new("f"), ZipFile: zipOf(t, "2"), Publish: new(true)})
	if err != nil || *again.Version != "2" {
		t.Errorf("publishing the same code again: %v %v", again, err)
	}
}

func TestPublishVersionRefusesInTheWordsOfAWS(t *testing.T) {
	h := newHouse(t)
	latest := h.create("f")
	_, err := h.PublishVersion(me, &lambdaapi.PublishVersionRequest{FunctionName: new("f"), CodeSha256: new("other")})
	refused(t, err, "InvalidParameterValueException", 400, "CodeSHA256 (other) is different from current CodeSHA256 in $LATEST ("+*latest.CodeSha256+
		"). Please try again with the CodeSHA256 in $LATEST.")
	_, err = h.PublishVersion(me, &lambdaapi.PublishVersionRequest{FunctionName: new("f:1")})
	refused(t, err, "InvalidParameterValueException", 400, "This operation is permitted on Lambda functions only. Aliases and versions do not support "+
		"this operation. Please specify either a function name or an unqualified function ARN.")
	_, err = h.PublishVersion(me, &lambdaapi.PublishVersionRequest{FunctionName: new("g")})
	refused(t, err, "ResourceNotFoundException", 404, "Function not found: arn:aws:lambda:us-east-1:111111111111:function:g")
}

func TestAPublishedVersionKeepsWhatItWasPublishedWith(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	h.publish("f")
	before, err := h.runs("f", "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.UpdateFunctionCode(me, &lambdaapi.UpdateFunctionCodeRequest{FunctionName: new("f"), ZipFile: zipOf(t, "2")}); err != nil {
		t.Fatal(err)
	}
	h.settled("f")
	h.restart()
	after, err := h.runs("f", "1")
	if diff := cmp.Diff(before, after); diff != "" || err != nil {
		t.Errorf("version 1 changed: %v %s", err, diff)
	}
	latest, _ := h.runs("f", "")
	if latest.Code == after.Code || after.ID.Version != "1" || latest.ID.Version != "$LATEST" {
		t.Errorf("latest %v, version %v", latest.ID, after.ID)
	}
}

func TestFunctionsAreListedInPagesByName(t *testing.T) {
	h := newHouse(t)
	var want, wantAll []string
	for _, name := range []string{"a", "a-b", "a_", "b", "c"} {
		h.create(name)
		want = append(want, "arn:aws:lambda:us-east-1:111111111111:function:"+name)
		wantAll = append(wantAll, want[len(want)-1]+":$LATEST")
		for n := range 3 * (len(want) % 2) { // a, a_ and c have three versions
			h.describe(name, fmt.Sprint(n))
			wantAll = append(wantAll, want[len(want)-1]+":"+*h.publish(name).Version)
		}
	}
	for size := int32(1); size <= 15; size++ {
		if diff := cmp.Diff(want, h.list(size, "")); diff != "" {
			t.Fatalf("pages of %d (-want +got):\n%s", size, diff)
		}
		if diff := cmp.Diff(wantAll, h.list(size, "ALL")); diff != "" {
			t.Fatalf("all versions in pages of %d (-want +got):\n%s", size, diff)
		}
	}
	out, err := h.ListFunctions(me, &lambdaapi.ListFunctionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	one := h.get("a", "")
	one.State, one.LastUpdateStatus, one.RuntimeVersionConfig = nil, nil, nil // as AWS leaves them out of listings
	if diff := cmp.Diff(*one, out.Functions[0]); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
}

// list collects the ARNs of all pages of that size.
func (h *house) list(size int32, versions string) (arns []string) {
	h.t.Helper()
	in := &lambdaapi.ListFunctionsRequest{MaxItems: new(size)}
	if versions != "" {
		in.FunctionVersion = new(versions)
	}
	for range 100 {
		out, err := h.ListFunctions(me, in)
		if err != nil {
			h.t.Fatal(err)
		}
		if len(out.Functions) > int(size) || out.NextMarker != nil && len(out.Functions) < int(size) {
			h.t.Fatalf("a page of %d with marker %v, asked for %d", len(out.Functions), out.NextMarker, size)
		}
		for _, f := range out.Functions {
			arns = append(arns, *f.FunctionArn)
		}
		if out.NextMarker == nil {
			return arns
		}
		in.Marker = out.NextMarker
	}
	h.t.Fatal("the listing does not end")
	return nil
}

func TestAListingGoesOnWhereAFunctionWasDeleted(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"a", "b", "c"} {
		h.create(name)
	}
	in := &lambdaapi.ListFunctionsRequest{MaxItems: new(int32(2)), FunctionVersion: new("ALL")}
	out, err := h.ListFunctions(me, in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("b")}); err != nil {
		t.Fatal(err)
	}
	in.Marker = out.NextMarker
	out, err = h.ListFunctions(me, in)
	if err != nil || len(out.Functions) != 1 || *out.Functions[0].FunctionName != "c" {
		t.Errorf("got %v, %v", out, err)
	}
}

func TestVersionsAreListedInPagesOldestFirst(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	h.create("f-other")
	want := []string{"$LATEST"}
	for n := range 12 { // past 9, where names would no longer sort as numbers
		h.describe("f", fmt.Sprint(n))
		want = append(want, *h.publish("f").Version)
	}
	var got []string
	in := &lambdaapi.ListVersionsByFunctionRequest{FunctionName: new("f"), MaxItems: new(int32(5))}
	for {
		out, err := h.ListVersionsByFunction(me, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range out.Versions {
			got = append(got, *v.Version)
			if v.State != nil || *v.FunctionArn != "arn:aws:lambda:us-east-1:111111111111:function:f:"+*v.Version {
				t.Errorf("listed %v", v)
			}
		}
		if out.NextMarker == nil {
			break
		}
		in.Marker = out.NextMarker
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	in.FunctionName = new("f-other")
	_, err := h.ListVersionsByFunction(me, in)
	refused(t, err, "InvalidParameterValueException", 400, "The Marker is invalid.")
}

func TestAPageHoldsAtMost50(t *testing.T) {
	h := newQuietHouse(t)
	for n := range 51 {
		if _, err := h.CreateFunction(me, h.newFunction(fmt.Sprintf("f%02d", n))); err != nil {
			t.Fatal(err)
		}
	}
	out, err := h.ListFunctions(me, &lambdaapi.ListFunctionsRequest{MaxItems: new(int32(10000))})
	if err != nil || len(out.Functions) != 50 || out.NextMarker == nil {
		t.Errorf("%d functions, %v", len(out.Functions), err)
	}
}

func TestMasterRegionFiltersReplicas(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	for master, want := range map[string]int{"ALL": 1, "us-east-1": 0, "eu-west-1": 0} {
		out, err := h.ListFunctions(me, &lambdaapi.ListFunctionsRequest{MasterRegion: new(master), FunctionVersion: new("ALL")})
		if err != nil || len(out.Functions) != want || out.Functions == nil {
			t.Errorf("%s: %v, %v, want %d", master, out, err, want)
		}
	}
	_, err := h.ListFunctions(me, &lambdaapi.ListFunctionsRequest{MasterRegion: new("ALL")})
	refused(t, err, "InvalidParameterValueException", 400, "MasterRegion is only allowed when FunctionVersion is set to ALL.")
}

func FuzzAMarkerIsAPositionOrRefused(f *testing.F) {
	for _, seed := range []string{"", "f:0", "f:12", "f", ":", "f:-1", "a/b:1", "f:1:2", "arn:aws:lambda:us-east-1:111111111111:function:f", "\x00", "f:9223372036854775808"} {
		f.Add(base64.URLEncoding.EncodeToString([]byte(seed)))
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		name, number, err := parseMarker(new(given))
		if err != nil || name == "" {
			return
		}
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || len(name) > 64 || number < 0 {
			t.Errorf("%q became %q, %d", given, name, number)
		}
		again, number2, err := parseMarker(new(base64.URLEncoding.EncodeToString([]byte(marker(lambda.FunctionReference{Name: name}, number)))))
		if err != nil || again != name || number2 != number {
			t.Errorf("%q, %d does not survive: %q, %d, %v", name, number, again, number2, err)
		}
	})
}

func TestTagsFollowTheLifeRecordedFromAWS(t *testing.T) {
	h := newHouse(t)
	in := h.newFunction("f")
	in.Tags = map[string]string{"A": "tag-a"}
	if _, err := h.CreateFunction(me, in); err != nil {
		t.Fatal(err)
	}
	before := h.settled("f")
	arn := before.FunctionArn
	check := func(want map[string]string) {
		t.Helper()
		out, err := h.ListTags(me, &lambdaapi.ListTagsRequest{Resource: arn})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.Tags); diff != "" {
			t.Errorf("tags (-want +got):\n%s", diff)
		}
	}
	tag := func(tags map[string]string) error {
		_, err := h.TagResource(me, &lambdaapi.TagResourceRequest{Resource: arn, Tags: tags})
		return err
	}
	untag := func(keys ...string) {
		t.Helper()
		if _, err := h.UntagResource(me, &lambdaapi.UntagResourceRequest{Resource: arn, TagKeys: keys}); err != nil {
			t.Fatal(err)
		}
	}
	check(map[string]string{"A": "tag-a"})
	if err := tag(map[string]string{"A": "new", "B": "tag-b"}); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"A": "new", "B": "tag-b"})
	got, err := h.GetFunction(me, &lambdaapi.GetFunctionRequest{FunctionName: new("f")})
	if err != nil || !cmp.Equal(got.Tags, map[string]string{"A": "new", "B": "tag-b"}) {
		t.Errorf("GetFunction: %v %v", got.Tags, err)
	}
	untag("B", "none")
	untag("A")
	check(map[string]string{})
	if diff := cmp.Diff(before, h.get("f", "")); diff != "" {
		t.Errorf("tags changed the configuration: %s", diff)
	}
	refused(t, tag(nil), "InvalidParameterValueException", 400, "An error occurred and the request cannot be processed.")
	refused(t, tag(map[string]string{"aws:x": ""}), "InvalidParameterValueException", 400, "aws: prefixed tag key names are not allowed for external use.")
	many := map[string]string{}
	for i := range 50 {
		many[fmt.Sprint(i)] = ""
	}
	if err := tag(many); err != nil {
		t.Fatal(err)
	}
	refused(t, tag(map[string]string{"one more": ""}), "InvalidParameterValueException", 400, "Number of tags exceeds resource tag limit.")
}

func TestTagsOfOtherThingsAreRefusedInTheWordsOfAWS(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	const prefix = "arn:aws:lambda:us-east-1:111111111111:"
	for _, test := range []struct {
		resource, code string
		status         int
		message        string
	}{
		{"function:g", "ResourceNotFoundException", 404, "Function not found: " + prefix + "function:g"},
		{"function:f:$LATEST", "InvalidParameterValueException", 400, "Tags on function aliases and versions are not supported. Please specify a function ARN."},
		{"event-source-mapping:x", "ResourceNotFoundException", 404, "Event source mapping not found: " + prefix + "event-source-mapping:x"},
		{"capacity-provider:x", "ResourceNotFoundException", 404, "Capacity provider not found: " + prefix + "capacity-provider:x"},
		{"layer:x", "ResourceNotFoundException", 404, "Resource not found: " + prefix + "layer:x"},
	} {
		_, err := h.ListTags(me, &lambdaapi.ListTagsRequest{Resource: new(prefix + test.resource)})
		refused(t, err, test.code, test.status, test.message)
	}
}

func TestWhatCannotBeSetIsTruthfullyEmpty(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	concurrency, err := h.GetFunctionConcurrency(me, &lambdaapi.GetFunctionConcurrencyRequest{FunctionName: new("f")})
	if err != nil || *concurrency != (lambdaapi.GetFunctionConcurrencyResponse{}) {
		t.Errorf("%v %v", concurrency, err)
	}
	signing, err := h.GetFunctionCodeSigningConfig(me, &lambdaapi.GetFunctionCodeSigningConfigRequest{FunctionName: new("f")})
	if err != nil || *signing != (lambdaapi.GetFunctionCodeSigningConfigResponse{}) {
		t.Errorf("%v %v", signing, err)
	}
	const message = "Function not found: arn:aws:lambda:us-east-1:111111111111:function:g"
	_, err = h.GetFunctionConcurrency(me, &lambdaapi.GetFunctionConcurrencyRequest{FunctionName: new("g")})
	refused(t, err, "ResourceNotFoundException", 404, message)
	_, err = h.GetFunctionCodeSigningConfig(me, &lambdaapi.GetFunctionCodeSigningConfigRequest{FunctionName: new("g")})
	refused(t, err, "ResourceNotFoundException", 404, message)
}

func TestConcurrentTagsAreAllKept(t *testing.T) {
	h := newHouse(t)
	arn := h.create("f").FunctionArn
	errs := make(chan error)
	for i := range 8 {
		go func() {
			_, err := h.TagResource(me, &lambdaapi.TagResourceRequest{Resource: arn, Tags: map[string]string{fmt.Sprint(i): ""}})
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	out, err := h.ListTags(me, &lambdaapi.ListTagsRequest{Resource: arn})
	if err != nil || len(out.Tags) != 8 {
		t.Errorf("%v %v", slices.Collect(func(yield func(string) bool) {
			for k := range out.Tags {
				yield(k)
			}
		}), err)
	}
}
