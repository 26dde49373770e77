package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"cloister/api/lambdaapi"
	"cloister/lambda"
	"cloister/store"
)

// Bounds of the work that Run does.
const (
	parallelOrders     = 4
	orderPage          = 256 // orders read from the store at a time
	preparationTimeout = 2 * time.Minute
	maxAttempts        = 8                // then the function is Failed
	firstRetry         = time.Second      // doubles with every attempt …
	lastRetry          = 30 * time.Second // … up to this; quick failures end well within the 300 s that waiters wait
	maxReasonBytes     = 1024             // of a failure's text in StateReason
)

func active() state { return state{Status: lambdaapi.StateActive} }

func pending() state {
	return state{lambdaapi.StatePending, "The function is being created.", lambdaapi.StateReasonCodeCreating}
}

// inProgress has the words of pending: AWS gives an update the same reason.
func inProgress() state {
	return state{lambdaapi.LastUpdateStatusInProgress, "The function is being created.", lambdaapi.StateReasonCodeCreating}
}

// failed is the state after err; its text is shown only if it was meant for the caller.
func failed(err error) state {
	s := state{lambdaapi.StateFailed, "An internal error occurred while the function was being prepared.", lambdaapi.StateReasonCodeInternalError}
	switch lambda.KindOf(err) {
	case lambda.InvalidParameter, lambda.InvalidRuntime, lambda.NotFound:
		s.Code = lambdaapi.StateReasonCodeInvalidRuntime
		if e, ok := errors.AsType[*lambda.Error](err); ok && e.Message != "" {
			s.Reason = e.Message[:min(len(e.Message), maxReasonBytes)]
		}
	}
	return s
}

// orderPreparation returns the change that orders the preparation of f.Latest, and notes the order
// in f. The versions wait for it too.
func (s *Server) orderPreparation(ref lambda.FunctionReference, f *function, versions ...int64) store.Change {
	f.Preparation = orderName(f.Instance, s.now())
	o := &order{Account: ref.AccountID, Function: ref.Name, Instance: f.Instance, Sequence: f.Latest.Sequence, Versions: versions}
	return write(orderKey(f.Preparation), store.AnyRevision, o)
}

// A workshop is what Run knows of the orders it works on. The orders themselves are in the store.
type workshop struct {
	wake  chan struct{} // holds one signal: look for orders
	slots chan struct{} // one per running order

	mu   sync.Mutex
	jobs map[string]*job // guarded by mu; by name of the order
}

// A job is an order that is running or waits for its next attempt.
type job struct {
	running  bool
	attempts int
	next     time.Time // of the monotonic clock
}

func (w *workshop) open() {
	w.wake = make(chan struct{}, 1)
	w.slots = make(chan struct{}, parallelOrders)
	w.jobs = map[string]*job{}
}

// notify makes Run look for orders. It never blocks.
func (w *workshop) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// start marks an order as running, unless it runs already or must wait.
func (w *workshop) start(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.jobs[name]
	if j == nil {
		j = &job{}
		w.jobs[name] = j
	}
	if j.running || time.Now().Before(j.next) {
		return false
	}
	j.running = true
	j.attempts++
	return true
}

// end forgets an order that is done, or lets it wait for its next attempt.
func (w *workshop) end(name string, again bool, delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !again {
		delete(w.jobs, name)
		return
	}
	j := w.jobs[name]
	j.running = false
	delay = min(delay<<min(j.attempts-1, 10), lastRetry)
	j.next = time.Now().Add(delay)
	time.AfterFunc(delay, w.notify)
}

// prune forgets the orders that were due before a pass over all orders began and that the pass
// did not find: they were deleted while they waited.
func (w *workshop) prune(begin time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.jobs, func(_ string, j *job) bool { return !j.running && j.next.Before(begin) })
}

func (w *workshop) attempts(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.jobs[name].attempts
}

// Run carries out orders until ctx is done, in the sequence in which they were given; those that an
// earlier process left come first. It returns nil when the last one has stopped.
func (s *Server) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		if err := s.dispatch(ctx, &running); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "look for functions to prepare", "error", err)
			time.AfterFunc(s.retry, s.work.notify)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.work.wake:
		}
	}
}

// dispatch starts every order in the store that is due. It blocks while all slots are taken.
func (s *Server) dispatch(ctx context.Context, running *sync.WaitGroup) error {
	begin := time.Now()
	for after := ""; ; {
		page, err := s.store.List(ctx, kindOrder, "", "", store.Page{After: after, Limit: orderPage})
		if err != nil {
			return storeError("list orders", err)
		}
		for _, object := range page {
			after = object.Name
			if !s.work.start(object.Name) {
				continue
			}
			select {
			case s.work.slots <- struct{}{}:
			case <-ctx.Done():
				s.work.end(object.Name, true, s.retry)
				return ctx.Err()
			}
			running.Go(func() {
				defer func() { <-s.work.slots }()
				again := s.carryOut(ctx, object)
				s.work.end(object.Name, again, s.retry)
			})
		}
		if len(page) < orderPage {
			s.work.prune(begin)
			return nil
		}
	}
}

