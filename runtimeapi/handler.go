package runtimeapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"cloister/lambda"
)

// An endpoint is one function of the API.
type endpoint uint8

const (
	unknownEndpoint endpoint = iota
	nextEndpoint
	responseEndpoint
	errorEndpoint
	initErrorEndpoint
	pingEndpoint
	logsEndpoint
	telemetryEndpoint
	extensionEndpoint
)

const (
	invocationPath = "/2018-06-01/runtime/invocation/"
	extensionPath  = "/2020-01-01/extension/"
)

// endpoints are the paths without a request id, and the one method each allows. restore/next,
// restore/error and the credentials exist only where snapshots are taken; without them the
// emulator does not know these paths either.
var endpoints = map[string]struct {
	endpoint endpoint
	method   string
}{
	invocationPath + "next":            {nextEndpoint, http.MethodGet},
	"/2018-06-01/runtime/init/error":   {initErrorEndpoint, http.MethodPost},
	"/2018-06-01/ping":                 {pingEndpoint, http.MethodGet},
	"/2020-08-15/logs":                 {logsEndpoint, http.MethodPut},
	"/2022-07-01/telemetry":            {telemetryEndpoint, http.MethodPut},
	"/2020-01-01/extension/register":   {extensionEndpoint, http.MethodPost},
	"/2020-01-01/extension/event/next": {extensionEndpoint, http.MethodGet},
	"/2020-01-01/extension/init/error": {extensionEndpoint, http.MethodPost},
	"/2020-01-01/extension/exit/error": {extensionEndpoint, http.MethodPost},
}

// route finds the endpoint of a path and the method it allows. id points into path.
func route(path []byte) (e endpoint, id []byte, method string) {
	if rest, ok := bytes.CutPrefix(path, []byte(invocationPath)); ok {
		if string(rest) == "next" {
			return nextEndpoint, nil, http.MethodGet
		}
		id, action, _ := bytes.Cut(rest, []byte{'/'})
		switch string(action) {
		case "response":
			return responseEndpoint, id, http.MethodPost
		case "error":
			return errorEndpoint, id, http.MethodPost
		}
		return unknownEndpoint, nil, ""
	}
	found := endpoints[string(path)]
	return found.endpoint, nil, found.method
}

// knownMethods are those that the emulator's router knows. Any other is refused whatever the
// path is.
var knownMethods = map[string]bool{
	http.MethodConnect: true, http.MethodDelete: true, http.MethodGet: true, http.MethodHead: true, http.MethodOptions: true,
	http.MethodPatch: true, http.MethodPost: true, http.MethodPut: true, http.MethodTrace: true,
}

// handle answers one request. It reports whether the connection can be used for another one.
func (c *connection) handle(h *head) bool {
	b := c.body(h)
	e, id, method := route(h.path)
	if string(h.method) != method || e == unknownEndpoint {
		return c.reply(h, &b, misrouted(h, e, method))
	}
	switch e {
	case nextEndpoint:
		return c.handleNext(h, &b)
	case responseEndpoint:
		return c.handleResponse(h, &b, id)
	case errorEndpoint:
		return c.handleError(h, &b, id)
	case initErrorEndpoint:
		return c.handleInitError(h, &b)
	case pingEndpoint:
		return c.reply(h, &b, pong)
	case logsEndpoint:
		return c.reply(h, &b, logsNotSupported)
	case telemetryEndpoint:
		return c.reply(h, &b, telemetryNotSupported)
	default:
		return c.reply(h, &b, extensionNotSupported)
	}
}

func misrouted(h *head, e endpoint, allowed string) *reply {
	switch {
	case !knownMethods[string(h.method)]:
		return unknownMethod
	case e == unknownEndpoint:
		return noSuchPage
	}
	return methodNotAllowed(allowed)
}

func (c *connection) handleNext(h *head, b *body) bool {
	if b.proceed() != nil || !b.drain() {
		return false
	}
	c.persistence = h.persistence() // before next: another goroutine may deliver at once
	if refusal := c.server.next(c); refusal != nil {
		return c.reply(h, b, refusal)
	}
	return true
}

