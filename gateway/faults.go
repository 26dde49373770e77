package gateway

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"time"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// A translation is what AWS clients see of a kind of lambda.Error.
type translation struct {
	// fault makes the error that the client gets; nil hides kind and text behind the service's
	// internal failure.
	fault func(message string) api.Fault
	// retryAfter tells clients when to try again, if it makes sense at all. SDKs retry 429 and 5xx without being
	// told, but within 150 ms, which is too soon for room to be made.
	retryAfter time.Duration
	// message stands in for an error without one.
	message string
}

// Times after which a retry has a chance: of room or rate, and of a process that starts again. Calls that
// come while the worker starts wait for it.
const (
	roomAfter    = time.Second
	restartAfter = 200 * time.Millisecond
)

// translations is the one place where kinds become AWS exceptions. Services answer api.Fault for what they
// refuse themselves; a Kind comes through them from below.
var translations = [...]translation{
	lambda.Internal: {},
	lambda.InvalidParameter: {message: "The request is invalid.", fault: func(m string) api.Fault {
		return &lambdaapi.InvalidParameterValueException{Type: new("User"), Message: &m}
	}},
	lambda.NotFound: {message: "The resource does not exist.", fault: func(m string) api.Fault {
		return &lambdaapi.ResourceNotFoundException{Type: new("User"), Message: &m}
	}},
	lambda.Conflict: {message: "The resource already exists, or another operation is in progress.", fault: func(m string) api.Fault {
		return &lambdaapi.ResourceConflictException{Type: new("User"), Message: &m}
	}},
	lambda.NotReady: {message: "The function is not ready.", fault: func(m string) api.Fault {
		return &lambdaapi.ResourceConflictException{Type: new("User"), Message: &m}
	}},
	lambda.Throttled: {message: "Rate Exceeded.", retryAfter: roomAfter, fault: func(m string) api.Fault {
		return &lambdaapi.TooManyRequestsException{Type: new("User"), Message: &m}
	}},
	lambda.Capacity:        {message: "No worker has room for another execution environment now.", retryAfter: roomAfter, fault: unavailable},
	lambda.Unavailable:     {message: "The service is temporarily unavailable.", retryAfter: restartAfter, fault: unavailable},
	lambda.EnvironmentGone: {message: "The execution environment ended before it took the event.", retryAfter: restartAfter, fault: unavailable},
	lambda.TooLarge: {message: "The request is too large.", fault: func(m string) api.Fault {
		return &api.Error{Code: "RequestEntityTooLargeException", Status: http.StatusRequestEntityTooLarge, Message: m}
	}},
	lambda.InvalidRuntime: {message: "The runtime is not valid or not available.", fault: func(m string) api.Fault {
		return &lambdaapi.InvalidRuntimeException{Type: new("User"), Message: &m}
	}},
	lambda.AccessDenied: {message: "Access denied.", fault: func(m string) api.Fault {
		return &api.Error{Code: "AccessDeniedException", Status: http.StatusForbidden, Message: m}
	}},
	lambda.Corrupt: {}, // which bytes are damaged is for the operator
	lambda.InvalidPayload: {message: "Could not parse request body into json.", fault: func(m string) api.Fault {
		return &lambdaapi.InvalidRequestContentException{Type: new("User"), Message: &m}
	}},
	lambda.Busy: {message: "The execution environment is busy.", retryAfter: restartAfter, fault: unavailable},
}

// serviceException is Lambda's code for a fault of the service.
const serviceException = "ServiceException"

// unavailable has Lambda's name for a fault of the service and, unlike it, a status that asks clients
// to try again. As on AWS the function may have run: its worker ended before the answer came.
func unavailable(message string) api.Fault {
	return &api.Error{Code: serviceException, Status: http.StatusServiceUnavailable, Message: message}
}

// fault returns what to tell the client of err: an api.Fault, or err itself if that is to be answered
// as an internal failure. It says when to try again where that makes sense.
func (x *exchange) fault(err error) error {
	if fault, ok := errors.AsType[api.Fault](err); ok {
		return x.inServiceWords(fault)
	}
	internal, ok := errors.AsType[*lambda.Error](err)
	if !ok || int(internal.Kind) >= len(translations) || translations[internal.Kind].fault == nil {
		return err
	}
	translation := translations[internal.Kind]
	if after := translation.retryAfter; after > 0 {
		x.Header().Set("Retry-After", strconv.Itoa(int(max(after, time.Second)/time.Second))) // in seconds, HTTP's own
		x.Header().Set("X-Amz-Retry-After", strconv.Itoa(int(after/time.Millisecond)))        // what SDKs go by
	}
	return x.inServiceWords(translation.fault(cmp.Or(internal.Message, translation.message)))
}

// words are the codes that services have in place of Lambda's.
var words = map[string]map[string]string{
	"iam":  queryWords,
	"sts":  queryWords,
	"logs": {serviceException: "ServiceUnavailableException"},
}

var queryWords = map[string]string{
	"AccessDeniedException":       "AccessDenied",
	"UnrecognizedClientException": "InvalidClientTokenId",
	serviceException:              "ServiceUnavailable",
}

// inServiceWords gives an error the code that the service has for it. Package iam, which words denials, does
// not know which service they are for.
func (x *exchange) inServiceWords(fault api.Fault) api.Fault {
	general, ok := fault.(*api.Error)
	if !ok {
		return fault
	}
	code := words[x.route.api.Name][general.Code]
	if code == "" {
		return fault
	}
	return &api.Error{Code: code, Status: general.Status, Message: general.Message}
}
