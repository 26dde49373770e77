package api

import (
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
		format := isoTime
		switch m.location {
		case inPath:
			texts = labels.path[slices.Index(op.labels, m.wire):][:1]
		case inQuery:
			texts = parameters[m.wire]
		case inHeader:
			texts, format = r.Header[m.wire], headerTime
		}
		if len(texts) == 0 {
			continue
		}
		if err := parseTexts(m, in, texts, format); err != nil {
			return err
		}
	}
	return decodeRESTBody(input, body, in)
}

// parseTexts sets a member outside of the body. A list takes all texts, a scalar
// the first.
func parseTexts(m *member, in reflect.Value, texts []string, format timeFormat) error {
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return malformed("A parameter is not valid UTF-8")
		}
	}
	v := m.fresh(in)
	if m.shape.kind != kindList {
		return parseText(m.shape, v, texts[0], format)
	}
	if len(texts) > maxValues {
		return malformed("The request has more than %d list members and map entries", maxValues)
	}
	v.Set(reflect.MakeSlice(v.Type(), len(texts), len(texts)))
	for i, text := range texts {
		if err := parseText(m.shape.element, v.Index(i), text, format); err != nil {
			return err
		}
	}
	return nil
}

func decodeRESTBody(input *shape, body []byte, in reflect.Value) error {
	switch {
	case len(body) == 0:
		return nil
	case input.payload == nil:
		if !input.body {
			return nil
		}
		return decodeJSON(body, input, in)
	case input.payload.shape.kind == kindBlob:
		input.payload.fresh(in).SetBytes(body)
		return nil
	default:
		return decodeJSON(body, input.payload.shape, input.payload.fresh(in))
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
			w.Header().Set(m.wire, formatText(m.shape, m.get(out), headerTime))
		case inStatus:
			if code := int(m.get(out).Int()); code >= 200 && code < 600 {
				status = code
			}
		}
	}
	contentType := w.Header().Get("Content-Type")
	if contentType == "" {
		contentType = "application/json" // of payloads too: Lambda calls all of them that
	}
	switch payload := output.payload; {
	case status == http.StatusNoContent:
		writeBody(w, status, requestID, "", nil)
	case payload != nil && payload.absent(out):
		writeBody(w, status, requestID, contentType, nil)
	case payload != nil && payload.shape.kind == kindBlob:
		writeBody(w, status, requestID, contentType, payload.get(out).Bytes())
	case payload != nil:
		writeBody(w, status, requestID, contentType, appendObject(nil, payload.shape, payload.get(out), ""))
	case output.body:
		writeBody(w, status, requestID, contentType, appendObject(nil, output, out, ""))
	default:
		writeBody(w, status, requestID, "", nil)
	}
}

// encodeError writes {"Type":"User","message":...} with the error shape's other
// members in the body or in headers.
func (restJSON) encodeError(_ *Service, w http.ResponseWriter, requestID string, f failure) {
	w.Header().Set("x-amzn-ErrorType", f.code)
	typed := false // the error shape has a Type of its own
	if f.shape != nil {
		for _, m := range f.shape.members {
			switch {
			case m.absent(f.value):
			case m.location == inHeader:
				w.Header().Set(m.wire, formatText(m.shape, m.get(f.value), headerTime))
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
	writeBody(w, f.status, requestID, "application/json", f.object(extra))
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
