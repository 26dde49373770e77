package control

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cloister/api/lambdaapi"
	"cloister/lambda"
)

func TestAFunctionLeftPendingBecomesActiveAfterARestart(t *testing.T) {
	h := newQuietHouse(t)
	in := h.newFunction("f")
	in.Publish = new(true)
	if _, err := h.CreateFunction(me, in); err != nil {
		t.Fatal(err)
	}
	h.restart()
	h.settled("f")
	for _, qualifier := range []string{"", "1"} {
		if _, err := h.runs("f", qualifier); err != nil {
			t.Error(err)
		}
	}
	if h.objects(kindOrder, "") != 0 {
		t.Error("the order is still there")
	}
}

func TestAnUpdateLeftInProgressIsFinishedAfterARestart(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	old, _ := h.runs("f", "")
	entered := make(chan struct{})
	h.preparing(func(ctx context.Context, _ string) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	})
	if _, err := h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), Timeout: new(int32(9))}); err != nil {
		t.Fatal(err)
	}
	<-entered
	h.stop()
	h.preparing(nil)
	h.open()
	if now, err := h.runs("f", ""); err != nil || now.ID != old.ID {
		t.Errorf("before Run: %v %v", now, err)
	}
	h.run()
	if got := h.settled("f"); *got.LastUpdateStatus != "Successful" {
		t.Errorf("update is %s", *got.LastUpdateStatus)
	}
	if now, err := h.runs("f", ""); err != nil || now.ID == old.ID {
		t.Errorf("after Run: %v %v", now, err)
	}
}

func TestWhileAnUpdateIsInProgressTheOldVersionRuns(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	old, err := h.runs("f", "")
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	h.preparing(func(context.Context, string) error { <-release; return nil })
	if _, err := h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), Handler: new("other")}); err != nil {
		t.Fatal(err)
	}
	const message = "The operation cannot be performed at this time. An update is in progress for resource: arn:aws:lambda:us-east-1:111111111111:function:f"
	now, err := h.runs("f", "")
	if diff := cmp.Diff(old, now); diff != "" || err != nil {
		t.Errorf("in progress: %v %s", err, diff)
	}
	_, err = h.UpdateFunctionCode(me, &lambdaapi.UpdateFunctionCodeRequest{FunctionName: new("f"), ZipFile: zipOf(t, "2")})
	refused(t, err, "ResourceConflictException", 409, message)
	_, err = h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f")})
	refused(t, err, "ResourceConflictException", 409, message)
	_, err = h.PublishVersion(me, &lambdaapi.PublishVersionRequest{FunctionName: new("f")})
	refused(t, err, "ResourceConflictException", 409, message)
	if got := *h.get("f", "").Handler; got != "other" {
		t.Errorf("the configuration shows %s", got)
	}
	close(release)
	h.settled("f")
	if now, err = h.runs("f", ""); err != nil || now.Handler != "other" {
		t.Errorf("after: %v %v", now, err)
	}
}

func TestWhatIsPendingAcceptsNothingButDeletion(t *testing.T) {
	h := newQuietHouse(t)
	if _, err := h.CreateFunction(me, h.newFunction("f")); err != nil {
		t.Fatal(err)
	}
	const message = "The operation cannot be performed at this time. The function is currently in the following state: Pending"
	_, err := h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f")})
	refused(t, err, "ResourceConflictException", 409, message)
	_, err = h.PublishVersion(me, &lambdaapi.PublishVersionRequest{FunctionName: new("f")})
	refused(t, err, "ResourceConflictException", 409, message)
	_, err = h.runs("f", "")
	if e, ok := errors.AsType[*lambda.Error](err); !ok || e.Kind != lambda.NotReady || e.Message != message {
		t.Errorf("invoked while pending: %v", err)
	}
	if _, err := h.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("f")}); err != nil {
		t.Fatal(err)
	}
	if h.objects(kindOrder, "") != 0 {
		t.Error("the order outlived its function")
	}
}

