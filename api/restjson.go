package api

import (
	"cmp"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf8"
)

// restJSON binds members to path, query string, headers and status; the rest is
// a JSON object in the body, or one member is the whole body.
type restJSON struct{}

func (restJSON) match(s *Service, r *http.Request, _ []byte) (*Operation, Labels, error) {
	return s.router.match(r)
}

func (restJSON) decode(s *Service, op *Operation, labels Labels, r *http.Request, body []byte, in reflect.Value) error {
	input := s.mustShape(op.input)
	var parameters url.Values
	if input.query {
		var err error
		if parameters, err = url.ParseQuery(r.URL.RawQuery); err != nil {
			return malformed("The query string is not valid")
		}
	}
	for _, m := range input.members {
		var texts []string
		usual := isoTime
		switch m.location {
		case inPath:
			texts = labels.path[slices.Index(op.labels, m.wire):][:1]
		case inQuery:
			if m.shape.kind == kindMap {
				if err := parameterMap(m, in, parameters); err != nil {
					return err
				}
				continue
			}
			texts = parameters[m.wire]
		case inHeader:
			texts, usual = headerTexts(m.shape, r.Header[m.wire]), headerTime
		}
		if len(texts) == 0 {
			continue
		}
		if err := parseTexts(m.shape, m.fresh(in), texts, usual); err != nil {
			return err
		}
	}
	return decodeRESTBody(input, body, in)
}

// parseTexts sets v, a value outside of the body. A list takes all texts, a scalar
// the first.
func parseTexts(s *shape, v reflect.Value, texts []string, usual timeFormat) error {
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return malformed("A parameter is not valid UTF-8")
		}
	}
	if s.kind != kindList {
		return parseText(s, v, texts[0], usual)
	}
	if len(texts) > maxValues {
		return malformed("The request has more than %d list members and map entries", maxValues)
	}
	v.Set(reflect.MakeSlice(v.Type(), len(texts), len(texts)))
	for i, text := range texts {
		if err := parseText(s.element, v.Index(i), text, usual); err != nil {
			return err
		}
	}
	return nil
}

// parameterMap sets a member that is all parameters of the query string, those that
// are members of their own included.
func parameterMap(m *member, in reflect.Value, parameters url.Values) error {
	v := m.fresh(in)
	v.Set(reflect.MakeMapWithSize(v.Type(), len(parameters)))
	for name, texts := range parameters {
		entry := reflect.New(m.shape.element.typ).Elem()
		if err := parseTexts(m.shape.element, entry, texts, isoTime); err != nil {
			return err
		}
		if !utf8.ValidString(name) {
			return malformed("A parameter is not valid UTF-8")
		}
		v.SetMapIndex(reflect.ValueOf(name), entry)
	}
	return nil
}

func decodeRESTBody(input *shape, body []byte, in reflect.Value) error {
	if len(body) == 0 || input.payload == nil && !input.body {
		return nil
	}
	if input.payload == nil {
		return decodeJSON(body, input, in)
	}
	v := input.payload.fresh(in)
	switch input.payload.shape.kind {
	case kindBlob:
		v.SetBytes(body)
		return nil
	case kindString:
		return parseTexts(input.payload.shape, v, []string{string(body)}, isoTime)
	default:
		return decodeJSON(body, input.payload.shape, v)
	}
}

func (restJSON) encode(s *Service, w http.ResponseWriter, op *Operation, requestID string, out reflect.Value) {
	output := s.mustShape(op.output)
	status := op.Status
	for _, m := range output.members {
		if m.absent(out) {
			continue
		}
		switch m.location {
		case inHeader:
			setHeader(w.Header(), m, m.get(out))
		case inStatus:
			if code := int(m.get(out).Int()); code >= 200 && code < 600 {
				status = code
			}
		}
	}
	kind, body := restBody(s, output, out)
	if kind == "" || status == http.StatusNoContent {
		writeBody(w, status, requestID, "", nil)
		return
	}
	if given := w.Header().Get("Content-Type"); given != "" { // a member of the output
		kind = given
	}
	writeBody(w, status, requestID, kind, body)
}

// restBody returns the body of a response and its content type, which is empty if
// there never is one.
func restBody(s *Service, output *shape, out reflect.Value) (kind string, body []byte) {
	payload := output.payload
	switch {
	case output.typ == reflect.TypeFor[Empty]():
		return "", nil
	case payload == nil:
		return jsonType, appendObject(nil, output, out, "")
	}
	kind = jsonType
	switch payload.shape.kind {
	case kindBlob:
		kind = cmp.Or(s.PayloadType, "application/octet-stream")
	case kindString:
		kind = "text/plain"
	}
	if payload.absent(out) {
		return kind, nil
	}
	switch v := payload.get(out); payload.shape.kind {
	case kindBlob:
		return kind, v.Bytes()
	case kindString:
		return kind, []byte(v.String())
	default:
		return kind, appendObject(nil, payload.shape, v, "")
	}
}

const jsonType = "application/json"

// encodeError writes {"message":...} with the error shape's other members in the
// body or in headers, and in some services also whose fault it is.
func (restJSON) encodeError(s *Service, w http.ResponseWriter, requestID string, f failure) {
	w.Header().Set("x-amzn-ErrorType", f.name)
	typed := !s.FaultType // or the error shape has a Type of its own
	if f.shape != nil {
		for _, m := range f.shape.members {
			switch {
			case m.absent(f.value):
			case m.location == inHeader:
				setHeader(w.Header(), m, m.get(f.value))
			case m.wire == "Type":
				typed = true
			}
		}
	}
	extra := ""
	if !typed {
		extra = `"Type":"User"`
		if f.status >= http.StatusInternalServerError {
			extra = `"Type":"Service"`
		}
	}
	writeBody(w, f.status, requestID, jsonType, f.object(extra))
}

// writeBody writes a response in one piece.
func writeBody(w http.ResponseWriter, status int, requestID, contentType string, body []byte) {
	header := w.Header()
	header.Set("x-amzn-RequestId", requestID)
	if contentType != "" {
		header.Set("Content-Type", contentType)
	}
	if status != http.StatusNoContent {
		header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	if len(body) > 0 {
		_, _ = w.Write(body) // the client is gone: nobody is left to tell
	}
}