// carryOut does what one order says and reports whether to try again.
func (s *Server) carryOut(ctx context.Context, object store.Object) (again bool) {
	o, err := decode[order](object)
	if err != nil {
		s.log.ErrorContext(ctx, "read order", "order", object.Name, "error", err)
		return true
	}
	ref := lambda.FunctionReference{Region: s.region, AccountID: o.Account, Name: o.Function}
	log := s.log.With("order", object.Name, "function", ref.ARN(), "sweep", o.Sweep)
	if o.Sweep {
		err = s.sweep(ctx, ref, object.Key, o.Instance)
	} else {
		err = s.prepare(ctx, ref, object.Key, o)
	}
	switch {
	case ctx.Err() != nil: // the order stays in the store, for the next process
		return true
	case err != nil:
		log.WarnContext(ctx, "order not carried out yet", "attempt", s.work.attempts(object.Name), "error", err)
		return true
	}
	log.InfoContext(ctx, "order carried out")
	return false
}

// prepare makes what the function needs ready and commits the outcome. An error means that the
// order is still there.
func (s *Server) prepare(ctx context.Context, ref lambda.FunctionReference, key store.Key, o *order) error {
	f, _, err := s.loadFunction(ctx, ref)
	if err != nil && !isNotFound(err) {
		return err
	}
	var outcome error
	if err == nil && o.isFor(f, key.Name) {
		limited, cancel := context.WithTimeout(ctx, preparationTimeout)
		outcome = s.runtimes.Prepare(limited, f.Latest.Content.Runtime)
		cancel()
	}
	if outcome != nil {
		if ctx.Err() != nil || mayPass(outcome) && s.work.attempts(key.Name) < maxAttempts {
			return outcome
		}
		s.log.WarnContext(ctx, "function failed", "function", ref.ARN(), "error", outcome)
	}
	return s.complete(ctx, ref, key, o, outcome)
}

// isFor says whether the function still waits for this order. It does not if it was made anew, or
// if the order was done while an older listing of orders was worked on.
func (o *order) isFor(f *function, name string) bool {
	return f.Preparation == name && f.Instance == o.Instance && f.Latest.Sequence == o.Sequence
}

// mayPass says whether a failed preparation is worth another attempt.
func mayPass(err error) bool {
	switch lambda.KindOf(err) {
	case lambda.Unavailable, lambda.Capacity, lambda.Throttled, lambda.Internal, lambda.EnvironmentGone:
		return true
	}
	return false
}

// complete commits the outcome of an order: function and versions become Active, or Failed, and
// the order is gone. An order that is out of date is only deleted.
func (s *Server) complete(ctx context.Context, ref lambda.FunctionReference, key store.Key, o *order, outcome error) error {
	for range maxRewrites {
		f, revision, err := s.loadFunction(ctx, ref)
		if err != nil && !isNotFound(err) {
			return err
		}
		changes := []store.Change{erase(key)}
		var replaced *configuration
		if err == nil && o.isFor(f, key.Name) {
			versions, err := s.settleVersions(ctx, ref.AccountID, o, outcome)
			if err != nil {
				return err
			}
			if replaced, err = s.settle(f, outcome); err != nil {
				return err
			}
			changes = append(append(changes, versions...), write(functionKey(ref), revision, f))
		}
		err = s.commit(ctx, ref, changes...)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err == nil && replaced != nil {
			s.retire(ctx, replaced.runnable(ref, f.Instance, lambda.LatestVersion).ID)
		}
		return err
	}
	return fmt.Errorf("complete preparation of %s: %w", ref.ARN(), store.ErrConflict)
}

// settle moves the function out of Pending or InProgress. It returns the configuration that
// $LATEST ran until now, if an update has replaced it.
func (s *Server) settle(f *function, outcome error) (replaced *configuration, err error) {
	f.Preparation = ""
	switch {
	case outcome != nil && f.State.Status == lambdaapi.StatePending:
		f.State = failed(outcome)
		f.Update = f.State
	case outcome != nil:
		f.Update = failed(outcome) // and $LATEST goes on with f.Serving
	default:
		f.State, f.Update = active(), state{Status: lambdaapi.LastUpdateStatusSuccessful}
		replaced, f.Serving = f.Serving, nil
	}
	return replaced, s.revise(f)
}

// settleVersions returns the changes that move the order's versions out of Pending. A version
// that was deleted meanwhile stays deleted.
func (s *Server) settleVersions(ctx context.Context, account string, o *order, outcome error) (changes []store.Change, err error) {
	for _, number := range o.Versions {
		v, revision, err := load[version](ctx, s.store, versionKey(account, o.Instance, number))
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v.State = active()
		if outcome != nil {
			v.State = failed(outcome)
		}
		if v.RevisionID, err = s.uuid(); err != nil {
			return nil, err
		}
		changes = append(changes, write(versionKey(account, o.Instance, number), revision, v))
	}
	return changes, nil
}
