package control

import (
	"testing"

	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

func TestDeletionTakesEverythingWithIt(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	h.publish("f")
	latest, _ := h.runs("f", "")
	first, _ := h.runs("f", "1")
	out, err := h.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("f")})
	if err != nil || *out.StatusCode != 204 {
		t.Fatal(out, err)
	}
	for _, qualifier := range []string{"", "1"} {
		if _, err := h.runs("f", qualifier); lambda.KindOf(err) != lambda.NotFound {
			t.Errorf("%q still runs: %v", qualifier, err)
		}
	}
	// Made again, it is another function: numbers start at 1, environments are not shared.
	h.create("f")
	if v := h.publish("f"); *v.Version != "1" {
		t.Errorf("version %s, want 1", *v.Version)
	}
	latest2, _ := h.runs("f", "")
	first2, err := h.runs("f", "1")
	if err != nil || latest2.ID == latest.ID || first2.ID == first.ID {
		t.Errorf("the new function shares an environment with the deleted one: %v", err)
	}
	waitFor(t, "the sweep", func() bool { return h.objects(kindVersion, account) == 1 })
	h.retires(latest.ID, first.ID)
}

func TestMoreVersionsThanACommitHoldsAreSwept(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	f, _, err := h.loadFunction(me, lambda.FunctionReference{Region: region, AccountID: account, Name: "f"})
	if err != nil {
		t.Fatal(err)
	}
	const versions = 2*sweepBatch + 7
	for n := int64(2); n <= versions; n += sweepBatch {
		var changes []store.Change
		for i := n; i < n+sweepBatch && i <= versions; i++ {
			changes = append(changes, write(versionKey(account, f.Instance, i), 0, &version{Number: i, Instance: f.Instance}))
		}
		if _, err := h.store.Commit(me, changes...); err != nil {
			t.Fatal(err)
		}
	}
	h.publish("f")
	if _, err := h.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("f")}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the sweep", func() bool { return h.objects(kindOrder, "") == 0 && len(h.retirements()) == versions+1 })
	if got := h.objects(kindVersion, account); got != 0 {
		t.Errorf("%d versions are left", got)
	}
}

func TestDeletionOfAVersionRefusesInTheWordsOfAWS(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	const arn = "arn:aws:lambda:us-east-1:111111111111:function:"
	for _, test := range []struct {
		name, qualifier, code string
		status                int
		message               string
	}{
		{"f", "$LATEST", "InvalidParameterValueException", 400, "$LATEST version cannot be deleted without deleting the function."},
		{"g:$LATEST", "", "InvalidParameterValueException", 400, "$LATEST version cannot be deleted without deleting the function."},
		{"f", "live", "InvalidParameterValueException", 400, "Deletion of aliases is not currently supported."},
		{"g", "1", "ResourceNotFoundException", 404, "Function not found: " + arn + "g"},
		{"g", "", "ResourceNotFoundException", 404, "Function not found: " + arn + "g"},
	} {
		in := &lambdaapi.DeleteFunctionRequest{FunctionName: new(test.name)}
		if test.qualifier != "" {
			in.Qualifier = new(test.qualifier)
		}
		_, err := h.DeleteFunction(me, in)
		refused(t, err, test.code, test.status, test.message)
	}
	out, err := h.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("f"), Qualifier: new("7")})
	if err != nil || *out.StatusCode != 204 {
		t.Errorf("a version that is gone already: %v %v", out, err)
	}
}
