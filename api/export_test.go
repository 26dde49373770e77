package api

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
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

// BindTypes makes an operation of types that are known at run time only.
func BindTypes(operation Operation, in, out reflect.Type) *Operation {
	operation.input, operation.output = in, out
	return &operation
}

// EncodeErrorShape is EncodeError for an error of a type without methods.
func (s *Service) EncodeErrorShape(w http.ResponseWriter, requestID, name, code string, status int, value reflect.Value) {
	f := failure{code: code, name: name, status: status}
	f.describe(s.mustShape(value.Type()), value)
	s.codec().encodeError(s, w, requestID, f)
}

// HandwrittenPatterns are the patterns that Go cannot compile as they stand.
func HandwrittenPatterns() []string { return slices.Collect(maps.Keys(handwrittenPatterns)) }

// CheckJSON reads a text that may be any value and drops it.
func CheckJSON(text []byte) error {
	r := jsonReader{text: text}
	if err := r.skip(); err != nil {
		return err
	}
	return r.end()
}

// SplitHeader and JoinHeader read and write a list of strings in a header.
func SplitHeader(text string) []string { return splitHeader(text, false) }

func JoinHeader(texts []string) string {
	header := http.Header{}
	m := &member{wire: "X", shape: &shape{kind: kindList, element: &shape{kind: kindString}}}
	setHeader(header, m, reflect.ValueOf(texts))
	return header.Get("X")
}