func TestAFailedCreationSaysWhyAndCanBeRepaired(t *testing.T) {
	h := newHouse(t)
	h.preparing(func(context.Context, string) error {
		return lambda.Errorf(lambda.InvalidRuntime, "prepare", "python3.11 is gone from this host")
	})
	in := h.newFunction("f")
	in.Publish = new(true)
	if _, err := h.CreateFunction(me, in); err != nil {
		t.Fatal(err)
	}
	for _, qualifier := range []string{"", "1"} {
		h.settled("f")
		got := h.get("f", qualifier)
		if *got.State != "Failed" || *got.StateReasonCode != "InvalidRuntime" || *got.StateReason != "python3.11 is gone from this host" ||
			*got.LastUpdateStatus != "Failed" { // so that no waiter waits for ever
			t.Errorf("%q: %s %v %v %v", qualifier, *got.State, got.StateReason, got.StateReasonCode, got.LastUpdateStatus)
		}
		if _, err := h.runs("f", qualifier); lambda.KindOf(err) != lambda.NotReady {
			t.Errorf("%q runs: %v", qualifier, err)
		}
	}
	_, err := h.PublishVersion(me, &lambdaapi.PublishVersionRequest{FunctionName: new("f")})
	refused(t, err, "ResourceConflictException", 409, "The operation cannot be performed at this time. The function is currently in the following state: Failed")
	h.preparing(nil)
	updated, err := h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), Runtime: new("nodejs20.x")})
	if err != nil || *updated.State != "Pending" {
		t.Fatal(updated, err)
	}
	if got := h.settled("f"); *got.State != "Active" {
		t.Errorf("state %s", *got.State)
	}
	if got := *h.publish("f").Version; got != "2" {
		t.Errorf("published %s, want 2", got)
	}
}

func TestAFailedUpdateLeavesTheOldVersionRunning(t *testing.T) {
	h := newHouse(t)
	h.create("f")
	old, _ := h.runs("f", "")
	h.preparing(func(context.Context, string) error {
		return lambda.Errorf(lambda.InvalidRuntime, "prepare", "no such runtime")
	})
	_, err := h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), Runtime: new("nodejs20.x")})
	if err != nil {
		t.Fatal(err)
	}
	got := h.settled("f")
	if *got.State != "Active" || *got.LastUpdateStatus != "Failed" || *got.LastUpdateStatusReason != "no such runtime" || *got.LastUpdateStatusReasonCode != "InvalidRuntime" {
		t.Errorf("%s %s %v %v", *got.State, *got.LastUpdateStatus, got.LastUpdateStatusReason, got.LastUpdateStatusReasonCode)
	}
	_, err = h.PublishVersion(me, &lambdaapi.PublishVersionRequest{FunctionName: new("f")})
	refused(t, err, "ResourceConflictException", 409, "The operation cannot be performed at this time. The last update failed for resource: "+
		"arn:aws:lambda:us-east-1:111111111111:function:f")
	h.restart()
	if now, err := h.runs("f", ""); err != nil || !cmp.Equal(now, old) {
		t.Errorf("runs %v %v", now, err)
	}
	if len(h.retirements()) != 0 {
		t.Error("the running version was retired")
	}
	h.preparing(nil)
	_, err = h.UpdateFunctionConfiguration(me, &lambdaapi.UpdateFunctionConfigurationRequest{FunctionName: new("f"), Runtime: new("python3.11")})
	if err != nil {
		t.Fatal(err)
	}
	h.settled("f")
	h.retires(old.ID)
}

func TestATransientFailureIsTriedAgain(t *testing.T) {
	h := newHouse(t)
	var attempts atomic.Int32
	h.preparing(func(context.Context, string) error {
		if attempts.Add(1) < 4 {
			return lambda.Errorf(lambda.Unavailable, "prepare", "the worker is restarting")
		}
		return nil
	})
	if got := h.create("f"); *got.State != "Active" || attempts.Load() != 4 {
		t.Errorf("%s after %d attempts", *got.State, attempts.Load())
	}
}

func TestAttemptsAreBoundedAndInternalReasonsHidden(t *testing.T) {
	h := newHouse(t)
	var attempts atomic.Int32
	h.preparing(func(context.Context, string) error { attempts.Add(1); return errors.New("secret path") })
	got := h.create("f")
	if *got.State != "Failed" || *got.StateReason != "An internal error occurred while the function was being prepared." ||
		*got.StateReasonCode != "InternalError" || attempts.Load() != maxAttempts {
		t.Errorf("%s %s %s after %d attempts", *got.State, *got.StateReason, *got.StateReasonCode, attempts.Load())
	}
}

