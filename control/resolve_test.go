package control

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// A countingStore counts reads, and can do something before one returns.
type countingStore struct {
	store.Store
	reads atomic.Int32
	after func() // may be nil
}

func (c *countingStore) Get(ctx context.Context, k store.Key) (store.Object, error) {
	c.reads.Add(1)
	object, err := c.Store.Get(ctx, k)
	if c.after != nil {
		c.after()
	}
	return object, err
}

func TestWhatWasResolvedBeforeCostsNoRead(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	h.publish("f")
	counting := &countingStore{Store: h.store}
	h.store = counting
	for _, qualifier := range []string{"", "$LATEST", "1"} {
		first, err := h.runs("f", qualifier)
		if err != nil {
			t.Fatal(err)
		}
		before := counting.reads.Load()
		again, err := h.runs("f", qualifier)
		if err != nil || again.ID != first.ID || counting.reads.Load() != before {
			t.Errorf("%q: %v, %d reads", qualifier, err, counting.reads.Load()-before)
		}
	}
}

func TestACommitIsSeenByTheNextResolve(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	for n := range 10 {
		if _, err := h.runs("f", ""); err != nil {
			t.Fatal(err)
		}
		_, err := h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), Handler: new(fmt.Sprint(n))})
		if err != nil {
			t.Fatal(err)
		}
		h.settled("f")
		if v, err := h.runs("f", ""); err != nil || v.Handler != fmt.Sprint(n) {
			t.Fatalf("runs %s, want %d: %v", v.Handler, n, err)
		}
	}
	if _, err := h.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("f")}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.runs("f", ""); lambda.KindOf(err) != lambda.NotFound {
		t.Errorf("deleted: %v", err)
	}
}

func TestAReadThatACommitOvertookIsNotKept(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	counting := &countingStore{Store: h.store}
	s, err := New(Config{Store: counting, Artifacts: h, Roles: h, Runtimes: h, Environments: h, Region: region, Architecture: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	ref := lambda.FunctionReference{Region: region, AccountID: account, Name: "f"}
	counting.after = func() { // after the read, before the result is kept
		counting.after = nil
		if _, err := s.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("f")}); err != nil {
			t.Error(err)
		}
	}
	s.Resolve(me, ref)
	if _, err := s.Resolve(me, ref); lambda.KindOf(err) != lambda.NotFound {
		t.Errorf("the deleted function is still kept: %v", err)
	}
}

func TestResolveRefusesInTheWordsOfAWS(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	const arn = "arn:aws:lambda:us-east-1:111111111111:function:"
	for _, test := range []struct {
		ref     lambda.FunctionReference
		kind    lambda.Kind
		message string
	}{
		{lambda.FunctionReference{Region: region, AccountID: account, Name: "g"}, lambda.NotFound, "Function not found: " + arn + "g:$LATEST"},
		{lambda.FunctionReference{Region: region, AccountID: account, Name: "f", Qualifier: "live"}, lambda.NotFound, "Function not found: " + arn + "f:live"},
		{lambda.FunctionReference{Region: region, AccountID: account, Name: "f", Qualifier: "2"}, lambda.NotFound, "Function not found: " + arn + "f:2"},
		{lambda.FunctionReference{Region: "eu-west-1", AccountID: account, Name: "f"}, lambda.NotFound,
			"Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"},
		{lambda.FunctionReference{Region: region, AccountID: "222222222222", Name: "f"}, lambda.AccessDenied, "The function belongs to another account."},
		{lambda.FunctionReference{Region: region, Name: "f"}, lambda.AccessDenied, "The function belongs to another account."},
	} {
		_, err := h.Resolve(me, test.ref)
		e, ok := errors.AsType[*lambda.Error](err)
		if !ok || e.Kind != test.kind || e.Message != test.message {
			t.Errorf("%v: got %v", test.ref, err)
		}
	}
	// An internal caller (no api.Call) names the account; without one nothing is found.
	if _, err := h.Resolve(t.Context(), lambda.FunctionReference{Region: region, AccountID: account, Name: "f"}); err != nil {
		t.Error(err)
	}
	if _, err := h.Resolve(t.Context(), lambda.FunctionReference{Region: region, Name: "f"}); lambda.KindOf(err) != lambda.AccessDenied {
		t.Error(err)
	}
}

func TestTheCacheIsBoundedAndForgetsOneFunctionOnly(t *testing.T) {
	var c cache
	v := &lambda.Version{}
	for n := range 3 * maxResolved {
		c.put(lambda.FunctionReference{AccountID: account, Name: fmt.Sprint(n / 100), Qualifier: fmt.Sprint(n)}, v, 0)
		if c.size > maxResolved {
			t.Fatalf("%d versions kept", c.size)
		}
	}
	counted := 0
	for _, versions := range c.functions {
		counted += len(versions)
	}
	if counted != c.size {
		t.Errorf("size is %d, holds %d", c.size, counted)
	}
	resume := c.suspend(lambda.FunctionReference{AccountID: account, Name: "299"})
	if got, _ := c.get(lambda.FunctionReference{AccountID: account, Name: "299", Qualifier: "29999"}); got != nil || c.size != counted-100 {
		t.Errorf("forgotten, but holds %v, size %d", got, c.size)
	}
	if got, _ := c.get(lambda.FunctionReference{AccountID: account, Name: "298", Qualifier: "29899"}); got == nil {
		t.Error("another function was forgotten")
	}
	resume()
	if len(c.changing) > 0 {
		t.Errorf("no commit is under way, but %v", c.changing)
	}
}

// An observedStore shows its state the moment a commit is in it, before the commit's caller knows.
type observedStore struct {
	store.Store
	committed func()
}

func (o *observedStore) Commit(ctx context.Context, changes ...store.Change) ([]uint64, error) {
	revisions, err := o.Store.Commit(ctx, changes...)
	o.committed()
	return revisions, err
}

func TestWhoHasSeenAChangeIsNotServedWhatWasBefore(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	old, err := h.runs("f", "")
	if err != nil {
		t.Fatal(err)
	}
	observed := 0
	h.stop() // Run would commit beside us
	h.open()
	h.store = &observedStore{h.store, func() {
		if now, err := h.runs("f", ""); lambda.KindOf(err) != lambda.NotFound {
			t.Errorf("the function is deleted, but %v runs: %v", now.ID, err)
		}
		observed++
	}}
	if kept, err := h.runs("f", ""); err != nil || kept.ID != old.ID { // and is kept now
		t.Fatal(err)
	}
	if _, err := h.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("f")}); err != nil || observed != 1 {
		t.Errorf("%d commits observed: %v", observed, err)
	}
}

func BenchmarkResolve(b *testing.B) {
	s := &Server{region: region}
	ref := lambda.FunctionReference{Region: region, AccountID: account, Name: "hello", Qualifier: lambda.LatestVersion}
	s.resolved.put(ref, &lambda.Version{}, 0)
	ref.Qualifier = ""
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Resolve(me, ref); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPermissionsOfInvoke(b *testing.B) {
	s := &Server{region: region}
	in := &lambdaapi.InvocationRequest{FunctionName: new("hello")}
	call := callOf(me)
	b.ReportAllocs()
	for b.Loop() {
		s.Permissions("Invoke", in, call)
	}
}
