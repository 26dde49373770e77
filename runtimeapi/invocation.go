package runtimeapi

import (
	"context"
	"slices"

	"cloister/lambda"
)

// A state is the runtime's, as the emulator has them.
//
//	started ── next ──► ready ── event ──► running ── response ──► invocationResponse ─┐
//	   │                  ▲                   └─────── error ────► invocationError ────┤
//	   └─ init/error      └───────────────────── next ──────────── responseSent ◄──────┘
//
// There is no way on from initError, nor from invocationResponse after an invalid response mode:
// such a runtime must be reset. An upload that breaks off leads back to running.
type state uint8

const (
	started state = iota
	initError
	ready
	running
	invocationResponse
	invocationError
	responseSent
)

// String returns the emulator's name of the state, which stands in error messages.
func (s state) String() string {
	return [...]string{"Started", "InitError", "Ready", "Running", "InvocationResponse", "InvocationErrorResponse", "RuntimeResponseSentState"}[s]
}

// An Answer is what the runtime made of an event, or of its initialisation.
type Answer struct {
	Payload       []byte // owned by the receiver
	FunctionError bool
	ErrorType     string // with FunctionError: "Runtime.…" or "Function.…", letters only
}

// An invocation is one event on its way through the runtime.
type invocation struct {
	event Event

	// Guarded by Server.mu.
	delivered bool // a connection has been told to write it
	answered  bool // an outcome has been or is about to be put into done

	done chan outcome // capacity 1; whoever sets answered, or Reset, sends
}

type outcome struct {
	answer Answer
	err    error
}

// Invoke gives the event to the runtime when it asks for one and returns its answer as soon as
// all of it has come: Offer and, if need be, Await.
func (s *Server) Invoke(ctx context.Context, event Event) (Answer, error) {
	answer, err := s.Offer(event)
	if err != nil {
		return Answer{}, err
	}
	if answer == nil {
		return s.Await(ctx)
	}
	s.Acknowledge()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack()
	return *answer, nil
}

// Offer gives the event to the runtime if it has asked for one, else when it does. If the runtime answers at once
// the answer is returned; its runtime waits for Acknowledge. Otherwise Await must follow.
//
// The errors are of type *lambda.Error. Kind Conflict: another event is under way. Kind EnvironmentGone: the
// runtime has not seen the event, because its state allows no further event before Reset.
func (s *Server) Offer(event Event) (*Answer, error) {
	s.Settle()
	inv := &invocation{event: event, done: make(chan outcome, 1)}
	c, carry, err := s.begin(inv)
	if err != nil || c == nil {
		return nil, err
	}
	if !carry {
		c.deliver(&inv.event)
		return nil, nil
	}
	if !c.carry(inv) {
		return nil, nil
	}
	s.takeOffered()
	out := <-inv.done
	if out.err != nil {
		return nil, out.err
	}
	return &out.answer, nil
}

func (s *Server) takeOffered() *invocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	inv := s.offered
	s.offered = nil
	return inv
}

// Await returns the answer to the event that was offered last as soon as all of it has come.
//
// The errors are of type *lambda.Error. Kind EnvironmentGone: the runtime has not seen the event, because Reset came
// first. Otherwise the runtime may have acted on the event: errors.Is tells ErrReset from the cause of ctx.
// When ctx ends after the runtime has got the event, its answer will be refused, and every event until Reset.
func (s *Server) Await(ctx context.Context) (Answer, error) {
	inv := s.takeOffered()
	if inv == nil {
		return Answer{}, lambda.Errorf(lambda.Internal, "await runtime", "no event was offered")
	}
	select {
	case out := <-inv.done:
		return out.answer, out.err
	case <-ctx.Done():
	}
	if !s.abandon(inv) {
		out := <-inv.done // the answer or Reset was first
		return out.answer, out.err
	}
	return Answer{}, &lambda.Error{Op: "invoke runtime", Err: context.Cause(ctx)}
}

// begin makes inv the current invocation and returns the connection to deliver it to; nil if
// the runtime has not asked yet. carry says that the caller must carry it.
func (s *Server) begin(inv *invocation) (c *connection, carry bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && !s.current.answered {
		return nil, false, lambda.Errorf(lambda.Conflict, "invoke runtime", "the environment is busy with event %s", s.current.event.RequestID)
	}
	if s.state != started && s.state != ready && s.state != responseSent {
		return nil, false, lambda.Errorf(lambda.EnvironmentGone, "invoke runtime", "the runtime is in state %s and must be reset", s.state)
	}
	s.current, s.offered = inv, inv
	c, _ = s.dispatch()
	if carry = c != nil && c.hold == aside; carry {
		c.hold = carried
	}
	return c, carry, nil
}

