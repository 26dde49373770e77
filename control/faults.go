package control

import (
	"errors"
	"fmt"

	"cloister/api"
	"cloister/api/lambdaapi"
	"cloister/lambda"
)

// What this package refuses itself, in AWS's words. Errors of its neighbours pass as they are: package gateway
// turns their kinds into exceptions.

func invalid(format string, args ...any) *lambdaapi.InvalidParameterValueException {
	return &lambdaapi.InvalidParameterValueException{Type: new("User"), Message: new(fmt.Sprintf(format, args...))}
}

func conflict(format string, args ...any) *lambdaapi.ResourceConflictException {
	return &lambdaapi.ResourceConflictException{Type: new("User"), Message: new(fmt.Sprintf(format, args...))}
}

func notFound(arn string) *lambdaapi.ResourceNotFoundException {
	return &lambdaapi.ResourceNotFoundException{Type: new("User"), Message: new("Function not found: " + arn)}
}

func unreachable(region, home string) *lambdaapi.ResourceNotFoundException {
	return &lambdaapi.ResourceNotFoundException{Type: new("User"),
		Message: new(fmt.Sprintf("Functions from '%s' are not reachable in this region ('%s')", region, home))}
}

func denied(message string) *api.Error {
	return &api.Error{Code: "AccessDeniedException", Status: 403, Message: message}
}

// notBuilt refuses what the Lambda API has and Cloister has not yet, as unbuilt operations are refused.
func notBuilt(format string, args ...any) *api.Error {
	return &api.Error{Code: "NotImplementedException", Status: 501,
		Message: "Cloister does not implement " + fmt.Sprintf(format, args...) + " yet; docs/STATUS.md lists what works"}
}

func alreadyExists(ref lambda.FunctionReference) error {
	return conflict("Function already exist: %s", ref.Name)
}

func errNoCode() error { return invalid("Please provide a source for function code.") }

func isNotFound(err error) bool {
	_, ok := errors.AsType[*lambdaapi.ResourceNotFoundException](err)
	return ok
}

func missing(what string, arn lambda.ARN) error {
	return &lambdaapi.ResourceNotFoundException{Type: new("User"), Message: new(what + arn.String())}
}

// inState is AWS's text for an operation that must wait for another state.
func inState(state string) string {
	return "The operation cannot be performed at this time. The function is currently in the following state: " + state
}

func updateInProgress(ref lambda.FunctionReference) error {
	return conflict("The operation cannot be performed at this time. An update is in progress for resource: %s", ref.ARN())
}

func errMarker() error { return invalid("The Marker is invalid.") }

// outOfRange is a failed constraint in the words of the wire layer.
func outOfRange(value int32, member, relation string, bound int) error {
	return &api.Error{Code: "ValidationException", Status: 400, Message: fmt.Sprintf("1 validation error detected: Value '%d' at '%s' "+
		"failed to satisfy constraint: Member must have value %s than or equal to %d", value, member, relation, bound)}
}
