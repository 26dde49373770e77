package lambda

import (
	"errors"
	"fmt"
)

// A Kind classifies an Error. The list is closed; package gateway turns each Kind into the
// exception that AWS clients expect.
type Kind uint8

// The kinds of error. Numbers are stable: they cross the worker protocol.
const (
	Internal         Kind = 0 // a fault of Cloister; the text is for the operator only
	InvalidParameter Kind = 1 // the caller's request is wrong
	NotFound         Kind = 2 // no such function, version or alias
	Conflict         Kind = 3 // the resource changed, or exists already
	NotReady         Kind = 4 // the function is still Pending, or Failed
	Throttled        Kind = 5 // a concurrency or rate limit was reached
	Capacity         Kind = 6 // this worker has no room: ask another one
	Unavailable      Kind = 7 // a worker is restarting or gone: the caller may retry
	EnvironmentGone  Kind = 8 // the environment ended before it took the event: use another
	TooLarge         Kind = 9 // a request or response over its limit
	InvalidRuntime   Kind = 10
	AccessDenied     Kind = 11 // a grant, certificate or role does not allow this
	Corrupt          Kind = 12 // stored bytes do not pass their integrity check
	InvalidPayload   Kind = 13 // the event is not JSON
	Busy             Kind = 14 // the environment is still finishing its last event: use another
)

var kindNames = [...]string{"internal", "invalid parameter", "not found", "conflict", "not ready", "throttled", "capacity",
	"unavailable", "environment gone", "too large", "invalid runtime", "access denied", "corrupt", "invalid payload", "busy"}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Error is the one error type below the packages that answer API calls.
type Error struct {
	Kind    Kind
	Op      string // what we were doing, lower case: "place", "create environment"
	Message string // for the caller, if Kind is not Internal
	Err     error  // the cause, for the operator's log
}

// Error returns operation, message and cause.
func (e *Error) Error() string {
	s := e.Op
	if e.Message != "" {
		s += ": " + e.Message
	} else {
		s += ": " + e.Kind.String()
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error of the given kind with a formatted message.
func Errorf(k Kind, op, format string, args ...any) *Error {
	return &Error{Kind: k, Op: op, Message: fmt.Sprintf(format, args...)}
}

// KindOf returns the kind of the outermost Error in err's chain; Internal if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