func TestAFunctionDeletedWhileItIsPreparedStaysDeleted(t *testing.T) {
	h := newHouse(t)
	entered, release := make(chan struct{}, 8), make(chan struct{})
	h.preparing(func(context.Context, string) error { entered <- struct{}{}; <-release; return nil })
	if _, err := h.CreateFunction(me, h.newFunction("f")); err != nil {
		t.Fatal(err)
	}
	<-entered
	if _, err := h.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("f")}); err != nil {
		t.Fatal(err)
	}
	// Made anew, it must not be taken for the one whose preparation is still running.
	second, err := h.CreateFunction(me, h.newFunction("f"))
	if err != nil {
		t.Fatal(err)
	}
	release <- struct{}{} // ends the first preparation
	<-entered             // the second one has begun
	if got := h.get("f", ""); *got.State != "Pending" || *got.RevisionId != *second.RevisionId {
		t.Errorf("the new function is %s", *got.State)
	}
	close(release)
	h.settled("f")
	if h.objects(kindFunction, account) != 1 || h.objects(kindOrder, "") != 0 {
		t.Error("something is left")
	}
}

func TestASlowPreparationDoesNotHoldBackTheOthers(t *testing.T) {
	h := newHouse(t)
	release := make(chan struct{})
	defer close(release)
	var running, most atomic.Int32
	h.preparing(func(_ context.Context, runtime string) error {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if runtime == "nodejs20.x" {
			<-release
		}
		return nil
	})
	slow := h.newFunction("a-slow")
	slow.Runtime = new("nodejs20.x")
	if _, err := h.CreateFunction(me, slow); err != nil {
		t.Fatal(err)
	}
	for n := range 12 {
		if _, err := h.CreateFunction(me, h.newFunction(fmt.Sprint("f", n))); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 12 {
		h.settled(fmt.Sprint("f", n))
	}
	if got := *h.get("a-slow", "").State; got != "Pending" || most.Load() > parallelOrders {
		t.Errorf("slow one is %s, %d ran at once", got, most.Load())
	}
}

func TestAnOrderOfAnEarlierListingIsNotDoneTwice(t *testing.T) {
	h := newQuietHouse(t)
	if _, err := h.CreateFunction(me, h.newFunction("f")); err != nil {
		t.Fatal(err)
	}
	f, _, err := h.loadFunction(me, lambda.FunctionReference{Region: region, AccountID: account, Name: "f"})
	if err != nil {
		t.Fatal(err)
	}
	object, err := h.store.Get(me, orderKey(f.Preparation))
	if err != nil {
		t.Fatal(err)
	}
	carryOut := func() {
		h.work.start(object.Name)
		if again := h.carryOut(me, object); again {
			t.Fatal("not carried out")
		}
		h.work.end(object.Name, false, 0)
	}
	carryOut()
	first := h.get("f", "")
	if *first.State != "Active" {
		t.Fatalf("state %s", *first.State)
	}
	carryOut()
	if diff := cmp.Diff(first, h.get("f", "")); diff != "" {
		t.Errorf("an old order changed the function: %s", diff)
	}
}

func TestAnOrderThatIsDeletedWhileItWaitsIsForgotten(t *testing.T) {
	h := newQuietHouse(t)
	h.retry = 50 * time.Millisecond
	entered := make(chan struct{}, 1)
	h.preparing(func(context.Context, string) error {
		entered <- struct{}{}
		return lambda.Errorf(lambda.Unavailable, "prepare", "the worker is restarting")
	})
	h.run()
	if _, err := h.CreateFunction(me, h.newFunction("f")); err != nil {
		t.Fatal(err)
	}
	<-entered
	if _, err := h.DeleteFunction(me, &lambdaapi.DeleteFunctionRequest{FunctionName: new("f")}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the order to be forgotten", func() bool {
		h.work.mu.Lock()
		defer h.work.mu.Unlock()
		return len(h.work.jobs) == 0
	})
}
