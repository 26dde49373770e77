// Package invoke is the request-response path: it resolves what the caller named to one
// function version, admits the call under the account's concurrency, obtains an environment,
// runs the event and returns the answer.
//
// It does not authenticate or authorize (package gateway has), does not choose among environments
// (package placement does) and keeps nothing: an event that was not answered is the caller's to
// repeat. It is called by the gateway, later by queue and pollers.
//
// Invariants: an admitted call holds exactly one unit of its account's concurrency until it is
// answered; an event is given to a second environment only if the first one has certainly
// not seen it.
package invoke

import (
	"cmp"
	"context"
	"encoding/json"
	"sync"
	"time"
	"unicode/utf8"

	"cloister/lambda"
)

// DefaultConcurrency is Lambda's quota of concurrent executions per account and region.
const DefaultConcurrency = 1000

// answerGrace is how much longer than the function's timeout an answer may take.
const answerGrace = 5 * time.Second

// Bounds of how many environments that did not take the event are tried.
const (
	attempts = 4 // that have ended
	// busyAttempts of environments that are still finishing their last event. Each has waited for a tenth of a second, so on a
	// machine whose processors are all taken an event waits for seconds before it is refused.
	busyAttempts = 50
)

// Versions resolves a function reference. Implemented by control.Control.
type Versions interface {
	Resolve(ctx context.Context, ref lambda.FunctionReference) (*lambda.Version, error)
}

// Placement hands out environments. Implemented by placement.Pool.
type Placement interface {
	Assign(ctx context.Context, v *lambda.Version) (Assignment, error)
}

// Assignment is an environment in the hands of this invocation.
type Assignment interface {
	Invoke(ctx context.Context, inv *lambda.Invocation) (*lambda.Result, error)
	Release()
	Defer() // give it back: it is still finishing its last event
	Discard(reason string)
}

// Config of a Service.
type Config struct {
	Versions    Versions
	Placement   Placement
	Concurrency int // per account; 0 means DefaultConcurrency
}

// Service runs invocations. Its methods may be called concurrently.
type Service struct {
	config Config

	mu     sync.Mutex
	active map[string]int // guarded by mu; invocations under way, by account
}

// New returns a Service.
func New(c Config) (*Service, error) {
	c.Concurrency = cmp.Or(c.Concurrency, DefaultConcurrency)
	return &Service{config: c, active: map[string]int{}}, nil
}

// Check resolves the reference and does nothing more: InvocationType DryRun.
func (s *Service) Check(ctx context.Context, ref lambda.FunctionReference) error {
	_, err := s.config.Versions.Resolve(ctx, ref)
	return err
}

// Invoke runs the event and waits for its answer. inv.Payload is JSON; an empty one becomes {}.
// Errors: lambda.NotFound, NotReady, InvalidParameter (the payload is not JSON), TooLarge,
// Throttled, Unavailable.
func (s *Service) Invoke(ctx context.Context, ref lambda.FunctionReference, inv *lambda.Invocation) (*lambda.Result, error) {
	if err := checkPayload(inv); err != nil {
		return nil, err
	}
	v, err := s.config.Versions.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	if err := s.admit(v.ID.AccountID); err != nil {
		return nil, err
	}
	defer s.leave(v.ID.AccountID)
	// A caller who hangs up ends neither the making of an environment nor the function, which AWS
	// bills to its end.
	ctx = context.WithoutCancel(ctx)
	for gone, busy := 0, 0; gone < attempts && busy < busyAttempts; {
		result, err := s.once(ctx, v, inv)
		if err == nil {
			return result, nil
		}
		switch lambda.KindOf(err) {
		case lambda.EnvironmentGone:
			gone++
		case lambda.Busy:
			busy++
		default:
			return nil, err
		}
	}
	return nil, &lambda.Error{Kind: lambda.Unavailable, Op: "invoke", Message: "the function's environments end or are busy before they take the event; try again"}
}

func checkPayload(inv *lambda.Invocation) error {
	if len(inv.Payload) > lambda.MaxPayloadBytes {
		return lambda.Errorf(lambda.TooLarge, "invoke", "Request must be smaller than %d bytes for the InvokeFunction operation", lambda.MaxPayloadBytes)
	}
	if len(inv.Payload) == 0 {
		inv.Payload = []byte("{}")
		return nil
	}
	if !utf8.Valid(inv.Payload) {
		return lambda.Errorf(lambda.InvalidPayload, "invoke", "Could not parse request body into json: invalid UTF-8")
	}
	if !json.Valid(inv.Payload) {
		err := json.Unmarshal(inv.Payload, new(json.RawMessage)) // says where
		return lambda.Errorf(lambda.InvalidPayload, "invoke", "Could not parse request body into json: %v", err)
	}
	return nil
}

// once runs the event in one environment.
func (s *Service) once(ctx context.Context, v *lambda.Version, inv *lambda.Invocation) (*lambda.Result, error) {
	a, err := s.config.Placement.Assign(ctx, v)
	if err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeout(ctx, v.Timeout+answerGrace) // a dead worker is noticed at once
	defer cancel()
	result, err := a.Invoke(limit, inv)
	if lambda.KindOf(err) == lambda.Busy {
		a.Defer()
		return nil, err
	}
	if err != nil {
		// Whatever happened, nobody knows what the environment is doing now.
		a.Discard("invocation without an answer: " + lambda.KindOf(err).String())
		return nil, err
	}
	a.Release()
	return result, nil
}

func (s *Service) admit(accountID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[accountID] >= s.config.Concurrency {
		return &lambda.Error{Kind: lambda.Throttled, Op: "invoke", Message: "Rate Exceeded."}
	}
	s.active[accountID]++
	return nil
}

func (s *Service) leave(accountID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[accountID]--; s.active[accountID] == 0 {
		delete(s.active, accountID)
	}
}
