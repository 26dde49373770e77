package api

import (
	"net/http"
	"reflect"
)

// DecodeUnchecked is Decode without validation, for fixtures whose values break
// their constraints.
func (s *Service) DecodeUnchecked(op *Operation, labels Labels, r *http.Request, body []byte) (any, error) {
	in, err := s.decode(op, labels, r, body)
	return in.Interface(), err
}

// BodyOf returns the body members of an input as JSON.
func (s *Service) BodyOf(in any) []byte {
	v := reflect.ValueOf(in).Elem()
	input := s.mustShape(v.Type())
	if input.payload != nil && input.payload.shape.kind == kindStructure {
		return appendObject(nil, input.payload.shape, input.payload.get(v), "")
	}
	return appendObject(nil, input, v, "")
}

// Check validates an input.
func (s *Service) Check(in any) error { return s.validate(reflect.ValueOf(in)) }

// ShapeError returns why a type cannot be decoded or encoded.
func (s *Service) ShapeError(t reflect.Type) error {
	_, err := s.shape(t)
	return err
}

// InputType and OutputType are the structures of an operation.
func (o *Operation) InputType() reflect.Type  { return o.input }
func (o *Operation) OutputType() reflect.Type { return o.output }

// DecodeJSON decodes text into the structure that to points to.
func (s *Service) DecodeJSON(text []byte, to any) error {
	v := reflect.ValueOf(to).Elem()
	return decodeJSON(text, s.mustShape(v.Type()), v)
}
