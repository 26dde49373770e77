package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"cloister/lambda"
	"cloister/runtimeapi"
	"cloister/runtimes"
	"cloister/sandbox"
)

// maxPipes bounds the connections of one environment to the gateway.
const maxPipes = 64

// Causes with which waiting for a runtime is cut off.
var (
	errExited    = errors.New("the runtime has exited")
	errDestroyed = errors.New("the environment is being ended")
)

// busyAfter is how long an event waits for an environment that has answered its last one but has not
// asked for the next yet. Most are back within a fraction of a millisecond; where all processors are busy it takes
// several, and giving up then would make new environments, which need more of them.
const busyAfter = 100 * time.Millisecond

// longestPatience bounds how long an event waits for an environment that is not at work on another.
const longestPatience = time.Second

// environment is one execution environment. Whoever holds its turn may start, invoke, freeze or
// end it; everybody else waits, so it serves one invocation at a time.
type environment struct {
	id      string
	spec    lambda.EnvironmentSpec
	host    *Host
	runtime runtimes.Runtime
	box     sandbox.Sandbox
	code    *image
	api     *runtimeapi.Server
	output  *output
	serving sync.WaitGroup // the listeners' goroutines

	turn    chan struct{} // holds one token; taking it is having the turn
	working atomic.Bool   // who has the turn waits for the function

	// Owned by whoever has the turn.
	running      sandbox.Running // nil: the runtime must be started before the next event
	frozen       bool
	ended        bool          // serves no invocation any more
	released     bool          // its sandbox and code are given back
	initDuration time.Duration // of an init phase that no invocation has reported yet
	unfinished   *outcome      // of the last invocation, which has been answered but not reported

	mu     sync.Mutex
	waited sandbox.Running         // guarded by mu; the process that cancel is about
	cancel context.CancelCauseFunc // guarded by mu; ends what waits for that process
	freeze *time.Timer             // guarded by mu; the pending freeze
	dying  bool                    // guarded by mu; destroy waits for the turn
}

func newEnvironment(h *Host, spec lambda.EnvironmentSpec, r runtimes.Runtime, box sandbox.Sandbox, code *image) (*environment, error) {
	id := newID()
	out, err := newOutput(func(events []lambda.LogEvent) {
		h.config.Upstream.Append(spec.Version.ID.AccountID, spec.Version.LogGroup, spec.LogStream, events)
	})
	if err != nil {
		return nil, fmt.Errorf("make environment: %w", err)
	}
	e := &environment{
		id: id, spec: spec, host: h, runtime: r, box: box, code: code,
		api:    runtimeapi.New(runtimeapi.Config{Logger: h.config.Logger.With("environment", id)}),
		output: out,
		turn:   make(chan struct{}, 1),
	}
	e.turn <- struct{}{}
	e.serving.Go(func() { e.api.Serve(box.RuntimeAPI()) })
	e.serving.Go(e.servePipes)
	return e, nil
}

// take waits a moment for the environment's turn and for the end of its last invocation.
func (e *environment) take() error {
	select {
	case <-e.turn:
	default:
		if !e.awaitTurn() {
			return busy()
		}
	}
	if e.unfinished == nil {
		return nil
	}
	if !e.api.Settle() {
		ctx, cancel := context.WithTimeout(context.Background(), busyAfter)
		err := e.api.AwaitIdle(ctx)
		cancel()
		if err != nil && !e.died() {
			e.give() // the freeze that this schedules finishes the invocation
			return busy()
		}
	}
	e.finish()
	return nil
}

// awaitTurn waits for a function that is busy only a moment, but longer for the platform's own work, such as a freeze.
func (e *environment) awaitTurn() bool {
	for waited := time.Duration(0); waited < longestPatience; waited += busyAfter {
		patience := time.NewTimer(busyAfter) // the loop ends after one of them if the function is at work
		select {
		case <-e.turn:
			patience.Stop()
			return true
		case <-patience.C:
			if e.working.Load() {
				return false
			}
		}
	}
	return false
}

func busy() error {
	return &lambda.Error{Kind: lambda.Busy, Op: "invoke", Message: "the environment is still finishing its last event"}
}

// give ends the holder's turn. An environment that is idle then freezes soon; only now, because a
// timer that ran out during the turn would have found it taken.
func (e *environment) give() {
	idle := e.running != nil && !e.frozen && !e.ended
	e.turn <- struct{}{}
	if idle {
		e.scheduleFreeze()
	}
}

// start runs the runtime's bootstrap and watches its end.
func (e *environment) start(ctx context.Context) error {
	command := e.runtime.Command(e.spec.Version.MemoryMiB, e.spec.Version.Variables["AWS_LAMBDA_EXEC_WRAPPER"])
	running, err := e.box.Start(ctx, sandbox.Process{
		Path:   command[0],
		Args:   command,
		Env:    variables(&e.spec, e.runtime, e.host.config.Region, e.box.RuntimeAPIAddress(), e.box.ServicesAddress()),
		Dir:    "/var/task",
		Stdout: e.output.write,
		Stderr: e.output.write,
	})
	if err != nil {
		return fmt.Errorf("start runtime: %w", err)
	}
	e.running = running
	go e.watch(running)
	return nil
}

