package api

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
)

// A Fault is an error that a client may see: it has an AWS error code and an
// HTTP status. Every generated error shape is one (by pointer), and so is *Error.
// All other errors are answered as an internal failure without their text.
type Fault interface {
	error
	ErrorCode() string
	HTTPStatus() int
}

// Error is a Fault that no service model declares, such as a refused signature,
// a failed validation or an operation that is not built.
type Error struct {
	Code    string // "AccessDeniedException"
	Status  int    // HTTP status, 400 if zero
	Message string // for the caller
}

// Error returns code and message.
func (e *Error) Error() string { return Describe(e.Code, &e.Message) }

// ErrorCode returns the AWS error code.
func (e *Error) ErrorCode() string { return e.Code }

// HTTPStatus returns the status of the response, 400 if none was set.
func (e *Error) HTTPStatus() int {
	if e.Status == 0 {
		return http.StatusBadRequest
	}
	return e.Status
}

// Describe joins an error code and its message, which may be nil. Generated
// error shapes use it.
func Describe(code string, message *string) string {
	if message == nil || *message == "" {
		return code
	}
	return code + ": " + *message
}

// NotImplemented is the answer of an operation that is routed but not built.
// Its status is 501, which SDKs do not retry.
func NotImplemented(service, operation string) error {
	return &Error{
		Code:    "NotImplementedException",
		Status:  http.StatusNotImplemented,
		Message: fmt.Sprintf("Cloister does not implement %s:%s yet; docs/STATUS.md lists what works", service, operation),
	}
}

// unknownOperation is the answer to a request that names no operation of the service.
func unknownOperation(status int, message string) error {
	return &Error{Code: "UnknownOperationException", Status: status, Message: message}
}

// malformed is the answer to a body, header or parameter that is not what the
// model says, in the words of AWS's own parsers.
func malformed(format string, arguments ...any) error {
	return &Error{Code: "SerializationException", Status: http.StatusBadRequest, Message: fmt.Sprintf(format, arguments...)}
}

// A failure is an error as a codec writes it.
type failure struct {
	code    string // as clients of the query protocol know it
	name    string // as all others do: of the error's shape
	status  int
	message string
	shape   *shape        // of a generated error shape, otherwise nil
	value   reflect.Value // of that shape, a structure
}

// failure returns what the client may learn of err.
func (s *Service) failure(err error) failure {
	fault, ok := errors.AsType[Fault](err)
	if !ok {
		return failure{code: s.FailureCode, name: s.FailureCode, status: http.StatusInternalServerError,
			message: "Service encountered an internal error."}
	}
	f := failure{code: fault.ErrorCode(), name: fault.ErrorCode(), status: fault.HTTPStatus()}
	if f.status < 400 || f.status > 599 {
		f.status = http.StatusInternalServerError
	}
	if plain, ok := fault.(*Error); ok {
		f.message = plain.Message
		return f
	}
	v := reflect.ValueOf(fault)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return f
	}
	if known, err := s.shape(v.Type().Elem()); err == nil { // otherwise code and status have to do
		f.name = known.typ.Name()
		f.describe(known, v.Elem())
	}
	return f
}

// describe adds the generated error shape that the failure is.
func (f *failure) describe(known *shape, value reflect.Value) {
	f.shape, f.value = known, value
	for _, m := range known.members {
		if m.path == "message" && !m.absent(value) {
			f.message = m.get(value).String()
		}
	}
}

// blame says in the query protocol's words whose fault the failure is.
func (f failure) blame() string {
	if f.status >= http.StatusInternalServerError {
		return "Receiver"
	}
	return "Sender"
}

// object returns the failure as a JSON object that begins with extra, which may be
// empty.
func (f failure) object(extra string) []byte {
	if f.shape != nil {
		return appendObject(nil, f.shape, f.value, extra)
	}
	b := append([]byte("{"), extra...)
	if f.message != "" {
		if extra != "" {
			b = append(b, ',')
		}
		b = append(b, `"message":`...)
		b = appendString(b, f.message)
	}
	return append(b, '}')
}
