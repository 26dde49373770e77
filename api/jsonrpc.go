package api

import (
	"net/http"
	"reflect"
	"strings"
)

// jsonrpc names the operation in a header and has JSON objects in the bodies.
type jsonrpc struct{}

func (jsonrpc) match(s *Service, r *http.Request, _ []byte) (*Operation, Labels, error) {
	prefix, name, ok := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	op := s.byName[name]
	if !ok || prefix != s.TargetPrefix || op == nil || r.Method != http.MethodPost {
		return nil, Labels{}, unknownOperation(http.StatusBadRequest, "")
	}
	return op, Labels{}, nil
}

func (jsonrpc) decode(s *Service, op *Operation, _ Labels, _ *http.Request, body []byte, in reflect.Value) error {
	if len(body) == 0 {
		return nil
	}
	return decodeJSON(body, s.mustShape(op.input), in)
}

func (c jsonrpc) encode(s *Service, w http.ResponseWriter, op *Operation, requestID string, out reflect.Value) {
	var body []byte
	if output := s.mustShape(op.output); output.typ != reflect.TypeFor[Empty]() {
		body = appendObject(nil, output, out, "")
	}
	writeBody(w, op.Status, requestID, c.contentType(s), body)
}

func (c jsonrpc) encodeError(s *Service, w http.ResponseWriter, requestID string, f failure) {
	extra := appendString([]byte(`"__type":`), f.code)
	writeBody(w, f.status, requestID, c.contentType(s), f.object(string(extra)))
}

func (jsonrpc) contentType(s *Service) string { return "application/x-amz-json-" + s.JSONVersion }
