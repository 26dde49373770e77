package api

import (
	"context"
	"net/http"
	"reflect"
	"sync"
)

// A Protocol is one of AWS's encodings of requests and responses.
type Protocol int

// The protocols of the services that Cloister serves.
const (
	RESTJSON Protocol = iota // REST bindings with JSON bodies: lambda
	JSONRPC                  // X-Amz-Target with JSON bodies, version 1.0 or 1.1: kms, logs
	Query                    // form parameters in, XML out: iam, sts
)

// A Service is one AWS service: its operations, the constraints of its shapes
// and how it speaks. The generated packages hold one each, which must not be
// modified. The methods may be called concurrently.
type Service struct {
	Name       string // as in the credential scope of a signature: "lambda"
	Protocol   Protocol
	APIVersion string // "2015-03-31"

	PayloadType string // content type of a blob that is the whole body, RESTJSON only
	FaultType   bool   // errors say in their body whose fault they are: "Type":"User" or "Service"; RESTJSON only

	TargetPrefix    string // of X-Amz-Target, JSONRPC only
	JSONVersion     string // "1.0" or "1.1", JSONRPC only
	ErrorNamespace  string // stands before the __type of the service's own errors, JSONRPC only; AWS has it with version 1.0
	QueryCompatible bool   // errors name the code that they had in the query protocol in a header, JSONRPC only

	Namespace string // of XML responses, Query only

	ValidationCode string // error code of a failed validation
	FailureCode    string // error code of an internal failure
	Operations     []*Operation
	Rules          map[string]Rule // constraints by name of the model's shape

	routes sync.Once
	router *router               // by path, RESTJSON only; written in routes
	byName map[string]*Operation // written in routes
	shapes shapeCache
}

// An Operation is one operation of a service.
type Operation struct {
	Name      string // "CreateFunction"
	Method    string // HTTP method
	URI       string // path with {labels}, perhaps with fixed query parameters
	Status    int    // of a successful response
	Result    string // XML element around the output, Query only
	Sensitive bool   // the input has members that must not be logged

	// New returns a fresh input, a pointer to the operation's input structure.
	New func() any
	// Call calls the operation's method of server, which must implement the
	// generated Server interface, with an input made by New. The output is nil
	// if the error is not.
	Call func(ctx context.Context, server any, in any) (out any, err error)

	input, output reflect.Type
	labels        []string // names of the labels in URI; written with the router
}

// Bind completes operation with the method that answers it. In and Out are
// pointers to structures. Generated code calls it.
func Bind[S, In, Out any](operation Operation, method func(S, context.Context, In) (Out, error)) *Operation {
	operation.input = reflect.TypeFor[In]().Elem()
	operation.output = reflect.TypeFor[Out]().Elem()
	input := operation.input
	operation.New = func() any { return reflect.New(input).Interface() }
	operation.Call = func(ctx context.Context, server, in any) (any, error) {
		out, err := method(server.(S), ctx, in.(In))
		if err != nil {
			return nil, err
		}
		return out, nil
	}
	return &operation
}

// A codec speaks one protocol.
type codec interface {
	match(s *Service, r *http.Request, body []byte) (*Operation, Labels, error)
	decode(s *Service, op *Operation, labels Labels, r *http.Request, body []byte, in reflect.Value) error
	encode(s *Service, w http.ResponseWriter, op *Operation, requestID string, out reflect.Value)
	encodeError(s *Service, w http.ResponseWriter, requestID string, f failure)
}

func (s *Service) codec() codec {
	switch s.Protocol {
	case JSONRPC:
		return jsonrpc{}
	case Query:
		return query{}
	default:
		return restJSON{}
	}
}

// Match finds the operation that r asks for. The body is looked at only where
// the protocol names the operation in it; Match keeps neither r nor body. The
// error is a Fault, in AWS's words for an operation it does not know.
func (s *Service) Match(r *http.Request, body []byte) (*Operation, Labels, error) {
	s.routes.Do(s.index)
	return s.codec().match(s, r, body)
}

// Operation returns the operation of that name, or nil.
func (s *Service) Operation(name string) *Operation {
	s.routes.Do(s.index)
	return s.byName[name]
}

func (s *Service) index() {
	s.byName = make(map[string]*Operation, len(s.Operations))
	for _, op := range s.Operations {
		s.byName[op.Name] = op
	}
	if s.Protocol == RESTJSON {
		s.router = newRouter(s.Operations)
	}
}

// Decode returns the operation's input, decoded from the request and validated.
// Blob members may alias body. The error is a Fault: a SerializationException
// for what cannot be decoded, the service's validation error for the rest.
func (s *Service) Decode(op *Operation, labels Labels, r *http.Request, body []byte) (any, error) {
	in, err := s.decode(op, labels, r, body)
	if err != nil {
		return nil, err
	}
	if err := s.validate(in); err != nil {
		return nil, err
	}
	return in.Interface(), nil
}

func (s *Service) decode(op *Operation, labels Labels, r *http.Request, body []byte) (reflect.Value, error) {
	in := reflect.New(op.input)
	return in, s.codec().decode(s, op, labels, r, body, in.Elem())
}

// Encode writes the successful response of op. Headers that w has already are
// kept unless the output sets them. The output of an operation that answers an
// event stream is refused: such a stream is not one value.
func (s *Service) Encode(w http.ResponseWriter, op *Operation, requestID string, out any) {
	if s.mustShape(op.output).stream {
		s.EncodeError(w, op, requestID, NotImplemented(s.Name, op.Name))
		return
	}
	v := reflect.ValueOf(out)
	if !v.IsValid() || v.IsNil() {
		v = reflect.New(op.output)
	}
	s.codec().encode(s, w, op, requestID, v.Elem())
}

// EncodeError writes err as an AWS error response. An error that is not a Fault
// becomes the service's internal failure, without its text. Op may be nil, for
// errors before an operation is known.
func (s *Service) EncodeError(w http.ResponseWriter, _ *Operation, requestID string, err error) {
	s.codec().encodeError(s, w, requestID, s.failure(err))
}
