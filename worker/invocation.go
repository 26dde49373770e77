package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"cloister/lambda"
	"cloister/runtimeapi"
	"cloister/sandbox"
)

// Error types of the platform (AWS Lambda's own names, seen in errorType).
const (
	typeTimeout     = "Sandbox.Timedout"
	typeExit        = "Runtime.ExitError"
	typeOutOfMemory = "Runtime.OutOfMemory"
	typeEntrypoint  = "Runtime.InvalidEntrypoint"
	typeService     = "Sandbox.Failure"
)

// failure is why a runtime did not answer.
type failure struct {
	kind    string
	detail  string // "exit status 1"
	payload []byte // what the runtime itself reported, if it did
}

func serviceFailure(err error) *failure {
	return &failure{kind: typeService, detail: err.Error()}
}

// startFailure is about a bootstrap that could not be executed: what the sandbox words for the caller is
// the function's fault, anything else ours.
func startFailure(err error) *failure {
	if e, ok := errors.AsType[*lambda.Error](err); ok && e.Kind == lambda.InvalidRuntime {
		return &failure{kind: typeEntrypoint, detail: e.Message}
	}
	return serviceFailure(err)
}

func exitFailure(x sandbox.Exit) *failure {
	f := &failure{kind: typeExit}
	switch {
	case x.OutOfMemory:
		f.kind, f.detail = typeOutOfMemory, "signal: killed"
	case x.Signal != 0:
		f.detail = "signal: " + syscall.Signal(x.Signal).String()
	case x.Code != 0:
		f.detail = "exit status " + strconv.Itoa(x.Code)
	}
	return f
}

// answer is the payload that AWS sends for the failure.
func (f *failure) answer(requestID string, timeout time.Duration) []byte {
	if f.payload != nil {
		return f.payload
	}
	message := "Runtime exited without providing a reason"
	switch {
	case f.kind == typeTimeout:
		message = fmt.Sprintf("Task timed out after %.2f seconds", timeout.Seconds())
	case f.kind == typeEntrypoint:
		message = f.detail
	case f.detail != "":
		message = "Runtime exited with error: " + f.detail
	}
	b, err := json.Marshal(struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}{f.kind, "RequestId: " + requestID + " Error: " + message})
	if err != nil {
		panic(err) // two strings always encode
	}
	return b
}

// outcome is what an invocation came to.
type outcome struct {
	requestID string
	deadline  time.Time
	answered  bool // the answer came at once, so it is likely that the runtime's next poll will

	payload []byte
	failed  bool     // the function reported an error, or did not answer
	failure *failure // set when the runtime must be reset
	fault   error    // set when the platform failed: there is no answer
	took    time.Duration
	init    time.Duration // init phase reported with this invocation
	peak    int64         // most memory that the environment has had, in bytes; 0: not read yet
}

// invoke serves one invocation. It returns as soon as the answer is there; what follows (the
// runtime's way back to /next, log lines, the freeze) goes on while the caller has it already, unless
// the caller asked for the end of the log.
func (e *environment) invoke(ctx context.Context, inv *lambda.Invocation) (*lambda.Result, error) {
	if err := e.take(); err != nil {
		return nil, err
	}
	if e.ended || e.died() {
		e.ended = true
		e.give()
		go e.host.bury(e, "the runtime exited between invocations")
		return nil, gone()
	}
	if err := e.wake(); err != nil {
		e.ended = true
		e.give()
		go e.host.bury(e, "thaw failed")
		return nil, gone()
	}
	e.output.begin(inv.LogTail)
	e.working.Store(true)
	o := e.run(inv)
	e.working.Store(false)
	result := &lambda.Result{Payload: o.payload, ExecutedVersion: e.spec.Version.ID.Version}
	if o.failed {
		result.FunctionError = "Unhandled"
	}
	o.payload = nil
	e.unfinished = o
	switch {
	case inv.LogTail || o.fault != nil:
		e.finish()
		result.LogTail = e.output.tail()
		e.give()
	case o.answered:
		e.give() // whoever has the next turn finishes
	default:
		go func() {
			e.finish()
			e.give()
		}()
	}
	if o.fault != nil {
		return nil, o.fault
	}
	return result, nil
}

// acknowledge tells the runtime that its answer has been passed on, and does what of the invocation's end need not keep
// the next event waiting.
func (e *environment) acknowledge() {
	e.api.Acknowledge()
	select {
	case <-e.turn:
	default:
		return // the next event has come already
	}
	if e.unfinished != nil {
		e.unfinished.peak = e.memoryPeak()
	}
	e.give()
}

func (e *environment) memoryPeak() int64 {
	peak, err := e.box.MemoryPeak()
	if err != nil && !e.ended {
		e.host.config.Logger.Warn("memory peak not read", "environment", e.id, "error", err)
	}
	return peak
}

// died says whether the runtime has ended since its last event.
func (e *environment) died() bool {
	if e.running == nil {
		return false
	}
	select {
	case <-e.running.Done():
		return true
	default:
		return false
	}
}