// watch ends what waits for the process when it exits, and buries an environment whose runtime
// dies while nobody uses it.
func (e *environment) watch(running sandbox.Running) {
	<-running.Done()
	e.mu.Lock()
	if e.cancel != nil && e.waited == running {
		e.cancel(errExited)
	}
	e.mu.Unlock()
	<-e.turn // an invocation that has it sees the exit itself and leaves nothing to bury
	if e.running == running {
		e.finish()
	}
	died := e.running == running && !e.ended
	e.give()
	if died {
		e.host.bury(e, "the runtime exited between invocations")
	}
}

// whileRunning returns a context that also ends, with errExited, when the runtime's process does.
func (e *environment) whileRunning(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	e.mu.Lock()
	e.cancel, e.waited = cancel, e.running
	if e.dying {
		cancel(errDestroyed)
	}
	e.mu.Unlock()
	select {
	case <-e.running.Done(): // it may have ended before cancel was there to be called
		cancel(errExited)
	default:
	}
	return ctx, func() {
		e.mu.Lock()
		e.cancel = nil
		e.mu.Unlock()
		cancel(nil)
	}
}

// initialize is the init phase of a new environment. A failure is kept for the first invocation.
func (e *environment) initialize(ctx context.Context) {
	<-e.turn
	defer e.give()
	defer e.output.flush()
	if e.ended {
		return
	}
	e.output.platform(initStart(e.runtime))
	limit, cancel := context.WithTimeout(ctx, lambda.InitTimeout)
	defer cancel()
	began := time.Now()
	failure := e.boot(limit)
	took := time.Since(began)
	if failure == nil {
		e.initDuration = took
		return
	}
	e.output.platform(initReport(took, "init", failure))
	e.reset(context.WithoutCancel(ctx))
}

// boot starts the runtime and waits until it asks for its first event. The CPU share is not
// enforced meanwhile, as on AWS, where init runs at full speed whatever the memory size.
func (e *environment) boot(ctx context.Context) *failure {
	if err := e.box.SetCPU(max(1, limits(&e.spec.Version).CPU)); err != nil {
		return serviceFailure(err)
	}
	if err := e.start(ctx); err != nil {
		return startFailure(err)
	}
	alive, stop := e.whileRunning(ctx)
	defer stop()
	outcome, err := e.api.AwaitInit(alive)
	switch {
	case err == nil && outcome.Error != nil:
		return &failure{kind: outcome.Error.ErrorType, payload: outcome.Error.Payload}
	case err != nil:
		return e.cutOff(alive)
	}
	if err := e.box.SetCPU(limits(&e.spec.Version).CPU); err != nil {
		return serviceFailure(err)
	}
	return nil
}

// cutOff says why waiting for the runtime ended.
func (e *environment) cutOff(alive context.Context) *failure {
	switch cause := context.Cause(alive); {
	case errors.Is(cause, errExited):
		return exitFailure(e.running.Wait())
	case errors.Is(cause, errDestroyed):
		return serviceFailure(cause)
	}
	return &failure{kind: typeTimeout}
}

// reset ends the runtime's processes; /tmp survives (AWS: a timed out or crashed
// environment is reused after a reset). The next invocation starts the runtime again.
func (e *environment) reset(ctx context.Context) {
	if err := e.box.KillAll(ctx); err != nil {
		e.host.config.Logger.Error("environment not reset", "environment", e.id, "error", err)
		e.ended = true // an environment that cannot be emptied serves nobody again
		go e.host.bury(e, "reset failed")
	}
	e.api.Reset()
	e.running = nil
	e.frozen = false
}

// scheduleFreeze freezes the environment unless another invocation comes soon. Freezing and thawing wake every
// thread of a function, which costs more than a short invocation; on a full machine an environment in
// steady use may rest for tens of milliseconds.
func (e *environment) scheduleFreeze() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.freeze != nil {
		e.freeze.Reset(e.host.config.FreezeAfter)
		return
	}
	e.freeze = time.AfterFunc(e.host.config.FreezeAfter, e.freezeIfIdle)
}

func (e *environment) freezeIfIdle() {
	select {
	case <-e.turn:
	default:
		return // whoever has the turn schedules the next freeze when giving it
	}
	defer e.give()
	e.finish()
	if e.frozen || e.ended || e.running == nil {
		return
	}
	if err := e.box.Freeze(context.Background()); err != nil {
		e.host.config.Logger.Error("environment not frozen", "environment", e.id, "error", err)
		e.ended = true // what cannot be frozen must not run on
		go e.host.bury(e, "freeze failed")
		return
	}
	e.frozen = true
}

// destroy waits for the turn, so that a running invocation is cut off before its sandbox goes, and
// leaves nothing behind. After an error it may be called again.
func (e *environment) destroy(ctx context.Context) error {
	e.mu.Lock()
	e.dying = true
	if e.freeze != nil {
		e.freeze.Stop()
	}
	if e.cancel != nil {
		e.cancel(errDestroyed)
	}
	e.mu.Unlock()
	<-e.turn
	defer e.give()
	e.finish()
	e.ended = true
	if e.released {
		return nil
	}
	e.api.Reset()
	if err := e.box.Destroy(ctx); err != nil {
		return err
	}
	e.released = true
	e.serving.Wait()
	e.output.close()
	e.host.images.release(e.code)
	return nil
}