// dispatch pairs the current event with the connection that has waited longest.
// Preconditions: mu is held. The caller calls deliver after it has released mu.
func (s *Server) dispatch() (*connection, *invocation) {
	if s.state != ready || s.current == nil || len(s.waiting) == 0 {
		return nil, nil
	}
	c := s.waiting[0]
	s.waiting = slices.Delete(s.waiting, 0, 1)
	s.state = running
	s.current.delivered = true
	return c, s.current
}

// abandon forgets inv. It reports false if inv has an outcome.
func (s *Server) abandon(inv *invocation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != inv || inv.answered {
		return false
	}
	s.current = nil
	return true
}

// next notes a GET next of c, after which c owes an answer, or returns a refusal.
func (s *Server) next(c *connection) *reply {
	s.mu.Lock()
	target, inv, refusal := s.poll(c)
	s.mu.Unlock()
	if target != nil {
		target.deliver(&inv.event)
	}
	return refusal
}

// poll is next up to the delivery.
// Preconditions: mu is held.
func (s *Server) poll(c *connection) (*connection, *invocation, *reply) {
	switch {
	case c.generation != s.generation:
		return nil, nil, invalidRequestID
	case s.state == running && s.current != nil:
		// The emulator gives the event again: its first copy may have been lost.
		c.owes = true
		return c, s.current, nil
	case s.state != started && s.state != ready && s.state != responseSent:
		return nil, nil, forbidden(s.state, ready)
	}
	if s.current != nil && s.current.answered {
		s.current = nil
	}
	c.owes = true
	s.waiting = append(s.waiting, c)
	s.state, s.initialized = ready, true
	s.broadcast()
	target, inv := s.dispatch()
	switch target {
	case nil:
		s.holdBack(c)
	case s.held:
		s.giveBack() // nobody carries it: the event was there first
	}
	return target, inv, nil
}

// unpark withdraws the GET next of a connection that has broken. It reports false if another
// goroutine answers it already.
func (s *Server) unpark(c *connection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, c)
	if i < 0 {
		return false
	}
	s.waiting = slices.Delete(s.waiting, i, i+1)
	return true
}

// accept moves the runtime from running to the state that receives an answer to the event id.
func (s *Server) accept(c *connection, id []byte, to state) (*invocation, *reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.generation != s.generation || s.current == nil || len(id) == 0 || string(id) != s.current.event.RequestID {
		return nil, invalidRequestID
	}
	if s.state != running {
		return nil, forbidden(s.state, to)
	}
	s.state = to
	return s.current, nil
}

// complete ends inv with an answer and leaves the runtime in state to. It reports false if the
// event has been abandoned or reset since accept.
func (s *Server) complete(inv *invocation, answer Answer, to state) bool {
	s.mu.Lock()
	valid := s.current == inv && !inv.answered
	if valid {
		inv.answered = true
		s.state = to
	}
	s.mu.Unlock()
	if valid {
		inv.done <- outcome{answer: answer}
	}
	return valid
}

// retract undoes accept after an upload that broke off, so that the runtime may try again.
func (s *Server) retract(inv *invocation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == inv && !inv.answered {
		s.state = running
	}
}

// acceptInitError moves the runtime from started to initError.
func (s *Server) acceptInitError(c *connection) *reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.generation != s.generation:
		return invalidRequestID
	case s.state != started:
		return forbidden(s.state, initError)
	}
	s.state = initError
	return nil
}

// completeInitError publishes an init error. An event that waits for this runtime is answered
// with it, as AWS does when it repeats a failed init within an invocation.
func (s *Server) completeInitError(c *connection, answer Answer) {
	s.mu.Lock()
	if c.generation != s.generation {
		s.mu.Unlock()
		return
	}
	s.initError = &answer
	inv := s.current
	if inv != nil {
		inv.answered = true
	}
	s.broadcast()
	s.mu.Unlock()
	if inv != nil {
		inv.done <- outcome{answer: answer}
	}
}

// retractInitError undoes acceptInitError after an upload that broke off.
func (s *Server) retractInitError(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.generation == s.generation {
		s.state = started
	}
}
