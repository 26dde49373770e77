package runtimeapi

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"cloister/lambda"
)

const (
	jsonType  = "Content-Type: application/json\r\n"
	plainText = "Content-Type: text/plain; charset=utf-8\r\n"
	notFound  = plainText + "X-Content-Type-Options: nosniff\r\n"
)

// A reply is a whole answer of a few bytes.
type reply struct {
	status int
	header string // complete lines, without Connection and Content-Length
	body   string
}

// The fixed answers, which are the emulator's where it has one.
var (
	accepted = &reply{http.StatusAccepted, jsonType, `{"status":"OK"}` + "\n"}
	pong     = &reply{http.StatusOK, plainText, "pong"}

	invalidRequestID = problem(http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
	invalidMode      = problem(http.StatusBadRequest, "InvalidFunctionResponseMode", "Invalid function response mode")
	entityTooLarge   = problem(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", fmt.Sprintf("Exceeded maximum allowed payload size (%d bytes).", lambda.MaxResponseBytes))
	truncated        = problem(http.StatusBadRequest, "TruncatedHTTPRequest", "HTTP request detected as truncated")

	logsNotSupported      = problem(http.StatusAccepted, "Logs.NotSupported", "Logs API is not supported")
	telemetryNotSupported = problem(http.StatusAccepted, "Telemetry.NotSupported", "Telemetry API is not supported")
	extensionNotSupported = problem(http.StatusNotImplemented, "Extension.NotSupported", "Cloister does not implement the Extensions API yet")

	noSuchPage    = &reply{http.StatusNotFound, notFound, "404 page not found\n"}
	unknownMethod = &reply{http.StatusMethodNotAllowed, "", ""}
)

func problem(status int, errorType, message string) *reply {
	return &reply{status, jsonType, `{"errorMessage":"` + message + `","errorType":"` + errorType + `"}` + "\n"}
}

// forbidden refuses a request that does not fit the runtime's state.
func forbidden(from, to state) *reply {
	return problem(http.StatusForbidden, "InvalidStateTransition",
		"State transition from "+from.String()+" to "+to.String()+" failed for runtime. Error: State transition is not allowed")
}

func methodNotAllowed(allowed string) *reply {
	return &reply{http.StatusMethodNotAllowed, "Allow: " + allowed + "\r\n", ""}
}

// append writes the answer behind out.
func (r *reply) append(out []byte, connection string, withoutBody bool) []byte {
	out = append(out, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(r.status), 10)
	out = append(out, ' ')
	out = append(out, http.StatusText(r.status)...)
	out = append(out, "\r\n"...)
	out = append(out, r.header...)
	out = append(out, connection...)
	out = append(out, "Content-Length: "...)
	out = strconv.AppendInt(out, int64(len(r.body)), 10)
	out = append(out, "\r\n\r\n"...)
	if withoutBody {
		return out
	}
	return append(out, r.body...)
}

// An Event is one invocation as the runtime sees it.
type Event struct {
	RequestID       string // not empty, unique in the environment's life, without "/"
	FunctionARN     string
	TraceID         string // the rest: "" for none
	ClientContext   string // JSON
	CognitoIdentity string // JSON
	Deadline        time.Time
	Payload         []byte // must not be changed any more, not even after Invoke has returned
}

// appendHead writes the answer to GET next up to its body. Content-Type is always there:
// awslambdaric 4.2.2 crashes without it.
func (e *Event) appendHead(out []byte, connection string) []byte {
	out = append(out, "HTTP/1.1 200 OK\r\n"+jsonType...)
	out = append(out, connection...)
	out = appendField(out, "Lambda-Runtime-Aws-Request-Id: ", e.RequestID)
	if !e.Deadline.IsZero() {
		out = append(out, "Lambda-Runtime-Deadline-Ms: "...)
		out = strconv.AppendInt(out, e.Deadline.UnixMilli(), 10)
		out = append(out, "\r\n"...)
	}
	out = appendField(out, "Lambda-Runtime-Invoked-Function-Arn: ", e.FunctionARN)
	out = appendField(out, "Lambda-Runtime-Trace-Id: ", e.TraceID)
	out = appendField(out, "Lambda-Runtime-Client-Context: ", e.ClientContext)
	out = appendField(out, "Lambda-Runtime-Cognito-Identity: ", e.CognitoIdentity)
	out = append(out, "Content-Length: "...)
	out = strconv.AppendInt(out, int64(len(e.Payload)), 10)
	return append(out, "\r\n\r\n"...)
}

// appendField writes a header line unless value is empty. A control character in value, such as
// a line break in a caller's client context, becomes a space: in JSON it can only stand between
// tokens, and nobody can end the line with it.
func appendField(out []byte, name, value string) []byte {
	if value == "" {
		return out
	}
	out = append(out, name...)
	start := len(out)
	out = append(out, value...)
	for i, b := range out[start:] {
		if b < ' ' && b != '\t' || b == 0x7f {
			out[start+i] = ' '
		}
	}
	return append(out, "\r\n"...)
}