func (c *connection) handleResponse(h *head, b *body, id []byte) bool {
	s := c.server
	inv, refusal := s.accept(c, id, invocationResponse)
	if refusal != nil {
		return c.reply(h, b, refusal)
	}
	if h.mode == modeInvalid {
		// The emulator leaves the runtime in this state, in which it gets no further event.
		s.complete(inv, failure("Runtime.InvalidResponseModeHeader", "Invalid function response mode"), invocationResponse)
		return c.reply(h, b, invalidMode)
	}
	payload, err := b.read(lambda.MaxResponseBytes)
	if err != nil {
		return c.uploadFailed(h, b, inv, err)
	}
	answer := Answer{Payload: payload}
	if b.errorType != "" {
		answer = brokenOff(b)
	}
	return c.finish(h, b, inv, answer)
}

func (c *connection) handleError(h *head, b *body, id []byte) bool {
	inv, refusal := c.server.accept(c, id, invocationError)
	if refusal != nil {
		return c.reply(h, b, refusal)
	}
	payload, err := b.read(lambda.MaxResponseBytes)
	if err != nil {
		return c.uploadFailed(h, b, inv, err)
	}
	if h.errorCause {
		payload = withoutCause(payload)
	}
	return c.finish(h, b, inv, Answer{Payload: payload, FunctionError: true, ErrorType: validErrorType(h.errorType)})
}

// finish hands the answer on before the runtime hears that it was accepted.
func (c *connection) finish(h *head, b *body, inv *invocation, answer Answer) bool {
	if !c.server.complete(inv, answer, responseSent) {
		return c.reply(h, b, invalidRequestID)
	}
	return c.reply(h, b, accepted)
}

// uploadFailed ends the upload of an answer that could not be read to its end.
func (c *connection) uploadFailed(h *head, b *body, inv *invocation, err error) bool {
	if errors.Is(err, errTooLarge) {
		c.server.complete(inv, tooLarge(), responseSent)
		return c.reply(h, b, entityTooLarge)
	}
	c.server.retract(inv)
	return c.refuseUpload(err)
}

// refuseUpload answers a request whose body is malformed; a broken connection gets no answer.
func (c *connection) refuseUpload(err error) bool {
	if _, ok := errors.AsType[*requestError](err); ok {
		c.persistence = closing
		if c.write(truncated, false) == nil {
			c.linger()
		}
	}
	return false
}

func (c *connection) handleInitError(h *head, b *body) bool {
	s := c.server
	if refusal := s.acceptInitError(c); refusal != nil {
		return c.reply(h, b, refusal)
	}
	payload, err := b.read(lambda.MaxResponseBytes)
	switch {
	case errors.Is(err, errTooLarge):
		s.completeInitError(c, tooLarge())
		return c.reply(h, b, entityTooLarge)
	case err != nil:
		s.retractInitError(c)
		return c.refuseUpload(err)
	}
	s.completeInitError(c, Answer{Payload: payload, FunctionError: true, ErrorType: validErrorType(h.errorType)})
	return c.reply(h, b, accepted)
}

// failure is the answer that AWS makes itself of a runtime's mistake.
func failure(errorType, message string) Answer {
	return Answer{Payload: fmt.Appendf(nil, `{"errorType":%q,"errorMessage":%q}`, errorType, message), FunctionError: true, ErrorType: errorType}
}

func tooLarge() Answer {
	return failure("Function.ResponseSizeTooLarge", fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", lambda.MaxResponseBytes))
}

// brokenOff is the answer of a function that failed after it had begun to stream its response:
// the error in the trailers counts, what came before it does not.
func brokenOff(b *body) Answer {
	answer := failure(validErrorType(b.errorType), "The function failed while it was streaming its response.")
	if payload, err := base64.StdEncoding.DecodeString(b.errorBody); err == nil && len(payload) > 0 {
		answer.Payload = payload
	}
	return answer
}

// withoutCause reduces a body of type errorCauseType, which carries an X-Ray cause as well, to
// the error that the caller gets.
func withoutCause(payload []byte) []byte {
	var parts struct {
		ErrorMessage string   `json:"errorMessage"`
		ErrorType    string   `json:"errorType"`
		StackTrace   []string `json:"stackTrace,omitempty"`
	}
	err := json.Unmarshal(payload, &parts)
	if err == nil {
		payload, err = json.Marshal(parts)
	}
	if err != nil {
		return []byte(`"Invalid error body"`)
	}
	return payload
}

var errorTypePattern = regexp.MustCompile(`^(Runtime|Function)\.[A-Z][a-zA-Z]+$`)

// validErrorType keeps the error types that AWS defines room for.
func validErrorType(errorType string) string {
	switch {
	case errorTypePattern.MatchString(errorType):
		return errorType
	case strings.HasPrefix(errorType, "Function."):
		return "Function.Unknown"
	}
	return "Runtime.Unknown"
}
