// Package api is the AWS wire layer: it turns HTTP requests into the typed
// inputs of a service, checks them against the service's model, and turns typed
// outputs and errors back into what an AWS client expects. The sub-packages
// lambdaapi, iamapi, stsapi, kmsapi and logsapi hold the shapes, routes and
// constraints of one service each; they are generated and contain no logic.
//
// It authenticates nobody, authorises nothing and knows no business rule. The
// gateway calls Match, Decode, Encode and EncodeError; the packages that answer
// API calls (control, iam, logs, ...) implement a generated Server interface
// and return generated errors.
//
// Invariant: an input that leaves Decode satisfies every constraint its model
// states. A constraint that cannot be checked stops the generator, it is never
// skipped.
//
// An attacker chooses every byte of method, path, query, headers and body. The
// caller bounds the body's size; this package bounds nesting, error text and
// the work done per byte, and no input may make it panic.
package api

import (
	"context"
	"time"
)

//go:generate go run ./internal/generate -output .

// A Call says who asked for an operation, and when. The gateway makes it after
// the signature and the policies have been checked, and puts it into the context.
type Call struct {
	RequestID string // also in the x-amzn-RequestId header of the answer
	Region    string
	AccountID string // of the caller, 12 digits
	CallerARN string // arn:aws:iam::...:user/..., arn:aws:sts::...:assumed-role/...
	CallerID  string // the unique id of the principal, as GetCallerIdentity reports it
	SourceIP  string
	UserAgent string // as the client sent it: never trusted, only recorded
	TraceID   string // X-Amzn-Trace-Id of an invocation: the client's, or a new one
	Time      time.Time
}

// A Permission is one question for policy evaluation: may the caller do Action
// to Resource. Context holds the condition keys that the operation itself
// contributes, such as lambda:Principal.
type Permission struct {
	Action   string // "lambda:InvokeFunction"
	Resource string // an ARN, or "*" for actions without a resource
	Context  map[string][]string
}

// Empty is the input of operations that take nothing and the output of
// operations that answer nothing.
type Empty struct{}

type callKey struct{}

// WithCall returns a context that carries c.
func WithCall(ctx context.Context, c *Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// CallOf returns the Call in ctx. On a service path there always is one; where
// it is missing the zero Call is returned, which no policy allows anything.
func CallOf(ctx context.Context) *Call {
	if c, ok := ctx.Value(callKey{}).(*Call); ok && c != nil {
		return c
	}
	return &Call{}
}
