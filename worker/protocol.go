package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"cloister/internal/channel"
	"cloister/lambda"
)

// The exchanges that the front asks of a worker.
const (
	kindAttach         channel.Kind = 16 + iota // lease: stays open, carries ended environments
	kindCreate                                  // lambda.EnvironmentSpec -> created
	kindInvoke                                  // invoke + payload -> invoked + payload
	kindDestroy                                 // environmentID -> nothing
	kindCheckRuntime                            // runtimeName -> runtimeVersion
	kindPrepareRuntime                          // runtimeName -> nothing
)

// The exchanges that a worker asks of the front.
const (
	kindRedeem channel.Kind = 64 + iota // redeem -> redeemed, then Data frames, then Done
	kindPipe                            // nothing -> plain bytes to the gateway
	kindLogs                            // logBatch + events -> nothing
)

// ended is sent on the lease when an environment died on its own.
type ended struct{ EnvironmentID, Reason string }

type created struct{ EnvironmentID string }

type environmentID struct{ EnvironmentID string }

// invoke and invoked belong to every invocation, so they spell themselves: each field as its length and its bytes.
type invoke struct {
	EnvironmentID string
	RequestID     string
	FunctionARN   string
	ClientContext string
	TraceID       string
	LogTail       bool
}

type invoked struct {
	FunctionError   string
	ExecutedVersion string
	LogTail         []byte
}

// AppendBinary implements encoding.BinaryAppender.
func (i *invoke) AppendBinary(b []byte) ([]byte, error) {
	tail := ""
	if i.LogTail {
		tail = "tail"
	}
	return appendFields(b, i.EnvironmentID, i.RequestID, i.FunctionARN, i.ClientContext, i.TraceID, tail), nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (i *invoke) UnmarshalBinary(b []byte) error {
	var tail string
	err := readFields(b, &i.EnvironmentID, &i.RequestID, &i.FunctionARN, &i.ClientContext, &i.TraceID, &tail)
	i.LogTail = tail != ""
	return err
}

// AppendBinary implements encoding.BinaryAppender.
func (i *invoked) AppendBinary(b []byte) ([]byte, error) {
	return appendFields(b, i.FunctionError, i.ExecutedVersion, string(i.LogTail)), nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (i *invoked) UnmarshalBinary(b []byte) error {
	var tail string
	err := readFields(b, &i.FunctionError, &i.ExecutedVersion, &tail)
	i.LogTail = []byte(tail)
	return err
}

func appendFields(b []byte, fields ...string) []byte {
	for _, f := range fields {
		b = binary.AppendUvarint(b, uint64(len(f)))
		b = append(b, f...)
	}
	return b
}

// readFields sets exactly the fields that b holds.
func readFields(b []byte, fields ...*string) error {
	all := string(b) // the fields are parts of it
	for _, f := range fields {
		length, n := binary.Uvarint(b)
		if n <= 0 || length > uint64(len(b)-n) {
			return errors.New("malformed header")
		}
		*f = all[n : n+int(length)]
		b, all = b[n+int(length):], all[n+int(length):]
	}
	if len(b) != 0 {
		return errors.New("malformed header: too long")
	}
	return nil
}

type runtimeName struct{ Identifier string }

type runtimeVersion struct{ VersionARN string }

type redeem struct{ Grant string }

type redeemed struct{ Key []byte } // opens this one artifact

// logBatch is a run of events of one stream, oldest first. The events travel in the frame's body.
type logBatch struct {
	AccountID, Group, Stream string
	Events                   []lambda.LogEvent `json:"-"`
}

// appendEvents writes each event as its time in milliseconds, the length of its text, and the text.
func appendEvents(b []byte, events []lambda.LogEvent) []byte {
	for _, e := range events {
		b = binary.AppendVarint(b, e.Time.UnixMilli())
		b = binary.AppendUvarint(b, uint64(len(e.Message)))
		b = append(b, e.Message...)
	}
	return b
}

// readEvents is the opposite of appendEvents.
func readEvents(b []byte) ([]lambda.LogEvent, error) {
	var events []lambda.LogEvent
	for all := string(b); len(b) > 0; { // the texts are parts of all
		at, n := binary.Varint(b)
		length, m := binary.Uvarint(b[max(n, 0):])
		if n <= 0 || m <= 0 || length > uint64(len(b)-n-m) || len(events) == maxFrameEvents {
			return nil, errors.New("malformed log events")
		}
		end := n + m + int(length)
		events = append(events, lambda.LogEvent{Time: time.UnixMilli(at), Message: all[n+m : end]})
		b, all = b[end:], all[end:]
	}
	return events, nil
}

// remote turns an error into what crosses the channel: kind and text. The text of an
// internal error crosses too; only the gateway decides what a caller may read.
func remote(err error) *channel.RemoteError {
	if e, ok := errors.AsType[*lambda.Error](err); ok && e.Message != "" {
		return &channel.RemoteError{Code: uint8(e.Kind), Operation: e.Op, Message: e.Message}
	}
	return &channel.RemoteError{Code: uint8(lambda.KindOf(err)), Operation: "worker", Message: err.Error()}
}

// fromWorker turns the outcome of an exchange that the front asked of a worker back into a lambda.Error.
func fromWorker(ctx context.Context, op string, err error) error {
	return outcomeOf(ctx, op, "the worker is restarting; try again", err)
}

// local is fromWorker for what a worker asked of the front.
func local(ctx context.Context, op string, err error) error {
	return outcomeOf(ctx, op, "the front is restarting; try again", err)
}

// outcomeOf says that a peer which cannot be asked, or went away before it answered, is Unavailable: away.
func outcomeOf(ctx context.Context, op, away string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*channel.RemoteError](err); ok {
		return &lambda.Error{Kind: lambda.Kind(e.Code), Op: op, Message: e.Message}
	}
	if ctx.Err() != nil {
		return &lambda.Error{Kind: lambda.Unavailable, Op: op, Message: "the call was abandoned", Err: context.Cause(ctx)}
	}
	return &lambda.Error{Kind: lambda.Unavailable, Op: op, Message: away, Err: err}
}
