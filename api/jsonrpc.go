package api

import (
	"net/http"
	"reflect"
	"strings"
)

// jsonrpc names the operation in a header and has JSON objects in the bodies.
type jsonrpc struct{}

func (jsonrpc) match(s *Service, r *http.Request, _ []byte) (*Operation, Labels, error) {
	name, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), s.TargetPrefix+".")
	op := s.byName[name]
	if !ok || op == nil || r.Method != http.MethodPost {
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

// unmodelled stands before the __type of errors that no model declares, of
// services that have such a namespace at all.
const unmodelled = "com.amazon.coral.service"

// encodeError names the error in __type: its shape, behind a namespace in version
// 1.0. SDKs of services that once spoke the query protocol look for the code of
// that time in a header.
func (c jsonrpc) encodeError(s *Service, w http.ResponseWriter, requestID string, f failure) {
	name := f.name
	switch {
	case s.ErrorNamespace != "" && f.shape != nil:
		name = s.ErrorNamespace + "#" + name
	case s.ErrorNamespace != "":
		name = unmodelled + "#" + name
	}
	if s.QueryCompatible {
		if f.code != f.name {
			w.Header().Set("x-amzn-query-error", f.code+";"+f.blame())
		}
		if f.shape != nil && f.status < http.StatusInternalServerError {
			f.status = http.StatusBadRequest // the model's is that of the query protocol
		}
	}
	extra := appendString([]byte(`"__type":`), name)
	writeBody(w, f.status, requestID, c.contentType(s), f.object(string(extra)))
}

func (jsonrpc) contentType(s *Service) string { return "application/x-amz-json-" + s.JSONVersion }