// wake makes a frozen environment run again.
func (e *environment) wake() error {
	e.mu.Lock()
	if e.freeze != nil {
		e.freeze.Stop()
	}
	e.mu.Unlock()
	if !e.frozen {
		return nil
	}
	if err := e.box.Thaw(context.Background()); err != nil {
		return err
	}
	e.frozen = false
	return nil
}

// run gives the event to the runtime, which it starts first if the init phase failed or the last
// invocation ended it.
func (e *environment) run(inv *lambda.Invocation) *outcome {
	began := time.Now()
	// The function's time starts now and does not end with the caller's patience.
	o := &outcome{requestID: inv.RequestID, deadline: began.Add(e.spec.Version.Timeout), init: e.initDuration}
	e.initDuration = 0
	var failed *failure
	if e.running == nil {
		if failed = e.reboot(o.deadline); failed != nil {
			took := time.Since(began)
			e.output.drain() // what the runtime wrote while it failed comes first
			e.output.platform(initReport(took, "invoke", failed))
		}
	}
	// AWS's line comes after an init that is repeated here, failed or not.
	e.output.platform("START RequestId: " + inv.RequestID + " Version: " + e.spec.Version.ID.Version + "\n")
	if failed != nil {
		return e.fail(o, inv, began, failed, gone())
	}
	answer, err := e.api.Offer(runtimeapi.Event{
		RequestID:     inv.RequestID,
		FunctionARN:   inv.FunctionARN,
		TraceID:       inv.TraceID,
		ClientContext: inv.ClientContext,
		Deadline:      o.deadline,
		Payload:       inv.Payload,
	})
	if answer != nil {
		o.took = time.Since(began)
		o.payload, o.failed, o.answered = answer.Payload, answer.FunctionError, true
		return o
	}
	return e.await(o, inv, began, err)
}

// reboot is boot within an invocation.
func (e *environment) reboot(deadline time.Time) *failure {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	return e.boot(ctx)
}

// await waits for the answer to an event that was offered, unless that failed with err.
func (e *environment) await(o *outcome, inv *lambda.Invocation, began time.Time, err error) *outcome {
	limit, cancel := context.WithDeadline(context.Background(), o.deadline)
	defer cancel()
	alive, stop := e.whileRunning(limit)
	defer stop()
	if err == nil {
		var answer runtimeapi.Answer
		if answer, err = e.api.Await(alive); err == nil {
			o.took = time.Since(began)
			o.payload, o.failed = answer.Payload, answer.FunctionError
			return o
		}
	}
	fault := error(&lambda.Error{Kind: lambda.Unavailable, Op: "invoke", Message: "the execution environment failed; try again", Err: err})
	if lambda.KindOf(err) == lambda.EnvironmentGone {
		fault = gone()
	}
	if alive.Err() == nil {
		return e.fail(o, inv, began, serviceFailure(err), fault)
	}
	return e.fail(o, inv, began, e.cutOff(alive), fault)
}

// fail answers with the failure; one of the platform is answered with the fault instead, and its
// environment serves nobody again.
func (e *environment) fail(o *outcome, inv *lambda.Invocation, began time.Time, f *failure, fault error) *outcome {
	o.took = time.Since(began)
	o.failed, o.failure = true, f
	o.payload = f.answer(inv.RequestID, e.spec.Version.Timeout)
	if f.kind == typeService {
		e.host.config.Logger.Error("environment failed", "environment", e.id, "request", inv.RequestID, "error", f.detail)
		o.fault = fault
		e.ended = true
		go e.host.bury(e, "failed")
	}
	return o
}

// finish ends the last invocation, if that has not been done yet: it waits until the runtime asks for the next event, or
// resets it, and writes the last log lines. The caller has the turn.
func (e *environment) finish() {
	o := e.unfinished
	if o == nil {
		return
	}
	e.unfinished = nil
	if o.failure == nil && !e.api.Settle() {
		o.peak = 0 // it works on
		o.failure = e.awaitIdle(o.deadline)
	}
	if o.peak == 0 || o.failure != nil {
		o.peak = e.memoryPeak()
	}
	if o.failure != nil && !e.ended {
		e.reset(context.Background())
	}
	e.output.drain()
	if o.failure != nil && o.failure.kind == typeTimeout { // what alarms and people have searched logs for ever since
		e.output.platform(fmt.Sprintf("%s %s Task timed out after %.2f seconds\n\n",
			time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), o.requestID, e.spec.Version.Timeout.Seconds()))
	}
	e.output.platform("END RequestId: " + o.requestID + "\n")
	e.output.platform(report(&e.spec.Version, o.requestID, o))
	e.output.flush()
}

// awaitIdle waits until the runtime that has answered asks for the next event. It may die or run into its deadline
// before; that the environment is being ended is no failure of an invocation that was answered.
func (e *environment) awaitIdle(deadline time.Time) *failure {
	e.working.Store(true)
	defer e.working.Store(false)
	limit, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	alive, stop := e.whileRunning(limit)
	defer stop()
	if err := e.api.AwaitIdle(alive); err != nil && !errors.Is(context.Cause(alive), errDestroyed) {
		return e.cutOff(alive)
	}
	return nil
}
