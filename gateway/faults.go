package gateway

import (
	"cmp"
	"errors"
	"net/http"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// A translation is what AWS clients see of a kind of lambda.Error.
type translation struct {
	// fault makes the error that the client gets; nil hides kind and text behind the service's
	// internal failure.
	fault func(message string) api.Fault
	// retry adds a Retry-After header. SDKs retry 429 and 5xx with or without it.
	retry bool
	// message stands in for an error without one.
	message string
}

// translations is the one place where kinds become AWS exceptions. Services other than Lambda answer
// api.Fault themselves; where a Kind comes through one of them from below, it looks the same.
var translations = [...]translation{
	lambda.Internal: {},
	lambda.InvalidParameter: {message: "The request is invalid.", fault: func(m string) api.Fault {
		return &lambdaapi.InvalidParameterValueException{Message: &m}
	}},
	lambda.NotFound: {message: "The resource does not exist.", fault: func(m string) api.Fault {
		return &lambdaapi.ResourceNotFoundException{Message: &m}
	}},
	lambda.Conflict: {message: "The resource already exists, or another operation is in progress.", fault: func(m string) api.Fault {
		return &lambdaapi.ResourceConflictException{Message: &m}
	}},
	lambda.NotReady: {message: "The function is not ready.", fault: func(m string) api.Fault {
		return &lambdaapi.ResourceConflictException{Message: &m}
	}},
	lambda.Throttled: {message: "Rate Exceeded.", retry: true, fault: func(m string) api.Fault {
		return &lambdaapi.TooManyRequestsException{Message: &m}
	}},
	lambda.Capacity:        {message: "No worker has room for another execution environment now.", retry: true, fault: unavailable},
	lambda.Unavailable:     {message: "The service is temporarily unavailable.", retry: true, fault: unavailable},
	lambda.EnvironmentGone: {message: "The execution environment ended before it took the event.", retry: true, fault: unavailable},
	lambda.TooLarge: {message: "The request is too large.", fault: func(m string) api.Fault {
		return &api.Error{Code: "RequestEntityTooLargeException", Status: http.StatusRequestEntityTooLarge, Message: m}
	}},
	lambda.InvalidRuntime: {message: "The runtime is not valid or not available.", fault: func(m string) api.Fault {
		return &lambdaapi.InvalidRuntimeException{Message: &m}
	}},
	lambda.AccessDenied: {message: "Access denied.", fault: func(m string) api.Fault {
		return &api.Error{Code: "AccessDeniedException", Status: http.StatusForbidden, Message: m}
	}},
	lambda.Corrupt: {}, // which bytes are damaged is for the operator
	lambda.InvalidPayload: {message: "Could not parse request body into json.", fault: func(m string) api.Fault {
		return &lambdaapi.InvalidRequestContentException{Message: &m}
	}},
	lambda.Busy: {message: "The execution environment is busy.", retry: true, fault: unavailable},
}

// unavailable has Lambda's name for a fault of the service and, unlike it, a status that asks clients
// to try again. As on AWS the function may have run: its worker ended before the answer came.
func unavailable(message string) api.Fault {
	return &api.Error{Code: "ServiceException", Status: http.StatusServiceUnavailable, Message: message}
}

// fault returns what to tell the client of err: an api.Fault, or err itself if that is to be answered
// as an internal failure. It adds a Retry-After header where trying again soon makes sense.
func (x *exchange) fault(err error) error {
	if fault, ok := errors.AsType[api.Fault](err); ok {
		return x.inServiceWords(fault)
	}
	internal, ok := errors.AsType[*lambda.Error](err)
	if !ok || int(internal.Kind) >= len(translations) || translations[internal.Kind].fault == nil {
		return err
	}
	translation := translations[internal.Kind]
	if translation.retry {
		x.Header().Set("Retry-After", "1")
	}
	return x.inServiceWords(translation.fault(cmp.Or(internal.Message, translation.message)))
}

// queryCodes are codes that differ in the query protocol.
var queryCodes = map[string]string{
	"AccessDeniedException":       "AccessDenied",
	"UnrecognizedClientException": "InvalidClientTokenId",
}

// inServiceWords gives an error the code that it has in the service's protocol. Package iam, which
// words denials, does not know which service they are for.
func (x *exchange) inServiceWords(fault api.Fault) api.Fault {
	if x.route.api.Protocol != api.Query {
		return fault
	}
	general, ok := fault.(*api.Error)
	if !ok || queryCodes[general.Code] == "" {
		return fault
	}
	return &api.Error{Code: queryCodes[general.Code], Status: general.Status, Message: general.Message}
}
